"""A packaged judge of the small shop, and nights of lists for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from tests.unit.training.judge_kit import KINDS, shop_items, stage_spec, write_shop
from training.core.stage import StageSpec, TableRef
from training.semantic_judge.night import LISTED, LISTED_COLUMNS
from training.semantic_judge.stages import evaluate, evidence, teach

DAY = date(2026, 1, 20)
QUICK = {"judge": {"rounds": 20, "patience": 5, "regularisation": [0.1], "least": 20}}
VERSIONS = {"4": "champion", "5": "challenger"}
WORDS = {item.item_id: item.title for item in shop_items()}


def packaged(folder: Path, *, context: bool = False) -> Path:
    """The folder of a judge, as `evaluate` leaves it."""
    tables = write_shop(folder, users=90, context=context)
    teach.main(stage_spec(folder, "teach", tables))
    made = {"teach": folder / "teach"}
    evidence.main(stage_spec(folder, "evidence", tables, made, QUICK))
    evaluate.main(stage_spec(folder, "evaluate", tables, {**made, "evidence": folder / "evidence"}, {"resamples": 50}))
    return folder / "evaluate" / "model"


def lists(users: int, *, top: int = 6, day: date = DAY, seed: int = 3) -> list[dict[str, Any]]:
    """Users like two of four kinds, as the shop's do; a version lists what is liked first, the other one anything. The
    last user has done nothing yet."""
    rng, rows, items = np.random.default_rng(seed), list[dict[str, Any]](), shop_items()
    for number in range(users):
        liked = {KINDS[number % 4], KINDS[(number + 1) % 4]}
        took = [items[n] for n in rng.permutation(len(items))[: 0 if number == users - 1 else 1 + number % 12]]
        good = [item.item_id for item in items if item.category in liked]
        shown = {"4": rng.permutation(good)[:top].tolist(), "5": rng.permutation(list(WORDS))[:top].tolist()}
        rows.append(
            {
                "user_id": f"n{number}",
                "as_of": day + timedelta(days=1),
                "profile": None,
                "item_ids": [item.item_id for item in took],
                "ratings": [5.0 if item.category in liked else 1.0 for item in took],
                "listed": [item for own in shown.values() for item in own],
                "versions": [version for version, own in shown.items() for _ in own],
                "roles": [VERSIONS[version] for version, own in shown.items() for _ in own],
                "ranks": [rank for own in shown.values() for rank, _ in enumerate(own, start=1)],
            }
        )
    return rows


def night_spec(
    folder: Path,
    judge: Path | None,
    rows: Sequence[Mapping[str, Any]],
    *,
    titles: Mapping[str, str] | None = None,
    gone: Sequence[str] = (),
    **config: Any,
) -> StageSpec:
    """The spec of a night; `titles`: of items that were renamed, `gone`: those that left the catalogue."""
    named = WORDS | dict(titles or {})
    items = [
        {
            "item_id": item.item_id,
            "title": named[item.item_id],
            "brand": item.brand,
            "category": item.category,
            "description": None,
            "features": None,
            "price": item.price,
        }
        for item in shop_items()
        if item.item_id not in gone
    ]
    stats = [
        {
            "item_id": item.item_id,
            "available_at": datetime(2026, 1, 10, tzinfo=UTC),
            "mean_rating_365d": 3.0 + place % 3,
            "events_365d": 1 + place % 5,
        }
        for place, item in enumerate(shop_items())
    ]
    words = dict.fromkeys(("item_id", "title", "brand", "category", "description", "features"), pa.string())
    schemas = {
        LISTED: pa.schema(dict(LISTED_COLUMNS)),
        "items": pa.schema({**words, "price": pa.float64()}),
        "item_stats": pa.schema(
            {
                "item_id": pa.string(),
                "available_at": pa.timestamp("us", "UTC"),
                "mean_rating_365d": pa.float64(),
                "events_365d": pa.int64(),
            }
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    tables = dict[str, TableRef]()
    for (name, schema), values in zip(schemas.items(), (rows, items, stats), strict=True):
        pq.write_table(pa.Table.from_pylist(list(values), schema=schema), folder / f"{name}.parquet")
        tables[name] = TableRef((str(folder / f"{name}.parquet"),))
    models = {"semantic_judge": (ModelVersion("7", "champion", str(judge)),) if judge else ()}
    settings = json.loads(json.dumps({"shard_users": 8, "told": 2, **config}))
    return StageSpec("semantic_judge", "score", str(folder / "out"), 17, tables, {}, settings, None, models)


def written(spec: StageSpec) -> Path:
    """The spec as a file, for a process of its own."""
    path = spec.out_dir / "spec.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(spec)))
    return path


def table(spec: StageSpec, name: str) -> list[dict[str, Any]]:
    """What was written of a table."""
    return pq.read_table(spec.out_dir / "tables" / name / "part-0.parquet").to_pylist()
