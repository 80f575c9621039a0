"""Rank metrics against numbers worked by hand, and intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.metrics import (
    METRICS,
    bootstrap,
    coverage,
    gains,
    intervals,
    ndcg_at,
    paired_difference,
    rank_of,
    recall_at,
    reciprocal_rank,
)

RANKS = np.array([1.0, 2.0, 4.0, 11.0, math.inf])


def test_recall_counts_truths_inside_the_first_k() -> None:
    assert recall_at(RANKS, 1).mean() == pytest.approx(1 / 5)
    assert recall_at(RANKS, 3).mean() == pytest.approx(2 / 5)
    assert recall_at(RANKS, 10).mean() == pytest.approx(3 / 5)


def test_ndcg_discounts_by_the_logarithm_of_the_place() -> None:
    # 1/log2(2) = 1, 1/log2(3) = 0.6309, 1/log2(5) = 0.4307; rank 11 and an absent truth give nothing at 10.
    assert ndcg_at(RANKS, 10).tolist() == pytest.approx([1.0, 0.63093, 0.43068, 0.0, 0.0], abs=1e-5)
    assert ndcg_at(RANKS, 3).tolist() == pytest.approx([1.0, 0.63093, 0.0, 0.0, 0.0], abs=1e-5)


def test_mrr_gives_an_absent_truth_nothing() -> None:
    assert reciprocal_rank(RANKS).mean() == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 11) / 5)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        gains(np.array([0.0]))


def test_the_rank_is_the_place_counted_from_one() -> None:
    assert rank_of("b", ["a", "b"]) == 2
    assert rank_of("c", ["a", "b"]) == math.inf


def test_coverage_counts_each_item_once_and_only_inside_k() -> None:
    assert coverage([["a", "b", "z"], ["b", "c", "z"]], catalogue=10, k=2) == pytest.approx(0.3)


@given(st.lists(st.one_of(st.integers(1, 50).map(float), st.just(math.inf)), min_size=1, max_size=30))
def test_metrics_stay_between_zero_and_one_and_grow_with_k(ranks: list[float]) -> None:
    means = dict(zip(METRICS, gains(np.array(ranks)).mean(axis=0), strict=True))
    assert all(0.0 <= value <= 1.0 for value in means.values())
    assert means["recall@1"] <= means["recall@3"] <= means["recall@5"] <= means["recall@10"]
    assert means["ndcg@3"] <= means["ndcg@5"] <= means["ndcg@10"] <= means["recall@10"]


def test_the_bootstrap_of_one_user_never_moves() -> None:
    values = np.array([[0.0], [1.0], [1.0]])
    assert set(bootstrap(values, ["u"] * 3, seed=1, resamples=50).ravel().tolist()) == {2 / 3}


def test_two_users_of_one_sample_each_give_the_three_means_that_are_possible() -> None:
    drawn = bootstrap(np.array([[0.0], [1.0]]), ["a", "b"], seed=1, resamples=400).ravel()
    assert set(drawn.tolist()) == {0.0, 0.5, 1.0}
    assert (drawn == 0.5).mean() == pytest.approx(0.5, abs=0.1)


def test_copies_of_a_users_samples_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    values, users = rng.random((40, 1)), [str(n) for n in range(40)]
    once = intervals(values, users, seed=3)[0]
    ten_times = intervals(np.repeat(values, 10, axis=0), users=list(np.repeat(users, 10)), seed=3)[0]
    assert (ten_times.lo, ten_times.hi) == pytest.approx((once.lo, once.hi))
    assert ten_times.n == 10 * once.n


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for draw in range(200):
        # Users differ in their own mean: samples of a user are correlated, which a bootstrap by sample would miss.
        own = rng.normal(size=60)
        users = np.repeat(np.arange(60), 5)
        values = (own[users] + 0.3 * rng.normal(size=300))[:, None]
        found = intervals(values, users.astype(str).tolist(), seed=draw, resamples=200)[0]
        hits += found.lo <= 0.0 <= found.hi
    assert 0.89 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values, users = np.arange(12.0)[:, None], [str(n // 2) for n in range(12)]
    assert intervals(values, users, seed=1) == intervals(values, users, seed=1)
    assert intervals(values, users, seed=1) != intervals(values, users, seed=2)


def test_pairing_finds_a_small_steady_gain_that_two_separate_intervals_hide() -> None:
    rng = np.random.default_rng(2)
    champion = rng.random((200, 1))
    challenger = champion + 0.01
    users = [str(n) for n in range(200)]
    pair = paired_difference(challenger, champion, users, seed=1)[0]
    assert pair.lo == pytest.approx(0.01) and pair.hi == pytest.approx(0.01)
    assert intervals(challenger, users, seed=1)[0].lo < intervals(champion, users, seed=1)[0].hi


def test_a_pair_of_different_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="not the same samples"):
        paired_difference(np.zeros((2, 1)), np.zeros((3, 1)), ["a", "b"], seed=1)


def test_no_samples_give_no_number_rather_than_zero() -> None:
    found = intervals(np.zeros((0, 1)), [], seed=1)[0]
    assert math.isnan(found.value) and found.n == 0
