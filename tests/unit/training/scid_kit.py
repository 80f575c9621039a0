"""A made-up shop of 60 items in 6 rings: people walk round a ring, so what comes next is known. For stage tests."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.unit.training.sample_kit import write_rows
from training.core.stage import StageSpec, TableRef

CONFIG: dict[str, Any] = {
    "split": "leave_one_out",
    "history": 4,
    "width": 8,
    "attention": [8, 4],
    "head": [16, 8],
    "negatives": 8,
    "batch_size": 64,
    "steps": 25,
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "check_steps": 10,
    "checkpoint_steps": 10,
}
TOKENIZER: dict[str, Any] = {
    "split": "leave_one_out",
    "sc": {"hidden": [16], "width": 12},
    "quantizer": {"levels": 3, "codes": 8, "width": 6, "hidden": [12]},
    "training": {"steps": 40, "batch_size": 64, "negatives": 16, "check_steps": 5, "revive_steps": 5,
                 "switch_share": 0.5, "checkpoint_steps": 10},
    "gate": {"item_collisions": 0.2, "level_1_usage": 0.5, "perplexity": 0.1},
}  # fmt: skip
ITEMS = [f"i{number:02d}" for number in range(60)]
TEXTS = ("title", "brand", "category", "description", "features")


def walk(user: int) -> list[str]:
    """Eight steps round the user's ring of ten."""
    return [ITEMS[10 * (user % 6) + (user // 6 + step) % 10] for step in range(8)]


def write_tables(folder: Path, users: int = 90, **changes: Any) -> dict[str, TableRef]:
    """The tables of the shop; `changes` replaces columns of the items."""
    rows = []
    for user in range(users):
        items = walk(user)
        for step, item in enumerate(items):
            day = date(2024, 1, 1) + timedelta(days=step)
            noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
            rows.append((f"u{user:03d}", day, noon, item, items[:step], "train"))
    write_rows(folder / "samples.parquet", rows)
    texts: dict[str, Any] = {name: [None] * 60 for name in TEXTS}
    texts |= {"item_id": ITEMS, "source": ["shop"] * 60, "title": [f"ring {n // 10} bead {n}" for n in range(60)]}
    schema = pa.schema([*((name, pa.string()) for name in texts), ("price", pa.float64())])
    pq.write_table(pa.table({**texts, "price": [None] * 60, **changes}, schema=schema), folder / "items.parquet")
    files = {"next_item_training_set": "samples.parquet", "items": "items.parquet"}
    return {name: TableRef((str(folder / file),)) for name, file in files.items()}


def collaborative_spec(folder: Path, **config: Any) -> StageSpec:
    return StageSpec(
        "generative_rec", "collaborative", str(out(folder)), 3, tables=write_tables(folder), config={**CONFIG, **config}
    )


def out(folder: Path) -> Path:
    path = folder / "out"
    path.mkdir(exist_ok=True)
    return path


def embed(texts: list[str], *_: object, **__: object) -> NDArray[np.float32]:
    """Vectors of the words of a text: nothing is loaded, and texts that share words are alike."""
    words = [[np.random.default_rng(sum(map(ord, word))).normal(size=16) for word in text.split()] for text in texts]
    return np.stack([np.mean(found, axis=0) for found in words]).astype(np.float32)
