"""A shop that shows hints, as the tables that the hint ranker reads: who clicks on what follows from words alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.core.stage import StageSpec, TableRef
from training.query_rec.hint_questions import OF_QUERY, OF_USER

FIRST = date(2026, 1, 1)
THINGS = ("pen", "lamp", "desk", "chair", "glue", "tape", "ink", "folder")
COLOURS = ("red", "blue", "green", "black")
ITEMS = [{"item_id": f"i{n}", "title": f"{thing} of the shop", "brand": None} for n, thing in enumerate(THINGS)]
_INTEGERS = {*OF_USER, *OF_QUERY} - {
    "user_daily__mean_rating_365d", "user_recency__days_since_last_event", "user_recency__is_cold",
}  # fmt: skip
_SAMPLES = pa.schema(
    {
        **dict.fromkeys(("user_id", "form", "request_id", "split_time"), pa.string()),
        "sample_date": pa.date32(),
        "as_of": pa.timestamp("us", tz="UTC"),
        **dict.fromkeys(("behaviour_days_ago", "shown_clicked"), pa.list_(pa.int64())),
        **dict.fromkeys(
            ("behaviour_actions", "behaviour_contents", "shown_queries", "labels", "label_sources"),
            pa.list_(pa.string()),
        ),
    }
)
_HINTS = pa.schema(
    {
        **dict.fromkeys(("user_id", "request_id", "query", "split_time"), pa.string()),
        "sample_date": pa.date32(),
        **dict.fromkeys(("place", "clicked", *sorted(_INTEGERS)), pa.int64()),
        "user_daily__mean_rating_365d": pa.float64(),
        "user_recency__days_since_last_event": pa.float64(),
        "user_recency__is_cold": pa.bool_(),
    }
)
_STATS = pa.schema(
    {
        "query": pa.string(),
        "stat_date": pa.date32(),
        **dict.fromkeys((name.removeprefix("query_daily__") for name in OF_QUERY), pa.int64()),
    }
)


def write_shop(folder: Path, requests: int = 900, seed: int = 0) -> dict[str, TableRef]:
    """Requests of three hints each on 30 days, of which the last ten are valid and test, five each.

    A hint of a thing that the person looked at is clicked four times in ten, any other one in thirty; red ones twice as
    often; and what stands further down less.
    """
    random = Random(seed)
    samples, hints = list[dict[str, Any]](), list[dict[str, Any]]()
    for number in range(requests):
        day = FIRST + timedelta(days=number * 30 // requests)
        split = "train" if day < FIRST + timedelta(days=20) else "valid" if day < FIRST + timedelta(days=25) else "test"
        wish, user, request = random.randrange(len(THINGS)), f"u{random.randrange(requests // 6)}", f"r{number:05d}"
        queries = [f"{random.choice(COLOURS)} {thing}" for thing in random.sample(THINGS, 3)]
        clicked = [int(random.random() < _chance(query, THINGS[wish], place)) for place, query in enumerate(queries, 1)]
        whole = {"user_id": user, "request_id": request, "split_time": split, "sample_date": day}
        did = random.random() < 0.9
        samples.append(
            {
                **whole,
                "form": "direct",
                "as_of": datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
                "behaviour_days_ago": [2, 0] if did else [],
                "behaviour_actions": ["view", "search"] if did else [],
                "behaviour_contents": [f"i{wish}", f"{THINGS[wish]}s cheap"] if did else [],
                "shown_queries": queries,
                "shown_clicked": clicked,
                "labels": [],
                "label_sources": [],
            }
        )
        for place, (query, one) in enumerate(zip(queries, clicked, strict=True), 1):
            store = dict.fromkeys(sorted(_INTEGERS), number // 30 if number % 5 else None)
            hints.append(
                whole
                | store
                | {"place": place, "query": query, "clicked": one, "user_recency__is_cold": not number % 5}
            )
    stats = [
        {"query": f"{colour} {thing}", "stat_date": FIRST + timedelta(days=day), **dict.fromkeys(_STATS.names[2:], day)}
        for colour in COLOURS for thing in THINGS for day in (3, 28)
    ]  # fmt: skip
    items = pa.schema(dict.fromkeys(("item_id", "title", "brand"), pa.string()))
    written = {
        "query_samples": pa.Table.from_pylist(samples, _SAMPLES),
        "hint_training_set": pa.Table.from_pylist(hints, _HINTS),
        "query_stats": pa.Table.from_pylist(stats, _STATS),
        "items": pa.Table.from_pylist(ITEMS, items),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _ref(folder / f"{name}.parquet", table) for name, table in written.items()}


def no_hints(tables: dict[str, TableRef], folder: Path) -> dict[str, TableRef]:
    """The same shop without a search box: its tables have no rows."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = {"query_samples": _SAMPLES, "hint_training_set": _HINTS, "query_stats": _STATS}
    return tables | {name: _ref(folder / f"{name}.parquet", schema.empty_table()) for name, schema in empty.items()}


def stage_spec(folder: Path, stage: str, tables: dict[str, TableRef], config: dict[str, Any], **more: Any) -> StageSpec:
    """A stage of the system in a folder of its own."""
    out = folder / stage
    out.mkdir(parents=True, exist_ok=True)
    return StageSpec("query_rec", stage, str(out), 17, tables, config=config, **more)


def _chance(query: str, wish: str, place: int) -> float:
    return (0.4 if wish in query else 0.033) * (1.5 if "red" in query else 0.8) * (1.2 - 0.2 * place)


def _ref(path: Path, table: pa.Table) -> TableRef:
    pq.write_table(table, path)
    return TableRef((str(path),), 1, "simulated")
