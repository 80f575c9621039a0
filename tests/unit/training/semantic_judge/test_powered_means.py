"""Prediction-powered means: by hand, and what their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.semantic_judge.powered_means import Doubles, PoweredMean, Residuals, variance

pytestmark = pytest.mark.unit


def test_the_mean_is_corrected_by_what_the_judge_gets_wrong_on_the_gold_cases() -> None:
    residuals = Residuals.of(np.array([1.0, 0.0, np.nan]), np.array([0.5, 0.5, 0.9]), np.array(["a", "b", "c"]))
    assert (residuals.mean, residuals.cases) == (0.0, 2)
    # Two users, sums apart from the mean of 0.5 and -0.5: (0.25 + 0.25) / 2^2 * 2 / 1.
    assert residuals.variance == pytest.approx(0.25)
    found = PoweredMean.of(np.array([0.2, 0.4, np.nan]), np.array([1, 1, 2]), -1.0, Residuals(0.3, 0.0, 9))
    assert found.raw == pytest.approx((0.2 + 0.4 - 1.0) / 3)
    assert found.corrected == pytest.approx(found.raw + 0.3 * 2 / 3)
    # By user: 0.6 - 2 * mean, and -1 - mean.
    spread = variance(np.array([0.2, 0.4, -1.0]), np.array([1, 1, 2]))
    assert spread == pytest.approx((0.6 - 2 * found.raw) ** 2 / 9 * 2 + (-1 - found.raw) ** 2 / 9 * 2)
    assert found.hi - found.corrected == pytest.approx(1.959964 * spread**0.5, rel=1e-6)


def test_one_user_tells_nothing_of_an_interval() -> None:
    one = Residuals.of(np.array([1.0]), np.array([0.5]), np.array(["a"]))
    found = PoweredMean.of(np.array([0.2, 0.4]), np.array([1, 2]), -1.0, one)
    assert np.isnan([found.lo, found.hi]).all() and found.corrected == pytest.approx(0.8)
    none = Residuals.of(np.array([]), np.array([]), np.array([]))
    nothing = PoweredMean.of(np.array([0.2]), np.array([1]), -1.0, none)
    assert np.isnan(nothing.corrected) and nothing.raw == pytest.approx(0.2)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.data())
def test_no_failure_lifts_a_mean(values: list[float], data: st.DataObject) -> None:
    said = np.array(values)
    users = np.arange(len(said))
    failing = said.copy()
    failing[data.draw(st.lists(st.integers(0, len(said) - 1), min_size=1))] = np.nan
    # Where the truth is on the grid, so is what a row is corrected to: a correction cannot lead below the least.
    residuals = Residuals(data.draw(st.floats(-1.0 - float(said.min()), 2.0)), 0.0, 3)
    before, after = (PoweredMean.of(own, users, -1.0, residuals) for own in (said, failing))
    assert after.raw <= before.raw + 1e-12
    assert after.corrected <= before.corrected + 1e-9


def _drawn(rng: np.random.Generator, users: int, rows: int) -> tuple[Doubles, Doubles, Doubles]:
    """Truth, what a judge says that is too kind by 0.15 and pulls to the middle, and who: users of different tastes."""
    taste = np.repeat(rng.normal(0.1, 0.2, users), rows)
    truth = taste + rng.normal(0.0, 0.3, users * rows)
    said = 0.15 + 0.6 * truth + rng.normal(0.0, 0.2, users * rows)
    return truth, said, np.repeat(np.arange(users), rows)


def test_the_interval_holds_the_truth_as_often_as_it_says_and_the_raw_mean_does_not() -> None:
    rng, held, raw_held = np.random.default_rng(17), 0, 0
    truth_is = 0.1
    for _ in range(200):
        truth, gold, gold_users = _drawn(rng, 150, 4)
        _, night, users = _drawn(rng, 400, 20)
        found = PoweredMean.of(night, users, -10.0, Residuals.of(truth, gold, gold_users))
        reach = 1.96 * float(np.sqrt(variance(night, users)))
        held += found.lo <= truth_is <= found.hi
        raw_held += abs(found.raw - truth_is) <= reach
    assert held >= 186  # 93 %
    assert raw_held <= 20
