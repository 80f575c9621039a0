"""Whether the order says anything, on shops where it is known."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from training.generative_rec.order import order_matters
from training.next_item.samples import NextItem, Samples

CATALOGUE = ["a", "b", "c", "d", "e"]
ROUND = [[CATALOGUE[(start + step) % 5] for step in range(7)] for start in range(5)] * 8
FIRST = date(2018, 1, 1)


def samples(sequences: list[list[str]], valid: bool = True) -> Samples:
    """A user for each sequence, an item a day; the last one is asked about."""
    rows = [
        NextItem(f"u{user:03d}", FIRST + timedelta(days=day), item, tuple(sequence[:day]), part)
        for user, sequence in enumerate(sequences)
        for day, item in enumerate(sequence)
        if (part := "valid" if day == len(sequence) - 1 else "train") == "train" or valid
    ]
    return Samples.of(rows)


def test_the_order_matters_where_what_came_next_is_surely_better() -> None:
    assert order_matters(samples(ROUND), CATALOGUE, seed=1)


@pytest.mark.parametrize(
    "shop",
    [
        pytest.param(samples(ROUND + [one[::-1] for one in ROUND]), id="half go round the other way"),
        pytest.param(samples(ROUND, valid=False), id="nobody is asked"),
    ],
)
def test_the_order_does_not_matter_by_chance_or_unasked(shop: Samples) -> None:
    assert not order_matters(shop, CATALOGUE, seed=1)
