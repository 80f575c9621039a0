"""Estimates of a list policy from the logs of another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import DataError
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints, drawn, log_chances
from spark_jobs.market.logged_lists import LoggedLists, Predictions
from spark_jobs.market.off_policy import Estimates, estimate
from spark_jobs.market.reward_model import cross_fitted

OLD, NEW = np.log([4.0, 2.0, 1.0, 3.0]), np.log([1.0, 3.0, 5.0, 0.5])
ORDERS = np.array(list(permutations(range(4), 3)))


def logs(logged: Floats | list[list[float]], new: Any, rewards: Any, **changes: Any) -> LoggedLists:
    """Lists of chances [L, n], each of its own unit."""
    own, other = np.asarray(logged, dtype=float), np.asarray(new, dtype=float)
    with np.errstate(divide="ignore"):
        found: dict[str, Any] = {
            "units": [f"u{row}" for row in range(len(own))],
            "shown": np.ones(own.shape, dtype=bool),
            "log_chances": np.log(own),
            "list_log_chances": np.log(own).sum(axis=1),
            "new_log_chances": np.log(other),
            "rewards": np.asarray(rewards, dtype=float),
        }
    return LoggedLists(**{**found, **changes})


def of_orders(orders: Ints, reward: Callable[[tuple[int, ...], int], float]) -> LoggedLists:
    """Lists of the tiny problem: items 0 to 3, three places, drawn by OLD; `reward(list, place)`."""
    own, new = (np.exp(log_chances(np.tile(scores, (len(orders), 1)), orders)) for scores in (OLD, NEW))
    return logs(own, new, [[reward(tuple(order), place) for place in range(3)] for order in orders.tolist()])


def estimated(logged: LoggedLists, **changes: Any) -> Estimates:
    return estimate(logged, **{"max_weight": math.inf, "seed": 1, "resamples": 20, **changes})


def expectations(logged: LoggedLists, names: tuple[str, ...]) -> dict[str, float]:
    """Over every list of the tiny problem by its exact chance, of what an estimator says from a log of that list."""
    chances = np.exp(logged.list_log_chances)
    assert chances.sum() == pytest.approx(1.0)
    alone = [estimated(one_list(logged, row), resamples=1).estimates for row in range(len(chances))]
    return {name: float(sum(p * e[name].value.value for p, e in zip(chances, alone, strict=True))) for name in names}


def one_list(logged: LoggedLists, row: int) -> LoggedLists:
    said = logged.predictions
    only = slice(row, row + 1)
    return LoggedLists(
        logged.units[only],
        logged.shown[only],
        logged.log_chances[only],
        logged.list_log_chances[only],
        logged.new_log_chances[only],
        logged.rewards[only],
        None if said is None else Predictions(said.logged[only], said.expected[only]),
    )


def by_what_stands_above(order: tuple[int, ...], place: int) -> float:
    """What a reader from the top does: he tires of what he has seen, and likes 2 after 1."""
    liked = [0.2, 0.5, 0.9, 0.1][order[place]]
    return liked / (1 + sum(order[:place])) + (1.0 if order[place] == 2 and 1 in order[:place] else 0.0)


def by_what_stands_below(order: tuple[int, ...], place: int) -> float:
    return float(order[-1]) if place == 0 else 0.0


def truth(logged: LoggedLists) -> float:
    return float((np.exp(logged.new_log_chances.sum(axis=1)) * logged.rewards.sum(axis=1)).sum())


def perfect(logged: LoggedLists) -> Predictions:
    """Q and V of the tiny problem, from the sum over every list that begins alike."""
    q, v = np.zeros((len(ORDERS), 3)), np.zeros((len(ORDERS), 3))
    chances = np.exp(np.cumsum(logged.new_log_chances, axis=1))
    for row, order in enumerate(ORDERS):
        for place in range(3):
            same = (ORDERS[:, : place + 1] == order[: place + 1]).all(axis=1)
            before = (ORDERS[:, :place] == order[:place]).all(axis=1)
            earned = logged.rewards[:, place:].sum(axis=1) * chances[:, -1]
            q[row, place] = earned[same].sum() / chances[same, -1].sum()
            v[row, place] = earned[before].sum() / chances[before, -1].sum()
    return Predictions(q, v)


HAND = logs([[0.5, 0.5], [0.25, 1.0]], [[0.25, 1.0], [0.5, 0.5]], [[1.0, 2.0], [3.0, 4.0]])
"""Ratios [1/2, 2] and [2, 1/2]: weights by place [1/2, 1] and [2, 1]."""


def test_numbers_worked_by_hand() -> None:
    found = estimated(HAND)
    values = {name: one.value.value for name, one in found.estimates.items()}
    assert found.logged.value == pytest.approx(5.0)  # (3 + 7) / 2
    assert values == pytest.approx(
        {
            "ips": 5.0,  # (1 * 3 + 1 * 7) / 2
            "snips": 5.0,
            "rips": 6.25,  # (0.5 + 2 + 6 + 4) / 2
            "snrips": 6.5 / 2.5 + 3.0,  # (0.5 + 6) / (0.5 + 2), then (2 + 4) / 2
        }
    )
    assert found.estimates["snrips"].difference.value == pytest.approx(0.6)
    assert found.estimates["ips"].support.effective_lists == pytest.approx(2.0)
    assert found.estimates["rips"].support.effective_lists == pytest.approx(2.5**2 / 4.25)
    assert found.estimates["rips"].support.mean_weight == pytest.approx(1.25)


def test_doubly_robust_by_hand() -> None:
    """First list: 0.5 (1 - 1) + 2 and (2 - 3) + 0.5 * 1; second: 2 (3 - 2) + 2 and (4 - 4) + 2 * 1."""
    said = Predictions(np.array([[1.0, 3.0], [2.0, 4.0]]), np.array([[2.0, 1.0], [2.0, 1.0]]))
    found = estimated(replace(HAND, predictions=said)).estimates
    assert found["dr"].value.value == pytest.approx((1.5 + 6.0) / 2)
    assert found["dm"].value.value == pytest.approx(2.0)
    assert found["dm"].support == found["dr"].support == found["rips"].support


def test_weights_are_clipped_and_it_is_told() -> None:
    found = estimated(HAND, max_weight=1.0).estimates
    assert found["rips"].value.value == pytest.approx((0.5 + 2.0 + 3.0 + 4.0) / 2)
    assert found["rips"].support.clipped == pytest.approx(1 / 4)
    assert found["ips"].support.clipped == 0.0


def test_what_is_not_shown_is_not_read() -> None:
    """The first list without its second place: its whole weight is 1/2, its place of no use to the place's sums."""
    shown = np.array([[True, False], [True, True]])
    gone = {"new_log_chances": np.array([[np.log(0.25), np.nan], [np.log(0.5), np.log(0.5)]])}
    short = replace(HAND, shown=shown, list_log_chances=np.log([0.5, 0.25]), **gone)
    found = estimated(short, max_weight=1.0).estimates
    assert found["ips"].value.value == pytest.approx((0.5 * 1.0 + 1.0 * 7.0) / 2)
    assert found["rips"].support.clipped == pytest.approx(1 / 3)


