"""Candidates to learn from: how many are held, of whom, and that each knows its answer."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

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
    asked: list[str | None] = []
    shop_candidates = shop._candidates

    def told(bundle: Any, questions: Any, truth: Any) -> Any:
        asked.extend(questions.users)
        return shop_candidates(bundle, questions, truth)

    monkeypatch.setattr(shop, "_candidates", told)
    some = labelled(bundle, taken, valid, 100, 1, answered=False)
    assert len(every.questions) / 3 <= len(some.questions) < len(every.questions) / 2
    assert int(some.questions.max()) + 1 == some.taken.sum() == len(asked) == len(set(asked))
    assert max(asked) > "u20" and min(asked) < "u10", "not the first users alone"
