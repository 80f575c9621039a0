"""A toy shop of 12 items with fixed codes, samples of 30 users, and an untrained model: what a stage starts from."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tests.unit.training.conftest import TINY
from tests.unit.training.sample_kit import write_rows
from training.core.backbone import build_backbone, load_backbone, save_backbone
from training.core.learner import Learner
from training.core.stage import StageSpec, TableRef
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import ItemCodes, codebooks

ITEMS = [f"i{n}" for n in range(12)]


def write_samples(path: Path, **changes: Any) -> Path:
    """30 users of five days, the last ones for validation and test. A user's third item is liked, the others disliked.

    `changes` replaces columns.
    """
    rows = []
    for user in range(30):
        items = [ITEMS[(user + 5 * step) % 12] for step in range(5)]
        for step, item in enumerate(items):
            day = date(2024, 1, 1) + timedelta(days=step)
            time = datetime(day.year, day.month, day.day, tzinfo=UTC)
            part, word = {3: "valid", 4: "test"}.get(step, "train"), ("liked" if step == 2 else "disliked")
            rows.append((f"u{user:02d}", day, time, item, items[:step], part, word))
    return write_rows(path, rows, **changes)


def write_start(folder: Path) -> StageSpec:
    """The semantic ids, the model and the samples in `folder`, as the spec of a stage that starts from `sft`."""
    codes, model = folder / "ids", folder / "sft" / "model"
    codes.mkdir()
    leaves = pa.array([[n // 4, n % 4] for n in range(12)], pa.list_(pa.int32()))
    pq.write_table(pa.table({"item_id": ITEMS, "codes": leaves}), codes / "codes.parquet")
    vocabulary = Vocabulary.create(train_text_tokenizer(["pen"], 270), codebooks(codes))
    save_backbone(build_backbone(TINY, vocabulary, seed=5), vocabulary, model)
    tables = {"next_item_training_set": TableRef((str(write_samples(folder / "samples.parquet")),), origin="simulated")}
    artifacts = {"semantic_ids": str(codes), "sft": str(folder / "sft")}
    return StageSpec("generative_rec", "stage", str(folder / "out"), 3, tables, artifacts, {"start": "sft"})


def named(spec: StageSpec, name: str, config: Mapping[str, Any]) -> StageSpec:
    """The spec of the stage `name`, which writes beside the others."""
    out = Path(spec.out).with_name(name)
    out.mkdir(exist_ok=True)
    return replace(spec, stage=name, out=str(out), config={"start": "sft", **config})


def after(spec: StageSpec, below: StageSpec) -> StageSpec:
    """The same stage, started from where another one ended."""
    artifacts = {**spec.artifacts, below.stage: below.out}
    return replace(spec, artifacts=artifacts, config={**spec.config, "start": below.stage})


def load(spec: StageSpec, folder: str | Path) -> tuple[PreTrainedModel, ItemCodes]:
    """The model that a stage left in `folder`, and the items in its tokens."""
    model, vocabulary = load_backbone(Path(folder) / "model")
    return model.eval(), ItemCodes.load(spec.artifact("semantic_ids"), vocabulary)


def weights(folder: str | Path) -> dict[str, Any]:
    """The weights that a stage left in `folder`."""
    return {name: value.tolist() for name, value in load_file(Path(folder) / "model" / "model.safetensors").items()}


def logged(spec: StageSpec, name: str) -> list[float]:
    """A value of the log of a stage, line by line."""
    lines = map(json.loads, (spec.out_dir / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


class Killed(BaseException):
    """Stands for SIGKILL: nothing gets to save anything."""


@contextmanager
def killed_in_step(number: int, *, softly: bool) -> Iterator[None]:
    """A stage in this block is killed in its n-th optimizer step: by SIGTERM, or softly not."""
    whole, taken = Learner.step, 0

    def step(self: Learner[Any], *arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == number and softly:
            os.kill(os.getpid(), signal.SIGTERM)
        elif taken == number:
            raise Killed
        return whole(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", step)
        yield