@given(st.lists(st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(-5, 5)), min_size=3, max_size=3), min_size=1))
def test_a_policy_is_worth_its_own_mean(rows: list[list[tuple[float, float]]]) -> None:
    chances, rewards = (np.array([[place[at] for place in row] for row in rows]) for at in (0, 1))
    found = estimated(logs(chances, chances, rewards))
    for one in found.estimates.values():
        assert one.value.value == pytest.approx(rewards.sum(axis=1).mean())
        assert one.difference.value == one.difference.lo == one.difference.hi == 0.0
        assert one.support.effective_lists == pytest.approx(len(rows))


def test_weighing_is_unbiased_where_a_reward_depends_on_what_stands_above() -> None:
    logged = of_orders(ORDERS, by_what_stands_above)
    found = expectations(logged, ("ips", "rips"))
    assert found == pytest.approx({"ips": truth(logged), "rips": truth(logged)}, rel=1e-12)


def test_only_whole_lists_are_unbiased_where_a_reward_depends_on_what_stands_below() -> None:
    logged = of_orders(ORDERS, by_what_stands_below)
    found = expectations(logged, ("ips", "rips"))
    assert found["ips"] == pytest.approx(truth(logged), rel=1e-12)
    assert abs(found["rips"] - truth(logged)) > 0.1


