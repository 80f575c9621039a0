"""Small shops as a folder of sample tables: what the stages of a pipeline read, made from a list of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.landing.days import cuts
from tests.unit.training.sample_kit import write_rows

FIRST = date(2024, 1, 1)
TEXTS = ("title", "brand", "category", "description", "features")

Event = tuple[str, str, int]  # user, item, days after `FIRST`


def walks(users: int, items: int, length: int = 8, days: int = 60) -> list[Event]:
    """Users who walk round the catalogue from a place and day of their own, a step a day."""
    rng, events = np.random.default_rng(7), list[Event]()
    for user in range(users):
        start, day = int(rng.integers(items)), int(rng.integers(days))
        steps = np.cumsum(rng.integers(1, 3, size=length))
        events += [(f"u{user:03d}", f"i{(start + step) % items:03d}", day + n) for n, step in enumerate(steps)]
    return events


def titled(items: int) -> dict[str, str | None]:
    """A catalogue in which every item has a title of its own."""
    return {f"i{n:03d}": f"ring {n // 10} bead {n}" for n in range(items)}


def write_shop(folder: Path, events: Sequence[Event], titles: Mapping[str, str | None]) -> Path:
    """The sample tables of a shop: histories end before the day, the split is cut as that of landed events.

    Of its users the feature store says when their last event was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    valid, test = cuts(Counter(FIRST + timedelta(days=day) for _, _, day in events))
    rows, since = list[tuple[Any, ...]](), list[float | None]()
    for user in dict.fromkeys(user for user, _, _ in events):
        own = sorted((day, item) for who, item, day in events if who == user)
        for day, item in own:
            on, past = FIRST + timedelta(days=day), [i for d, i in own if d < day]
            part = "test" if on >= test else "valid" if on >= valid else "train"
            rows.append((user, on, datetime(on.year, on.month, on.day, tzinfo=UTC), item, past, part, "unknown", None))
            since.append(float(min((day - d for d, _ in own if d < day), default=0)) or None)
    told = {"user_recency__days_since_last_event": since}
    write_rows(folder / "next_item_training_set.parquet", rows, **told)
    texts: dict[str, Any] = {name: [None] * len(titles) for name in TEXTS}
    columns = {**texts, "item_id": list(titles), "source": ["shop"] * len(titles), "title": list(titles.values())}
    schema = pa.schema([*((name, pa.string()) for name in columns), ("price", pa.float64())])
    pq.write_table(pa.table({**columns, "price": [None] * len(titles)}, schema=schema), folder / "items.parquet")
    return folder
