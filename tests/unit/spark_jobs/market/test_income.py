"""The lists that earn most: against all lists there are, and in the market against other orders."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.market.draws import Floats
from spark_jobs.market.income import IncomeOracle, best_places
from spark_jobs.market.policies import AtRandom, Oracle, Policy
from spark_jobs.market.replay import METRICS, RANDOM, Played, play
from tests.unit.spark_jobs.market.kit import items, world

CHANCE = st.floats(0.0, 0.95)
ITEM = st.tuples(st.one_of(st.just(-np.inf), st.just(0.0), st.floats(0.0, 3.0)), CHANCE)


def earned(values: Floats, goes_on: Floats, order: tuple[int, ...]) -> float:
    total, reached = 0.0, 1.0
    for item in order:
        if np.isneginf(values[item]):
            continue
        total, reached = total + reached * values[item], reached * goes_on[item]
    return float(total)


@settings(deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=6), st.integers(1, 4))
def test_no_list_earns_more(pairs: list[tuple[float, float]], length: int) -> None:
    values, goes_on = (np.array(column) for column in zip(*pairs, strict=True))
    places = best_places(values[None], goes_on[None], length)[0]
    assert sorted(places) == list(range(len(pairs)))
    ours = earned(values, goes_on, tuple(np.argsort(places)[:length]))
    best = max(earned(values, goes_on, order) for order in permutations(range(len(pairs)), min(length, len(pairs))))
    assert np.isclose(ours, best)


def test_by_hand() -> None:
    """A dear item that ends the reading is the best alone, and stands below a cheaper one that does not end it: .6 and
    .9 times 1 are more than 1 and nothing behind it."""
    values, goes_on = np.array([[1.0, 0.6, 0.1]]), np.array([[0.0, 0.9, 0.0]])
    assert best_places(values, goes_on, 1).tolist() == [[0, 1, 2]]
    assert best_places(values, goes_on, 2).tolist() == [[1, 0, 2]]


def test_in_the_market_it_earns_more_than_preference_which_pleases_more() -> None:
    market = replace(world(items(120)), daily=True)
    people = market.people(np.arange(400))
    chance = AtRandom(120, market.parameters.logging.length, market.draws)
    preference = Oracle(market.shop, market.parameters.utility, (chance,))
    income = IncomeOracle(preference, market.shop, market.parameters)
    policies: tuple[Policy, ...] = (chance, preference, income)
    played = Played([str(n) for n in range(400)], {one.version: play(market, people, one) for one in policies})
    value = {(one.version, metric): played.level(metric, one.version).value for one in policies for metric in METRICS}
    assert value["income", "ecpm"] > value["oracle", "ecpm"] > value[RANDOM, "ecpm"]
    assert value["oracle", "clicks"] > value["income", "clicks"]
    assert played.level("ecpm", "income").closed == 1.0 and played.level("clicks", "oracle").closed == 1.0
