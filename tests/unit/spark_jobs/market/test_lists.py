"""Chances of lists are exact."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.market.draws import Draws
from spark_jobs.market.lists import drawn, log_chances

SCORES = st.lists(st.floats(-30, 30) | st.just(-np.inf), min_size=1, max_size=6)


def test_a_list_by_hand() -> None:
    """Weights 1, 2, 5: the list (third, first) has 5/8 * 1/3."""
    found = np.exp(log_chances(np.log([[1.0, 2.0, 5.0]]), np.array([[2, 0]])))
    assert found[0].tolist() == pytest.approx([5 / 8, 1 / 3])


@given(SCORES)
def test_the_chances_of_all_lists_sum_to_one(scores: list[float]) -> None:
    there = [place for place, score in enumerate(scores) if np.isfinite(score)]
    orders = list(permutations(there, min(2, len(there))))
    if orders and orders[0]:
        rows = np.tile(np.array(scores), (len(orders), 1))
        assert np.exp(log_chances(rows, np.array(orders)).sum(axis=1)).sum() == pytest.approx(1.0)


@given(SCORES, st.integers(1, 8))
def test_a_drawn_list_holds_each_candidate_once_and_nothing_else(scores: list[float], length: int) -> None:
    rows = np.array([scores])
    found = drawn(rows, Draws(1).gumbel("x", np.arange(len(scores))[None, :]), length)
    places = found.places[0][found.places[0] >= 0].tolist()
    assert len(set(places)) == len(places) == min(length, int(np.isfinite(rows).sum()))
    assert np.isfinite(rows[0, places]).all() and (found.log_chances <= 1e-12).all()
    assert (found.log_chances[found.places < 0] == 0.0).all()


def test_lists_are_drawn_as_often_as_their_chance_says() -> None:
    scores = np.tile(np.log([1.0, 2.0, 5.0]), (40_000, 1))
    found = drawn(scores, Draws(5).gumbel("x", np.arange(40_000)[:, None], np.arange(3)[None, :]), 2)
    for order in permutations(range(3), 2):
        share = (found.places == order).all(axis=1).mean()
        chance = np.exp(log_chances(scores[:1], np.array([order])).sum())
        assert share == pytest.approx(chance, abs=4 * np.sqrt(chance / 40_000))


def test_a_tiny_chance_keeps_its_digits() -> None:
    """Below an overwhelming item all others share what is left: a difference of sums would have lost it."""
    found = np.exp(log_chances(np.array([[40.0, 0.0, 0.0]]), np.array([[0, 1]])))
    assert found[0, 1] == pytest.approx(0.5)
