"""A packaged recommender of a few items, with random weights, and histories to ask it about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.core.backbone import BackboneConfig, build_backbone, save_backbone
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import CODES_FILE, USER_CODES_FILE, codebooks
from training.generative_rec.serve import Serving, package

ITEMS = [f"i{n}" for n in range(24)]
TINY = BackboneConfig(
    hidden_size=16, layers=2, heads=2, kv_heads=1, head_size=8, intermediate_size=24, max_positions=64
)


def package_recommender(folder: Path, seed: int, users: Sequence[str] = ("u0",), *, rank_own: bool = True) -> Path:
    """`folder/model` and beside it what it was made from; another seed ranks otherwise. Only `users` have codes."""
    codes, trained = folder / "codes", folder / "trained"
    for place in (codes, trained):
        place.mkdir(parents=True)
    _write_codes(codes / CODES_FILE, "item_id", {item: [n // 5, n % 5] for n, item in enumerate(ITEMS)})
    _write_codes(codes / USER_CODES_FILE, "user_id", {user: [n] for n, user in enumerate(users)})
    vocabulary = Vocabulary.create(train_text_tokenizer(["pen"], 270), codebooks(codes))
    save_backbone(build_backbone(TINY, vocabulary, seed), vocabulary, trained)
    package(trained, codes, Serving(history=5, beams=20, rank_own=rank_own), folder / "model")
    return folder / "model"


def write_histories(file: Path, histories: Mapping[str, Sequence[str]]) -> Path:
    """The table that the stage reads."""
    lists = pa.array(list(histories.values()), pa.list_(pa.string()))
    pq.write_table(pa.table({"user_id": pa.array(list(histories), pa.string()), "item_ids": lists}), file)
    return file


def write_catalogue(file: Path, items: Sequence[str] = ITEMS, sold_out: Collection[str] = ()) -> Path:
    """The catalogue of a day, which says of no item that it is in stock, and of some that they are not."""
    stock = pa.array([False if item in sold_out else None for item in items], pa.bool_())
    pq.write_table(pa.table({"item_id": pa.array(items, pa.string()), "in_stock": stock}), file)
    return file


def _write_codes(file: Path, key: str, codes: Mapping[str, list[int]]) -> None:
    lists = pa.array(list(codes.values()), pa.list_(pa.int32()))
    pq.write_table(pa.table({key: list(codes), "codes": lists}), file)
