"""A judge answers what it tells apart: the error of what counts stays below what is allowed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.semantic_judge.abstention import Abstention, AbstentionConfig, distances_of, one_each, upper_end
from training.semantic_judge.examples import Pairs

CONFIG = AbstentionConfig(most_wrong=0.3, confidence=0.9)


def test_the_upper_end_is_that_of_clopper_and_pearson() -> None:
    assert upper_end(0, 20, 0.9) == pytest.approx(1 - 0.1 ** (1 / 20))
    assert upper_end(5, 5, 0.9) == 1.0
    # By the binomial itself: with this share so few wrong ones are seen with the probability that is left.
    share = upper_end(3, 20, 0.9)
    assert sum(math.comb(20, k) * share**k * (1 - share) ** (20 - k) for k in range(4)) == pytest.approx(0.1)


def test_what_is_hardly_told_apart_is_not_answered() -> None:
    sure, unsure = np.linspace(0.5, 1.0, 60), np.linspace(0.01, 0.1, 40) * np.where(np.arange(40) % 2, 1, -1)
    found = Abstention.of(np.concatenate([sure, unsure]), CONFIG)
    assert found.gap <= 0.5 and found.answered >= 60 and found.bound <= 0.3
    assert found.measured(np.array([0.9, 0.7, -0.8, 0.0, float("nan")])) == {"coverage": 0.6, "error": 1 / 3}


@pytest.mark.parametrize("distances", [np.zeros(50), np.full(50, np.nan), np.full(50, -1.0), np.full(2, 1.0)])
def test_a_judge_that_is_not_surely_right_often_enough_answers_nothing(distances: np.ndarray) -> None:
    found = Abstention.of(distances, CONFIG)
    assert (found.gap, found.answered) == (math.inf, 0) and math.isnan(found.bound)
    measured = found.measured(np.ones(4))
    assert measured["coverage"] == 0.0 and math.isnan(measured["error"])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=120))
def test_what_is_answered_on_validation_is_within_the_bound(distances: list[float]) -> None:
    own = np.array(distances)
    found = Abstention.of(own, CONFIG)
    measured = found.measured(own)
    assert round(measured["coverage"] * len(own)) == found.answered
    if found.answered:
        assert measured["error"] <= found.bound <= CONFIG.most_wrong


def test_in_nine_of_ten_validation_parts_the_true_error_is_at_most_what_is_allowed() -> None:
    rng, within = np.random.default_rng(5), 0
    for _ in range(300):
        wide = rng.random(150)
        right = rng.random(150) < 0.5 + 0.4 * wide  # a coin where the scores are one, nine of ten where they are far
        found = Abstention.of(np.where(right, wide, -wide), CONFIG)
        true_error = 0.5 - 0.4 * (found.gap + 1.0) / 2.0 if found.answered else 0.0
        within += true_error <= CONFIG.most_wrong
    assert within >= 270 - 15


def test_one_pair_of_each_user_is_drawn_and_scores_go_by_row() -> None:
    pairs = Pairs(
        np.array([5, 7, 2]), np.array([7, 9, 9]), np.array(["rating"] * 3), np.array([1, 1, 1], dtype=np.int8)
    )
    drawn = one_each(pairs, ["ann", "ann", "bob"], seed=3)
    assert len(drawn) == 2 and 2 in drawn.preferred
    scores = np.array([0.1, 0.2, 0.4, 0.8], dtype=np.float32)
    assert distances_of(scores, np.array([2, 5, 7, 9]), pairs) == pytest.approx([-0.2, -0.4, -0.7])
