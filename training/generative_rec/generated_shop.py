"""A shop of any size, generated: the tables that the stages read, for measurements of memory and time.

There are 50 items of a kind. A user comes back to a few kinds; a day is a basket of ten items, each of one of them,
popular ones first. One user in twenty says what he likes. The last day of a fifth of the users is for the test, that of
another fifth for validation. Nothing of it is real, and no figure of quality from it means anything.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.next_item.samples import PROFILE, RATINGS, SCHEMA

Ints = NDArray[np.int64]
_PER_USER, _BASKET, _HISTORY, _PER_KIND, _KINDS, _SAYING = 200, 10, 20, 50, 6, 20
_START = datetime(2020, 1, 1, tzinfo=UTC)
_WORDS = (
    "red",
    "small",
    "organic",
    "family",
    "light",
    "classic",
    "crunchy",
    "sweet",
    "fresh",
    "mild",
    "dark",
    "golden",
)
_NOUNS = ("bread", "tea", "soap", "pasta", "pen", "lamp", "yogurt", "coffee", "towel", "sauce", "cheese", "candle")


def write_shop(folder: Path, items: int, events: int, seed: int = 1) -> None:
    """Write `items.parquet` and `next_item_training_set.parquet`; each user has 200 events."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pq.write_table(_items(items, rng), folder / "items.parquet")
    with pq.ParquetWriter(folder / "next_item_training_set.parquet", SCHEMA) as writer:
        for user in range(events // _PER_USER):
            writer.write_table(_samples(user, _sequence(items, rng)))


def _items(count: int, rng: np.random.Generator) -> pa.Table:
    kinds = np.arange(count) // _PER_KIND
    words = rng.integers(0, len(_WORDS), (count, 3))
    titles = [
        " ".join([*(_WORDS[word] for word in own), _NOUNS[kind % len(_NOUNS)], f"no {kind} {number}"])
        for number, (kind, own) in enumerate(zip(kinds.tolist(), words.tolist(), strict=True))
    ]
    return pa.table(
        {
            "item_id": _names(np.arange(count)),
            "source": ["shop"] * count,
            "title": titles,
            "brand": [f"brand {number}" for number in (kinds % 97).tolist()],
            "category": [f"goods > {_NOUNS[kind % len(_NOUNS)]} > kind {kind}" for kind in kinds.tolist()],
            "description": pa.nulls(count, pa.string()),
            "features": pa.nulls(count, pa.string()),
            "price": np.round(1.0 + 20.0 * rng.random(count), 2),
        }
    )


def _sequence(items: int, rng: np.random.Generator) -> Ints:
    """The items of one user, oldest first."""
    own = rng.integers(0, max(1, items // _PER_KIND), _KINDS)
    place = (_PER_KIND * rng.random(_PER_USER) ** 2).astype(np.int64)
    found: Ints = np.minimum(_PER_KIND * own[rng.integers(0, _KINDS, _PER_USER)] + place, items - 1)
    return found


def _samples(user: int, sequence: Ints) -> pa.Table:
    names, days = _names(sequence), np.arange(_PER_USER) // _BASKET
    last = {0: "test", 1: "valid"}.get(user % 5, "train")
    when = [_START + timedelta(days=int(day)) for day in days]
    past = [names[max(0, day * _BASKET - _HISTORY) : day * _BASKET] for day in days.tolist()]
    said = ("liked", "neutral", "disliked") if user % _SAYING == 0 else ("unknown",)
    columns = {
        "user_id": [f"u{user:07d}"] * _PER_USER,
        "sample_date": [time.date() for time in when],
        "event_time": when,
        "item_id": names,
        "history_item_ids": past,
        "split_time": [last if day == days[-1] else "train" for day in days],
        "feedback": [said[item % len(said)] for item in sequence.tolist()],
        PROFILE: [f"lately: {', '.join(own[-3:])}" if own else None for own in past],
        RATINGS: pa.nulls(_PER_USER, pa.list_(pa.float64())),
    }
    return pa.table(columns, schema=SCHEMA)


def _names(items: Ints) -> list[str]:
    return [f"i{item:07d}" for item in items.tolist()]