def test_a_perfect_model_leaves_doubly_robust_no_variance() -> None:
    logged = of_orders(ORDERS, by_what_stands_above)
    known = replace(logged, predictions=perfect(logged))
    for row in range(len(ORDERS)):
        assert estimated(one_list(known, row)).estimates["dr"].value.value == pytest.approx(truth(logged))


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_doubly_robust_is_unbiased_with_any_model(seed: int) -> None:
    """Q by chance; V its mean over what the new policy would put there, as it has to be."""
    logged = of_orders(ORDERS, by_what_stands_above)
    by_prefix = {
        order[:k]: Draws(seed).normal("q", *order[:k]).item() for order in permutations(range(4), 3) for k in (1, 2, 3)
    }
    q = np.array([[by_prefix[tuple(order[: k + 1])] for k in range(3)] for order in ORDERS.tolist()])
    v = np.zeros_like(q)
    for row, order in enumerate(ORDERS.tolist()):
        for k in range(3):
            left = [item for item in range(4) if item not in order[:k]]
            chances = np.exp(NEW[left]) / np.exp(NEW[left]).sum()
            v[row, k] = sum(p * by_prefix[(*order[:k], item)] for p, item in zip(chances, left, strict=True))
    wrong = replace(logged, predictions=Predictions(q, v))
    found = expectations(wrong, ("dr", "dm"))
    assert found["dr"] == pytest.approx(truth(logged), rel=1e-10)


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_self_normalised_estimates_move_with_the_rewards_alone(scale: float, shift: float) -> None:
    """Another unit of the rewards, another zero, or all weights times a number: equivariant or the same."""
    plain = estimated(HAND).estimates
    moved = estimated(replace(HAND, rewards=HAND.rewards * scale + shift)).estimates
    thinned = np.array([[np.log(0.5), 0.0], [np.log(0.5), 0.0]])  # all lists half as likely
    scaled = estimated(replace(HAND, new_log_chances=HAND.new_log_chances + thinned)).estimates
    for name in ("snips", "snrips"):
        assert moved[name].value.value == pytest.approx(plain[name].value.value * scale + 2 * shift)
        assert scaled[name].value.value == pytest.approx(plain[name].value.value)
    assert scaled["ips"].value.value == pytest.approx(plain["ips"].value.value / 2)


def test_a_policy_without_support_is_estimated_and_marked() -> None:
    never = estimated(logs([[0.5], [0.5]], [[0.0], [0.0]], [[1.0], [2.0]])).estimates
    assert never["ips"].value.value == 0.0 and math.isnan(never["snips"].value.value)
    assert never["ips"].support.effective_lists == 0.0 and not never["ips"].supported
    many = np.full((200, 1), 0.5)
    lonely = np.where(np.arange(200)[:, None] == 7, 0.5, 1e-6)
    rewards = np.ones((200, 1))
    assert estimated(logs(many, many, rewards)).estimates["snips"].supported
    assert not estimated(logs(many, lonely, rewards)).estimates["snips"].supported


def test_units_are_drawn_with_all_their_lists() -> None:
    chances = np.full((40, 1), 0.5)
    rewards = np.arange(40.0)[:, None]
    apart = estimated(logs(chances, chances, rewards), resamples=400).logged
    together = estimated(logs(chances, chances, rewards, units=["a"] * 20 + ["b"] * 20), resamples=400).logged
    assert (together.lo, together.hi) == (9.5, 29.5)
    assert together.lo < apart.lo < apart.value < apart.hi < together.hi


def simulated(count: int) -> tuple[LoggedLists, Floats]:
    """Lists of two of four items drawn by OLD; each item earns by its features and by what stands above it."""
    scores, draws = np.tile(OLD, (count, 1)), Draws(3)
    lists = drawn(scores, draws.gumbel("list", np.arange(count)[:, None], np.arange(4)[None, :]), 2)
    new = log_chances(np.tile(NEW, (count, 1)), lists.places)
    above = np.column_stack([np.full(count, -1), lists.places[:, 0]])
    mean = 0.2 + 0.5 * (lists.places == 2) + 0.25 * ((above == 1) & (lists.places == 3))
    rewards = (draws.uniform("reward", np.arange(count)[:, None], np.arange(2)[None, :]) < mean).astype(float)
    shown = np.ones((count, 2), dtype=bool)
    units = [f"u{row // 2}" for row in range(count)]
    logged = LoggedLists(units, shown, lists.log_chances, lists.log_chances.sum(axis=1), new, rewards)
    return logged, np.stack([lists.places, above], axis=-1).astype(float)


