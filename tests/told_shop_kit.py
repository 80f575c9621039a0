"""A shop in which the feature store alone knows what comes next: the day's number of a user says from which half of the
catalogue something is taken. It is drawn anew each day, so that no history tells it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

COLUMN = "user_daily__events_30d"
FIRST, DAYS, USERS, ITEMS = date(2018, 1, 1), 8, 120, [f"i{n:02d}" for n in range(12)]
HALVES = {number: frozenset(half) for number, half in ((2, ITEMS[:6]), (30, ITEMS[6:]))}
LEARNER: dict[str, Any] = {
    "texts": ["tf_idf"],
    "share": 0.3,
    "signals": {"sasrec": None},
    "learner": {"rounds": 120, "patience": 40, "min_data_in_leaf": 20, "num_leaves": [7], "learning_rate": 0.2},
}


@dataclass(frozen=True)
class Visit:
    """A user takes an item on a day, after `history`; `told` is what the store says in the morning of it."""

    user: str
    day: date
    item: str
    history: tuple[str, ...]
    told: int

    @property
    def part(self) -> str:
        """Of the time split: the last two days are validation, then test."""
        left = (FIRST + timedelta(days=DAYS - 1) - self.day).days
        return {0: "test", 1: "valid"}.get(left, "train")


def visits() -> Iterator[Visit]:
    """One of each user and day; by user, oldest first."""
    rng = np.random.default_rng(11)
    for user in range(USERS):
        taken: list[str] = []
        for day in range(DAYS):
            told = int(rng.choice([2, 30]))
            item = str(rng.choice(sorted(HALVES[told])))
            yield Visit(f"u{user:03d}", FIRST + timedelta(days=day), item, tuple(taken), told)
            taken.append(item)


def inside(items: Collection[str], told: int) -> int:
    """How many of the items are of the half that this number of the user speaks for; by chance, half of them."""
    return len(HALVES[told].intersection(items))


def catalogue() -> list[dict[str, Any]]:
    """Each item has a price of its own, by which the halves can be told apart."""
    nothing = dict.fromkeys(("brand", "description", "features", "category"))
    return [
        {"item_id": item, "source": "shop", "title": "pen", "price": float(place + 1), **nothing}
        for place, item in enumerate(ITEMS)
    ]
