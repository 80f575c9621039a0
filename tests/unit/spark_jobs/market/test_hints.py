"""Hints have exact chances; people follow those that are near to what they wish, and go on as before without."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from spark_jobs.market import lists
from spark_jobs.market.draws import Floats
from spark_jobs.market.kinds import everybody_reads
from spark_jobs.market.lists import Ints
from spark_jobs.market.people import People
from spark_jobs.market.policies import Policy, Request, Tabled, ordered
from spark_jobs.market.visits import VISITS, Visit, World
from tests.unit.spark_jobs.market.kit import items, parameters, tables, world

PEOPLE = 300
ASKED = ("pen model3", "pen size1", "lamp model4", "tape size0")


@pytest.fixture(scope="module")
def log() -> dict[str, pd.DataFrame]:
    return tables(world(asked=ASKED), PEOPLE)


@dataclass
class Recorded:
    """What a policy was asked and what it said, person by person."""

    policy: Policy
    version: str = "recorded"
    said: dict[tuple[int, int], tuple[Ints, Floats]] = field(default_factory=dict)

    def candidates(self, request: Request) -> Ints:
        return self.policy.candidates(request)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        scores = self.policy.scores(request, candidates)
        for row, person in enumerate(request.people.number.tolist()):
            self.said[person, request.session] = candidates[row], scores[row]
        return scores


def test_the_chances_of_all_hints_sum_to_one_and_those_shown_have_theirs() -> None:
    market = world(items(3), hinting__candidates=6, hints__share=1.0)
    recorded, checked = Recorded(market.hinting), 0
    for visit in market.visits(market.people(np.arange(20)), market.logging, recorded):
        for row, shown in enumerate(visit.hints.queries):
            person = int(visit.number[visit.hints.rows[row]])
            candidates, scores = recorded.said[person, visit.session]
            there = np.flatnonzero(candidates >= 0)
            orders = np.array(list(permutations(there, min(3, len(there)))))
            each = np.tile(np.where(candidates >= 0, scores, -np.inf), (len(orders), 1))
            chances = np.exp(lists.log_chances(each, orders).sum(axis=1))
            assert chances.sum() == pytest.approx(1.0)
            at = (candidates[orders] == shown[: orders.shape[1]]).all(axis=1)
            assert chances[at].sum() == pytest.approx(np.exp(visit.hints.log_chances[row].sum()))
            checked += 1
    assert checked > 50


def test_hints_are_whole_and_a_click_is_a_search_for_one_that_was_shown(log: dict[str, pd.DataFrame]) -> None:
    hints, searches = log["hint_exposures"], log["searches"]
    for _, shown in hints.groupby("request_id"):
        assert shown["position"].tolist() == list(range(1, len(shown) + 1)) and shown["query"].is_unique
        assert shown["hint_chance"].prod() == pytest.approx(shown["list_chance"].iloc[0])
        assert (shown["hint_chance"].between(0, 1, inclusive="right")).all()
    assert set(hints["policy_version"]) == {1} and set(log["exposures"]["policy_version"]) == {0}
    assert searches["request_id"].is_unique
    pairs = set(zip(hints["request_id"], hints["query"], strict=True))
    clicked = searches[searches["source"] == "hint"]
    assert 20 < len(clicked) < hints["request_id"].nunique()
    assert set(zip(clicked["request_id"], clicked["query"], strict=True)) <= pairs


def test_a_visit_searches_or_reads_a_list(log: dict[str, pd.DataFrame]) -> None:
    assert set(log["searches"]["request_id"]).isdisjoint(log["exposures"]["request_id"])
    visits = len(log["searches"]) + log["exposures"]["request_id"].nunique()
    assert 0.2 < log["hint_exposures"]["request_id"].nunique() / visits < 0.4


def test_who_follows_no_hint_does_what_they_would_have_done_without(log: dict[str, pd.DataFrame]) -> None:
    without = tables(world(asked=ASKED, hints__share=0.0), PEOPLE)
    assert len(without["hint_exposures"]) == 0 and set(without["searches"]["source"]) == {"typed"}
    followers = set(log["searches"].query("source == 'hint'")["user_id"])
    assert 10 < len(followers) < PEOPLE - 10
    for table in ("exposures", "events", "searches"):
        one, two = (found[table][~found[table]["user_id"].isin(followers)] for found in (log, without))
        pd.testing.assert_frame_equal(one.reset_index(drop=True), two.reset_index(drop=True))


def test_what_a_hint_finds_is_what_its_query_finds(log: dict[str, pd.DataFrame]) -> None:
    market = world(asked=ASKED)
    followed = log["searches"].query("source == 'hint' and item_id >= 0")
    found = market.queries.items[followed["query"]]
    assert len(followed) > 10 and (found == followed["item_id"].to_numpy()[:, None]).any(axis=1).all()
    bought = log["events"].query("event_type == 'purchase'")
    pairs = set(zip(bought["user_id"], bought["item_id"], strict=True))
    assert sum(pair in pairs for pair in zip(followed["user_id"], followed["item_id"], strict=True)) > 5


def everybody_sees(people: People, queries: np.ndarray, version: str = "hints") -> Tabled:
    return Tabled(version, people.number, queries, np.broadcast_to(ordered(np.arange(queries.shape[1])), queries.shape))


def first_visit(market: World, people: People, queries: np.ndarray) -> Visit:
    return next(market.visits(people, market.logging, everybody_sees(people, queries)))


def test_the_hint_nearer_to_the_wish_is_followed_more() -> None:
    """The same people at the same visit, once with a hint for what they wish, once with one for what another wishes."""
    market = world(hints__share=1.0, people__tastes=1, queries__appeal=0.0)
    people = market.people(np.arange(1_500))
    theirs = market.queries.near[people.tastes[:, 0]][:, :1]
    near, far = (first_visit(market, people, queries) for queries in (theirs, np.roll(theirs, 1, axis=0)))
    rates = [visit.hints.clicked.mean() for visit in (near, far)]
    assert rates[0] > 1.8 * rates[1] > 0
    again = first_visit(market, people, theirs)
    assert np.array_equal(again.hints.clicked, near.hints.clicked)


def test_a_hint_meets_the_same_luck_in_another_place_and_in_any_company() -> None:
    market = world(hints__share=1.0, people__patience=0.999999)
    people = market.people(np.arange(400))
    both = np.tile([3, 40], (400, 1))
    one, two = (first_visit(market, people, queries).hints for queries in (both, both[:, ::-1]))
    assert np.array_equal(one.followed >= 0, two.followed >= 0) and (one.followed >= 0).any()
    alone = first_visit(market, people.chosen(np.array([17])), both[17:18]).hints
    assert alone.followed[0] == one.followed[17] and np.array_equal(alone.worth[0], one.worth[17])


def clicks_by_visit(market: World, queries: np.ndarray) -> list[float]:
    people = market.people(np.arange(800))
    policy = everybody_sees(people, np.tile(queries, (800, 1)))
    return [float(visit.hints.clicked.any(axis=1).mean()) for visit in market.visits(people, market.logging, policy)]


def test_hints_that_are_repeated_or_beside_the_point_tire_people() -> None:
    calm = {"hints__share": 1.0, "choices__leave": -50.0, "people__spread": 0.01}
    fresh = clicks_by_visit(world(hints__tiring=0.0, utility__seen=0.0, **calm), np.array([3, 40, 90]))[1:4]
    repeated = clicks_by_visit(world(hints__tiring=0.0, utility__seen=4.0, **calm), np.array([3, 40, 90]))[1:4]
    tired = clicks_by_visit(world(hints__tiring=2.0, utility__seen=0.0, **calm), np.array([3, 40, 90]))[1:4]
    assert max(repeated) < 0.7 * min(fresh) and max(tired) < 0.7 * min(fresh)


def test_the_shops_hints_are_better_than_any_and_know_what_was_clicked() -> None:
    market = world(hints__share=1.0, choices__leave=-50.0)
    people = market.people(np.arange(800))
    chance = everybody_sees(
        people, market.draws.choice(np.ones(len(market.queries)), "x", people.number[:, None], np.arange(3))
    )
    rates = []
    for policy in (market.hinting, chance):
        visits = list(market.visits(people, market.logging, policy))[3:8]
        rates.append(np.mean([visit.hints.clicked.any(axis=1).mean() for visit in visits]))
    assert rates[0] > 1.15 * rates[1]


def test_who_only_reads_is_shown_no_hints_and_searches_for_nothing() -> None:
    own = everybody_reads(parameters())
    found = tables(World(world().shop, own, world().draws, world().horizon), 40)
    assert len(found["searches"]) == len(found["hint_exposures"]) == 0 < len(found["exposures"])


@pytest.mark.parametrize("count", [2, 3])
def test_a_shop_of_hardly_any_items_shows_what_hints_it_has(count: int) -> None:
    found = tables(world(items(count), hints__share=1.0), 30)
    assert found["hint_exposures"]["position"].max() == 3 and len(found["searches"])
    requests = found["hint_exposures"]["request_id"] // VISITS
    assert (requests == found["hint_exposures"]["user_id"]).all()
