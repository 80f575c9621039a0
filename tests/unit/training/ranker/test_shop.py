"""Candidates to learn from: how many are held, of whom, and that each knows its answer."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from training.next_item.sample_columns import NextItem, Samples
from training.next_item.samples import of_subset
from training.ranker import shop
from training.ranker.shop import Shop, labelled
from training.ranker.signals.fitting import SignalsConfig

FIRST, USERS, DAYS = date(2024, 1, 1), 30, 6
ITEMS: list[dict[str, Any]] = [{"item_id": f"i{n}", "price": None, "category": None} for n in range(12)]


def samples() -> Samples:
    """Each user goes on to the next item, day by day; the last day is validation."""
    found = []
    for user in range(USERS):
        items = [f"i{(user + day) % 12}" for day in range(DAYS)]
        for day, item in enumerate(items):
            part = "train" if day < DAYS - 1 else "valid"
            found.append(NextItem(f"u{user:02d}", FIRST + timedelta(days=day), item, tuple(items[:day]), part))
    return Samples.of(found)


def test_of_a_large_shop_some_questions_are_held_of_users_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = samples()
    bundle = Shop(ITEMS, "time", True, 3, signals=SignalsConfig(sasrec=None)).fitted(taken)
    valid = of_subset(taken, "valid")
    every = labelled(bundle, taken, valid, 100, 1, answered=False)
    assert int(every.questions.max()) + 1 == USERS and every.taken.sum() == USERS  # all have their answer
    monkeypatch.setattr(shop, "_AT_ONCE", 4)
    monkeypatch.setattr(shop, "_PAIRS", len(every.questions) // 3)
    monkeypatch.setattr(shop, "_FEATURES_AT_ONCE", 3)
    asked: list[str] = []
    featured = shop._featured

    def told(bundle: Any, rows: Any, part: Samples) -> Any:
        asked.extend(one.user_id for one in part)
        return featured(bundle, rows, part)

    monkeypatch.setattr(shop, "_featured", told)
    some = labelled(bundle, taken, valid, 100, 1, answered=False)
    assert len(every.questions) / 3 <= len(some.questions) < len(every.questions) / 2
    assert int(some.questions.max()) + 1 == some.taken.sum() == len(asked) == len(set(asked))
    assert max(asked) > "u20" and min(asked) < "u10", "not the first users alone"


def test_how_many_features_are_made_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = samples()
    bundle = Shop(ITEMS, "time", True, 3, signals=SignalsConfig(sasrec=None)).fitted(taken)
    valid = of_subset(taken, "valid")
    at_once = labelled(bundle, taken, valid, 100, 1, answered=False)
    monkeypatch.setattr(shop, "_FEATURES_AT_ONCE", 7)
    apart = labelled(bundle, taken, valid, 100, 1, answered=False)
    assert apart.table.names == at_once.table.names
    assert np.array_equal(apart.table.values, at_once.table.values, equal_nan=True)
    assert np.array_equal(apart.questions, at_once.questions) and np.array_equal(apart.taken, at_once.taken)
