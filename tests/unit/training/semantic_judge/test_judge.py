"""The score that both parts make: by hand, with and without something that is looked for."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from tests.unit.training.judge_kit import cases_of, evidence_of, shop_items
from training.semantic_judge.aspects import aspects, expected
from training.semantic_judge.contests import Contests
from training.semantic_judge.examples import Candidate, Cases, Pairs, UserState
from training.semantic_judge.judge import OneVector, Scores, known

pytestmark = pytest.mark.unit
SCORED = aspects(True)
SHARES = OneVector(SCORED, (0.4, 0.2, 0.2, 0.2))
CHANCES = [
    np.tile(np.array([own], dtype=np.float32), (4, 1))
    for own in ((0.1, 0.2, 0.3, 0.2, 0.2), (0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.2, 0.6, 0.2))
]
"""Expected values: 0.1, 0.75, 0 and 0.5."""


def asked() -> Cases:
    """Two cases of a user who looks for a pen, one of a user of whom nobody says, and of one whose wish is empty."""
    users = [UserState("u", date(2026, 1, 3), ("i1",), (5.0,), None, sought) for sought in ("a pen", "a pen", None, "")]
    return cases_of(evidence_of(shop_items()), [(user, Candidate(f"i{n}")) for n, user in enumerate(users)])


def test_an_aspect_that_is_unknown_counts_nothing_and_the_others_share_its_weight() -> None:
    said = Scores.of(CHANCES, SCORED, SHARES, asked())
    np.testing.assert_allclose(said.weights[2:], [[0.5, 0.25, 0.25, 0.0]] * 2)
    np.testing.assert_allclose(said.score[2:], [0.2375] * 2, atol=1e-6)  # 0.5 * 0.1 + 0.25 * 0.75
    np.testing.assert_allclose(said.aspects[2:], [[0.1, 0.75, 0.0, np.nan]] * 2, atol=1e-6)


def test_where_all_weight_lay_on_what_is_unknown_the_rest_counts_evenly() -> None:
    said = Scores.of(CHANCES, SCORED, OneVector(SCORED, (0.0, 0.0, 0.0, 1.0)), asked())
    np.testing.assert_allclose(said.weights[[0, 3]], [[0.0, 0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3, 0.0]], atol=1e-6)
    assert said.score[3] == pytest.approx((0.1 + 0.75 + 0.0) / 3, abs=1e-6)


def test_who_looks_for_something_is_judged_by_all_aspects_to_the_bit() -> None:
    said = Scores.of(CHANCES, SCORED, SHARES, asked())
    values, weights = expected(CHANCES, SCORED)[:2], np.array([SHARES.shares] * 2, dtype=np.float32)
    np.testing.assert_array_equal(said.aspects[:2], values)
    np.testing.assert_array_equal(said.weights[:2], weights)
    np.testing.assert_array_equal(said.score[:2], np.einsum("nk,nk->n", values, weights))
    np.testing.assert_allclose(said.score[:2], [0.29] * 2, atol=1e-6)  # 0.4 * 0.1 + 0.2 * 0.75 + 0.2 * 0.5


def test_a_shop_that_never_knows_judges_by_its_three_aspects() -> None:
    assert known(asked().states, SCORED).tolist() == [[True] * 4, [True, True, True, False], [True, True, True, False]]
    assert known(asked().states, aspects(False)).all()


def test_no_weights_are_learnt_from_an_aspect_that_is_unknown() -> None:
    cases = asked()
    scores = np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.9]] * 2, dtype=np.float32)
    pairs = Pairs(np.array([1, 3]), np.array([0, 2]), np.array(["rating"] * 2), np.zeros(2, dtype=np.int8))
    found = Contests.by(pairs, cases, scores, SCORED)
    np.testing.assert_allclose(found.difference, [[0.5, 0.0, 0.0, 0.9], [0.5, 0.0, 0.0, 0.0]])
    by_it_alone = Contests.by(pairs, cases, scores * np.array([0, 1, 1, 1], dtype=np.float32), SCORED)
    assert (len(by_it_alone), by_it_alone.equal) == (1, 1)
