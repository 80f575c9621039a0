"""Public data as the tables that the judge's stages read, for evaluations on a machine without Spark or a lake.

`python -m training.semantic_judge.public_pairs office --data DIR --out DIR --split users` writes `items.parquet`,
`judge_training_set.parquet` and `judge_pairs.parquet`, with the same meaning as the lake's. Ratings are real, and known
for Office alone: there are no exposures, and nobody says what was looked for.

`--split users` parts users by a hash, 60 % for training, 10 % for validation, 30 % for test; `--split time` parts by
the days that the next-item samples of Office are cut at. What others had rated as of a day is known under both.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from common.folders import make_folder
from training.core.errors import exit_code_of
from training.next_item.public_sets import CUTS, ITEMS_SCHEMA, PROFILE_ITEMS, Event, profile, read_set
from training.semantic_judge.evidence import DISLIKED, LIKED
from training.semantic_judge.example_tables import (
    EVENTS,
    EXAMPLE_COLUMNS,
    EXAMPLES,
    MEAN_RATING,
    PAIR_COLUMNS,
    PAIRS,
    PROFILE_TEXT,
)

Split = Literal["time", "users"]
HISTORY, LATER, LATER_DAYS = 20, 20, 90
PAIR_DAYS, PAIRS_EACH = 365, 3
_YEAR = timedelta(days=365)
_SHARES = {"train": 60, "valid": 70}  # percent of users up to which the part goes; the rest is for test


@dataclass(frozen=True)
class _Pair:
    """One user liked the one and disliked the other."""

    preferred: Event
    other: Event

    @property
    def as_of(self) -> date:
        """Before both."""
        return min(self.preferred.day, self.other.day)

    @property
    def known_on(self) -> date:
        """The day on which both ratings are there."""
        return max(self.preferred.day, self.other.day)


@dataclass
class _Example:
    """A member of pairs, something taken, or an item drawn at random. `known_on`: the last day on which a pair asks."""

    event: Event
    kinds: set[str]
    known_on: date


def write_tables(data: Path, out: Path, split: Split) -> None:
    """Read Office below `data` and write the three tables into `out`; DataError where it is not there."""
    items, events = read_set("office", data)
    make_folder(out)
    shop = _Shop.of(events, {str(item["item_id"]): item for item in items}, split)
    pairs = [pair for own in shop.by_user.values() for pair in _pairs(own)]
    tables: Mapping[str, tuple[Sequence[Mapping[str, Any]], pa.Schema]] = {
        "items": (items, ITEMS_SCHEMA),
        EXAMPLES: (list(shop.examples(pairs)), pa.schema(dict(EXAMPLE_COLUMNS))),
        PAIRS: ([shop.pair_row(pair) for pair in pairs], pa.schema(dict(PAIR_COLUMNS))),
    }
    for name, (rows, schema) in tables.items():
        pq.write_table(
            pa.Table.from_pylist(list(rows), schema=schema.with_metadata({"origin": "real"})), out / f"{name}.parquet"
        )


def _pairs(own: Sequence[Event]) -> Iterator[_Pair]:
    """5 stars against 1 or 2, at most a year apart, of other items, at most three for each disliked one, by a hash."""
    liked = [event for event in own if event.rating is not None and event.rating >= LIKED]
    for other in (event for event in own if event.rating is not None and event.rating <= DISLIKED):
        near = [one for one in liked if one.item_id != other.item_id and abs((one.day - other.day).days) <= PAIR_DAYS]
        near.sort(key=lambda one: _hash(one.user_id, other.item_id, one.item_id))
        yield from (_Pair(one, other) for one in islice(near, PAIRS_EACH))


@dataclass(frozen=True)
class _Shop:
    """`by_user`: each user's events by day. `rated`: each item's days and ratings, by day."""

    by_user: Mapping[str, Sequence[Event]]
    rated: Mapping[str, Sequence[tuple[date, float | None]]]
    items: Mapping[str, Mapping[str, Any]]
    split: Split

    @classmethod
    def of(cls, events: Sequence[Event], items: Mapping[str, Mapping[str, Any]], split: Split) -> _Shop:
        by_user, rated = defaultdict(list), defaultdict(list)
        for event in sorted(events, key=lambda one: (one.day, one.item_id)):
            by_user[event.user_id].append(event)
            rated[event.item_id].append((event.day, event.rating))
        return cls(by_user, rated, items, split)

    def examples(self, pairs: Sequence[_Pair]) -> Iterator[dict[str, Any]]:
        """The members of the pairs, all that was taken, and one item drawn for each, once for each user, day, item."""
        found: dict[tuple[str, date, str], _Example] = {}

        def add(event: Event, as_of: date, kind: str, known_on: date) -> None:
            example = found.setdefault((event.user_id, as_of, event.item_id), _Example(event, set(), known_on))
            example.kinds.add(kind)
            example.known_on = max(example.known_on, known_on)

        for pair in pairs:
            for member in (pair.preferred, pair.other):
                add(member, pair.as_of, "taken", pair.known_on)
        catalogue = sorted(self.items)
        for event in (one for own in self.by_user.values() for one in own):
            add(event, event.day, "taken", event.day)
            place = int(_hash(event.user_id, event.day.isoformat(), event.item_id), 16) % len(catalogue)
            drawn = Event(event.user_id, event.day, catalogue[place], None)
            if (event.user_id, event.day, drawn.item_id) not in found:
                add(drawn, event.day, "drawn", event.day)
        for (_, as_of, _), example in found.items():
            yield self._row(as_of, example)

    def _row(self, as_of: date, example: _Example) -> dict[str, Any]:
        event, own = example.event, self.by_user[example.event.user_id]
        past = own[: bisect_left(own, as_of, key=lambda one: one.day)]
        part = self._part(event.user_id, as_of)
        later = [
            one.item_id
            for one in own[len(past) :]
            if one.day < as_of + timedelta(days=LATER_DAYS)
            and one.item_id != event.item_id
            and self._part(one.user_id, one.day) == part
        ]
        history = past[-HISTORY:]
        return {
            **_key(event.user_id, as_of),
            "item_id": event.item_id,
            "kinds": sorted(example.kinds),
            "rating": event.rating,
            "history_item_ids": [one.item_id for one in history],
            "history_ratings": [one.rating for one in history],
            "later_item_ids": later[:LATER],
            "context": None,
            "split_time": self._part(event.user_id, example.known_on),
            **self._known_of(event.item_id, as_of),
            PROFILE_TEXT: profile(past[-PROFILE_ITEMS:], self.items),
        }

    def _known_of(self, item: str, as_of: date) -> dict[str, Any]:
        """The item on its last active day before: events and mean rating of the year that ends with that day."""
        before = (
            self.rated[item][: bisect_left(self.rated[item], as_of, key=lambda one: one[0])]
            if item in self.rated
            else []
        )
        if not before:
            return {MEAN_RATING: None, EVENTS: None}
        year = [rating for day, rating in before if day > before[-1][0] - _YEAR]
        given = [rating for rating in year if rating is not None]
        return {MEAN_RATING: sum(given) / len(given) if given else None, EVENTS: len(year)}

    def _part(self, user: str, day: date) -> str:
        if self.split == "users":
            share = int(_hash(user), 16) % 100
            return next((part for part, end in _SHARES.items() if share < end), "test")
        valid_from, test_from = CUTS["office"]
        return "train" if day < valid_from else "valid" if day < test_from else "test"

    def pair_row(self, pair: _Pair) -> dict[str, Any]:
        """Of `judge_pairs`."""
        return {
            **_key(pair.other.user_id, pair.as_of),
            "preferred_item_id": pair.preferred.item_id,
            "other_item_id": pair.other.item_id,
            "source": "rating",
            "split_time": self._part(pair.other.user_id, pair.known_on),
        }


def _key(user: str, as_of: date) -> dict[str, Any]:
    return {"user_id": user, "as_of": datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)}


def _hash(*words: str) -> str:
    return hashlib.sha256("\t".join(words).encode()).hexdigest()


def main() -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(prog="python -m training.semantic_judge.public_pairs", description=__doc__)
    parser.add_argument("name", choices=["office"])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--out", type=Path, required=True, help="where the tables are written")
    parser.add_argument(
        "--split", choices=["time", "users"], required=True, help="how training, validation and test part"
    )
    options = parser.parse_args()
    return exit_code_of(lambda: write_tables(options.data, options.out, options.split))


if __name__ == "__main__":
    sys.exit(main())
