"""One small world and the models trained in it, once for all behaviour tests.

Twelve items in three groups of four (pens, paper, ink). Users stay in a group and walk through it in a circle, so what
a good model must say is known. (Sequences are learnt as they are: here, backwards is wrong.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from training.core.stage import StageSpec, TableRef, run_stage
from training.generative_rec.serve import Recommender
from training.generative_rec.stages import evaluate, sft

GROUPS = ("pen", "paper", "ink")
SIZE = 4


@dataclass(frozen=True)
class World:
    """The stages' specs and the folder they wrote to."""

    folder: Path
    evaluated: StageSpec

    @property
    def recommender(self) -> Recommender:
        """The trained generative model, as it is served."""
        return Recommender.load(Path(self.evaluated.out) / "model")


def following(item: str) -> str:
    """The item that users of this world go to after `item`."""
    group, place = item.split("-")
    return f"{group}-{(int(place) + 1) % SIZE}"


def _rows() -> list[tuple[Any, ...]]:
    rng, rows = np.random.default_rng(4), []
    for user in range(600):
        item, history = f"{GROUPS[user % 3]}-{rng.integers(SIZE)}", list[str]()
        for step in range(6):
            on = date(2018, 1, 1) + timedelta(days=step)
            part = "train" if step < 4 else "valid" if step == 4 else "test"
            rows.append((f"u{user}", on, datetime(2018, 1, 1 + step, tzinfo=UTC), item, list(history), part))
            history.append(item)
            item = following(item)
    return rows


def _write(folder: Path) -> dict[str, TableRef]:
    types = (pa.string(), pa.date32(), pa.timestamp("us", "UTC"), pa.string(), pa.list_(pa.string()), pa.string())
    names = ("user_id", "sample_date", "event_time", "item_id", "history_item_ids", "split_time")
    columns = [pa.array(list(values), kind) for values, kind in zip(zip(*_rows(), strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=names), folder / "samples.parquet")
    items = [f"{group}-{place}" for group in GROUPS for place in range(SIZE)]
    kinds = [item.partition("-")[0] for item in items]
    told = {"item_id": items, "title": items, "category": kinds, "source": ["shop"] * len(items)}
    nothing = dict.fromkeys(("brand", "description", "features"), pa.nulls(len(items), pa.string()))
    price = pa.nulls(len(items), pa.float64())
    pq.write_table(pa.table({**told, **nothing, "price": price}), folder / "items.parquet")
    codes = pa.array([[row // SIZE, row % SIZE] for row in range(len(items))], pa.list_(pa.int32()))
    (folder / "semantic_ids").mkdir()
    pq.write_table(pa.table({"item_id": items, "codes": codes}), folder / "semantic_ids" / "codes.parquet")
    files = {"next_item_training_set": "samples.parquet", "items": "items.parquet"}
    return {name: TableRef((str(folder / file),), origin="simulated") for name, file in files.items()}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    tables, artifacts = _write(folder), {"semantic_ids": str(folder / "semantic_ids"), "sft": str(folder / "sft")}
    backbone = {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 2, "head_size": 16, "intermediate_size": 64}
    loop = {"epochs": 4, "rows": 8, "row_tokens": 64, "learning_rate": 5e-3, "patience": 12}
    trained = StageSpec(
        "generative_rec",
        "sft",
        artifacts["sft"],
        3,
        tables=tables,
        artifacts=artifacts,
        config={
            "backbone": backbone,
            "loop": loop,
            "history": 3,
            "text_start": 0.0,
            "augmentation": {"reverse": 0.0, "drop": 0.0},
        },
    )
    config = {"depth": 6, "serving": {"history": 3}, "resamples": 200}
    place = str(folder / "evaluate")
    evaluated = StageSpec("generative_rec", "evaluate", place, 3, tables=tables, artifacts=artifacts, config=config)
    run_stage(trained, sft.main)
    run_stage(evaluated, evaluate.main)
    torch.set_num_threads(threads)
    return World(folder, evaluated)
