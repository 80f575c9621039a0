"""What is wrong with its input, a stage says before it trains: each fault, in each stage that would meet it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.unit.training.alignment_kit import ITEMS, write_samples, write_start
from tests.unit.training.conftest import TINY
from training.core.errors import DataError
from training.core.learner import Learner
from training.core.stage import StageSpec, TableRef
from training.core.steps import Steps
from training.generative_rec import code_sizes, quantizers
from training.generative_rec.collaborative_vectors import CollaborativeVectors
from training.ranker.shop import Shop

TEXTS = ("title", "brand", "category", "description", "features")
USERS = [f"u{n:02d}" for n in range(30)]
BACKBONE = {"hidden_size": TINY.hidden_size, "layers": 1, "heads": 2, "kv_heads": 1, "head_size": 8}
LOOP = {"epochs": 1, "rows": 4, "row_tokens": 128}
MIXTURE = {"sequential": 1.0, "item_to_text": 1.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "semantic_ids": {"codes": 4, "levels": 2},
    "collaborative": {"steps": 2},
    "scid_tokenizer": {},
    "sft": {"tasks": MIXTURE, "backbone": BACKBONE, "loop": LOOP},
    "progressive": {"start": "sft", "source": "self_play", "level": "mixed", "least": 1, "loop": LOOP},
    "grpo": {"start": "sft", "beams": 4, "policy": {"rounds": 1, "prompts": 4, "minibatch": 4, "row_tokens": 128}},
    "evaluate": {"splits": ["time"]},
}
TOKENIZERS = ("semantic_ids", "scid_tokenizer")
ALIGNERS = ("progressive", "grpo")
OF_CODES = ("sft", *ALIGNERS, "evaluate")


class Trains(BaseException):
    """Raised in place of training: the stage took its input."""


def trains(*_: Any, **__: Any) -> NoReturn:
    raise Trains


def vectors(texts: Sequence[str], *_: Any, **__: Any) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((len(texts), 8)).astype(np.float32)


def broken_vectors(texts: Sequence[str], *_: Any, **__: Any) -> NDArray[np.float32]:
    found = vectors(texts)
    found[3] = np.nan
    return found


@pytest.fixture(autouse=True)
def _nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "step", trains)
    monkeypatch.setattr(Steps, "run", trains)
    monkeypatch.setattr(quantizers.ResidualKMeans, "fit", trains)
    monkeypatch.setattr(Shop, "fitted", trains)
    monkeypatch.setattr(code_sizes, "LEAST", 2)
    encode_with(monkeypatch, vectors)


def encode_with(monkeypatch: pytest.MonkeyPatch, encoder: Callable[..., NDArray[np.float32]]) -> None:
    for module in ("training.generative_rec.stages.semantic_ids", "training.generative_rec.scid.inputs"):
        monkeypatch.setattr(f"{module}.embed_texts", encoder)


def write_items(folder: Path, item_ids: Sequence[str] = ITEMS, **changes: Any) -> None:
    columns: dict[str, Any] = {name: [None] * len(item_ids) for name in TEXTS}
    columns |= {"item_id": item_ids, "source": ["shop"] * len(item_ids), "title": [f"pen {n}" for n in item_ids]}
    schema = pa.schema([*((name, pa.string()) for name in columns), ("price", pa.float64())])
    prices = {"price": [None] * len(item_ids)}
    pq.write_table(pa.table({**columns, **prices, **changes}, schema=schema), folder / "items.parquet")


def write_codes(folder: Path, leaves: Sequence[Sequence[int]], item_ids: Sequence[str] = ITEMS) -> None:
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "codes": pa.array(leaves, pa.list_(pa.int32()))})
    pq.write_table(table, folder / "ids" / "codes.parquet")


def codes() -> list[list[int]]:
    return [[n // 4, n % 4] for n in range(12)]


@pytest.fixture
def shop(tmp_path: Path) -> StageSpec:
    """Good input for every stage, in `tmp_path`."""
    spec = write_start(tmp_path)
    write_items(tmp_path)
    books = {f"codebook.{level}": torch.randn(size, 6) for level, size in enumerate((3, 4))}
    save_file(books, tmp_path / "ids" / "quantizer.safetensors")
    (tmp_path / "collaborative").mkdir()
    made = CollaborativeVectors(tuple(sorted(ITEMS)), tuple(USERS), torch.randn(12, 4), torch.randn(30, 4))
    made.save(tmp_path / "collaborative")
    items = TableRef((str(tmp_path / "items.parquet"),))
    artifacts = {**spec.artifacts, "collaborative": str(tmp_path / "collaborative")}
    return replace(spec, tables={**spec.tables, "items": items}, artifacts=artifacts)


def run(shop: StageSpec, stage: str) -> None:
    out = Path(shop.out).with_name(f"{stage}_out")
    out.mkdir()
    importlib.import_module(f"training.generative_rec.stages.{stage}").main(
        replace(shop, stage=stage, out=str(out), config=CONFIGS[stage])
    )


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def without(table: pa.Table, column: str) -> pa.Table:
    """The second row has no value in the column."""
    values = pa.array([None if n == 1 else v for n, v in enumerate(table[column].to_pylist())], table[column].type)
    return table.set_column(table.column_names.index(column), column, values)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def spoil(file: Path, name: str | None = None) -> None:
    tensors = load_file(file)
    tensors[name or min(tensors)].view(-1)[5] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


def one_event(folder: Path) -> None:
    """The last user keeps the first of the five days."""
    rewrite(folder / "samples.parquet", lambda table: table.slice(0, table.num_rows - 4))


def other_meaning(folder: Path) -> None:
    """The model says that it was trained with other codes, of the same sizes."""
    file = folder / "sft" / "model" / "vocabulary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "meaning": "another one"}))


def other_items(folder: Path) -> None:
    write_samples(folder / "samples.parquet", item_id=[f"gone{n % 12}" for n in range(150)])


Fault = Callable[[Path], object]
ITEM_TABLE = ("semantic_ids", "collaborative", "scid_tokenizer", "sft", "evaluate")
FAULTS: dict[str, tuple[Fault, Sequence[str], str]] = {
    "an empty catalogue": (lambda d: write_items(d, []), ITEM_TABLE, "table items is empty"),
    "a catalogue of other sources": (
        lambda d: write_items(d, ["x"]), ("semantic_ids", "collaborative", "scid_tokenizer"), "the catalogue is empty"
    ),
    "no semantic id": (lambda d: write_codes(d, [], []), OF_CODES, "table codes is empty"),
    "an item with no text": (
        lambda d: write_items(d, title=["pen", " ", None, *["pen"] * 9]), TOKENIZERS, "2 items have no text"
    ),
    "a user with one event": (one_event, ("collaborative", "scid_tokenizer"), "1 users have fewer than 2"),
    "an item twice in the catalogue": (
        lambda d: write_items(d, [*ITEMS[:11], "i0"]), ITEM_TABLE, "1 items are in the catalogue twice"
    ),
    "an item with two rows of codes": (
        lambda d: write_codes(d, codes(), [*ITEMS[:11], "i0"]), OF_CODES, "two rows of codes for one item"
    ),
    "two items with the same codes": (
        lambda d: write_codes(d, [*codes()[:11], [2, 2]]), OF_CODES, "have the same codes"
    ),
    "codes of another catalogue": (other_items, OF_CODES, "not in the catalogue"),
    "collaborative vectors that are not finite": (
        lambda d: spoil(d / "collaborative" / "collaborative.safetensors"), ("scid_tokenizer",), "not finite"
    ),
    "collaborative vectors of another split": (
        lambda d: (d / "collaborative" / "config.yaml").write_text("split: leave_one_out"),
        ("scid_tokenizer",), "of the split leave_one_out are asked for in a run of time",
    ),
    "codes of another split": (
        lambda d: (d / "ids" / "config.yaml").write_text("split: leave_one_out"),
        OF_CODES, "of the split leave_one_out are asked for in a run of time",
    ),
    "codes of another split, as an older checkout wrote it": (
        lambda d: (d / "ids" / "config.yaml").write_text("protocol: leave_one_out"),
        OF_CODES, "of the split leave_one_out are asked for in a run of time",
    ),
    "code vectors that are not finite": (
        lambda d: spoil(d / "ids" / "quantizer.safetensors"), ("sft",), "vector is not finite"
    ),
    "weights that are not finite": (
        lambda d: spoil(d / "sft" / "model" / "model.safetensors"), (*ALIGNERS, "evaluate"), "not finite"
    ),
    "a checkpoint with fewer codes": (
        lambda d: write_codes(d, [*codes(), [3, 0]], [*ITEMS, "i12"]), (*ALIGNERS, "evaluate"), "other semantic ids"
    ),
    "a checkpoint of other codes": (other_meaning, (*ALIGNERS, "evaluate"), "other semantic ids"),
    "a truncated checkpoint": (
        lambda d: cut(d / "sft" / "model" / "model.safetensors"), (*ALIGNERS, "evaluate"), "truncated or broken"
    ),
    "truncated code vectors": (lambda d: cut(d / "ids" / "quantizer.safetensors"), ("sft",), "missing or broken"),
    "truncated collaborative vectors": (
        lambda d: cut(d / "collaborative" / "collaborative.safetensors"), ("scid_tokenizer",), "missing or broken"
    ),
    "a truncated sample file": (lambda d: cut(d / "samples.parquet"), tuple(CONFIGS), "cannot be read as Parquet"),
    "samples without a column": (
        lambda d: rewrite(d / "samples.parquet", lambda table: table.drop_columns(["item_id"])),
        tuple(CONFIGS), "no column 'item_id'",
    ),
    "samples whose split is of another kind": (
        lambda d: rewrite(
            d / "samples.parquet",
            lambda table: table.set_column(5, "split_time", pa.array([0] * table.num_rows)),
        ),
        tuple(CONFIGS)[1:], "'split_time' of table next_item_training_set has type int64",
    ),
    "a sample without a history": (
        lambda d: rewrite(d / "samples.parquet", lambda table: without(table, "history_item_ids")),
        tuple(CONFIGS)[1:], "1 of 150 rows of table next_item_training_set have no 'history_item_ids'",
    ),
    "an item without an id": (
        lambda d: rewrite(d / "items.parquet", lambda table: without(table, "item_id")),
        ("semantic_ids", "collaborative", "scid_tokenizer"), "1 of 12 rows of table items have no 'item_id'",
    ),
    "items of another schema": (
        lambda d: rewrite(d / "items.parquet", lambda table: table.drop_columns(["category"])),
        ITEM_TABLE, "no column 'category'",
    ),
    "codes of another schema": (
        lambda d: rewrite(d / "ids" / "codes.parquet", lambda table: table.drop_columns(["codes"])),
        OF_CODES, "no column 'codes'",
    ),
}  # fmt: skip


def cases() -> Iterator[Any]:
    for name, (fault, stages, words) in FAULTS.items():
        for stage in stages:
            yield pytest.param(fault, stage, words, id=f"{name}-{stage}")


@pytest.mark.parametrize("stage", CONFIGS)
def test_good_input_gets_as_far_as_training(shop: StageSpec, stage: str) -> None:
    with pytest.raises(Trains):
        run(shop, stage)


@pytest.mark.parametrize(("fault", "stage", "words"), cases())
def test_bad_input_is_named_before_anything_is_trained(
    shop: StageSpec, tmp_path: Path, fault: Fault, stage: str, words: str
) -> None:
    fault(tmp_path)
    with pytest.raises(DataError, match=words) as refused:
        run(shop, stage)
    assert refused.value.do


@pytest.mark.parametrize("stage", TOKENIZERS)
def test_texts_whose_vectors_are_not_finite_are_named(
    shop: StageSpec, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    encode_with(monkeypatch, broken_vectors)
    with pytest.raises(DataError, match="1 items have an embedding that is not finite"):
        run(shop, stage)
