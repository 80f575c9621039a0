"""Estimates from the logging policy's log beside the market's own answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spark_jobs.market.off_policy_check import Rescored, check, rivals_of, told
from spark_jobs.market.policies import Logging, Policy
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import world


def reading() -> World:
    return world(choices__directly=0.0, hints__share=0.0, people__sessions=4.0)


def test_the_logging_policy_itself_is_estimated_as_it_is() -> None:
    market = reading()
    same = Rescored(market.logging, market.logging, "same")
    (one,) = check(market, market.people(np.arange(60)), {"same": same}, seed=1, modelled=False)
    assert one.truth == pytest.approx(one.logged)
    for name in ("ips", "snips", "rips", "snrips"):
        assert one.estimates[name].value.value == pytest.approx(one.logged)
        assert one.estimates[name].support.mean_weight == pytest.approx(1.0)


def test_the_model_of_rewards_sees_what_could_stand_there_given_what_stands_above() -> None:
    market = reading()
    (one,) = check(market, market.people(np.arange(30)), {"greedier": rivals_of(market)["greedier"]}, seed=1)
    assert 0.0 < one.estimates["dm"].value.value < 3.0 and abs(one.error("dr")) < 0.5


def test_each_rival_shows_other_lists() -> None:
    market = reading()
    people = market.people(np.arange(40))

    def shown(policy: Policy) -> list[list[int]]:
        return [line for visit in market.visits(people, policy) for line in visit.items.tolist()]

    own = shown(market.logging)
    for name, rival in rivals_of(market).items():
        assert rival.version == name and shown(rival) != own


def test_a_better_policy_is_said_to_be_better_and_a_random_one_worse() -> None:
    market = reading()
    greedy = Logging(market.shop, replace(market.logging.own, temperature=0.6), market.draws)
    chance = Logging(market.shop, replace(market.logging.own, temperature=1e6), market.draws)
    rivals = {
        "greedy": Rescored(market.logging, greedy, "greedy"),
        "chance": Rescored(market.logging, chance, "chance"),
    }
    found = {one.rival: one for one in check(market, market.people(np.arange(500)), rivals, seed=1, modelled=False)}
    assert found["greedy"].truth > found["greedy"].logged > found["chance"].truth
    assert found["greedy"].sign_right("rips") and found["chance"].sign_right("rips")
    assert abs(found["greedy"].error("rips")) < 0.15
    lines = told(list(found.values()))
    assert lines[2].startswith("| greedy |") and len(lines) == 4 and "sign wrong" not in lines[2]
    turned = replace(found["greedy"], truth=found["greedy"].logged / 2)
    assert " outside, sign wrong |" in told([turned])[2]