def of_new(features: Floats) -> Callable[[int, Ints], tuple[Floats, Floats]]:
    def candidates(place: int, lists: Ints) -> tuple[Floats, Floats]:
        above = features[lists, place, 1]
        items = np.broadcast_to(np.arange(4.0), (len(lists), 4))
        weights = np.where(items == above[:, None], 0.0, np.exp(NEW))
        found = np.stack([items, np.broadcast_to(above[:, None], items.shape)], axis=-1)
        return found, weights / weights.sum(axis=1, keepdims=True)

    return candidates


def test_a_cross_fitted_model_finds_the_truth_and_narrows_the_interval() -> None:
    logged, features = simulated(3000)
    orders = np.array(list(permutations(range(4), 2)))
    chances = np.exp(log_chances(np.tile(NEW, (len(orders), 1)), orders).sum(axis=1))
    earned = 0.4 + 0.5 * (orders == 2).sum(axis=1) + 0.25 * (orders == [1, 3]).all(axis=1)
    expected = float(chances @ earned)
    said = cross_fitted(logged, features, of_new(features))
    found = estimated(replace(logged, predictions=said), resamples=200).estimates
    assert found["dm"].value.value == pytest.approx(expected, abs=0.05)
    assert found["dr"].value.lo < expected < found["dr"].value.hi
    width = {name: one.value.hi - one.value.lo for name, one in found.items()}
    assert width["dr"] < width["rips"] < width["ips"]


def test_a_list_does_not_teach_the_model_that_predicts_it() -> None:
    """Of one unit all rewards change: its own predictions stay."""
    logged, features = simulated(600)
    own = np.array(logged.units) == "u7"
    other = replace(logged, rewards=np.where(own[:, None], 50.0, logged.rewards))
    before, after = (cross_fitted(one, features, of_new(features)) for one in (logged, other))
    assert np.array_equal(before.logged[own], after.logged[own]) and np.array_equal(
        before.expected[own], after.expected[own]
    )
    assert not np.array_equal(before.logged[~own], after.logged[~own])


def test_a_model_says_nothing_of_places_that_are_not_shown() -> None:
    logged, features = simulated(300)
    shown = logged.shown.copy()
    shown[:100, 1] = False
    short = replace(logged, shown=shown, list_log_chances=np.where(shown, logged.log_chances, 0.0).sum(axis=1))
    said = cross_fitted(short, features, of_new(features))
    assert (said.logged[:100, 1] == 0.0).all() and (said.expected[:100, 1] == 0.0).all()
    assert (said.expected[100:, 1] != 0.0).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"log_chances": np.log([[0.5, 0.5], [0.25, 1.5]])}, "outside"),
        ({"log_chances": np.array([[np.nan, 0.0], [0.0, 0.0]])}, "outside"),
        ({"log_chances": np.array([[-np.inf, 0.0], [0.0, 0.0]])}, "chance 0 under the logging policy"),
        ({"new_log_chances": np.log([[0.5, 1.1], [0.5, 0.5]])}, "outside"),
        ({"new_log_chances": np.array([[np.nan, 0.0], [0.0, 0.0]])}, "outside"),
        ({"list_log_chances": np.log([0.25, 0.2])}, "do not multiply"),
        ({"list_log_chances": np.array([np.log(0.25), np.nan])}, "do not multiply"),
        ({"shown": np.array([[False, True], [True, True]])}, "below an empty one"),
        ({"shown": np.zeros((2, 2), dtype=bool)}, "no lists"),
        ({"rewards": np.array([[np.nan, 0.0], [0.0, 0.0]])}, "no number"),
        ({"rewards": np.zeros((2, 3))}, "differ in shape"),
        ({"units": ["u0"]}, "differ in shape"),
        ({"predictions": Predictions(np.zeros((2, 2)), np.full((2, 2), np.inf))}, "no number"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        replace(HAND, **changes)


def test_an_error_names_the_place() -> None:
    with pytest.raises(DataError, match="list 2 place 1, and 0 more"):
        replace(HAND, log_chances=np.array([[np.log(0.5), np.log(0.5)], [-np.inf, 0.0]]))


def test_no_lists_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="no lists"):
        logs(np.ones((0, 2)), np.ones((0, 2)), np.ones((0, 2)))


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_is_clipped_to_a_positive_number(weight: float) -> None:
    with pytest.raises(DataError, match="clipped to"):
        estimated(HAND, max_weight=weight)


def test_a_model_needs_units_for_its_folds() -> None:
    with pytest.raises(DataError, match="too few units"):
        cross_fitted(HAND, np.zeros((2, 2, 1)), of_new(np.zeros((2, 2, 2))))
