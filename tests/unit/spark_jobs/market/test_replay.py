"""Two policies meet the same people and luck: what differs is theirs. The truth's own order is the best there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from common.bootstrap import Interval
from spark_jobs.market.hints import HintOracle
from spark_jobs.market.kinds import HintsShown, everybody_sees_hints
from spark_jobs.market.people import People
from spark_jobs.market.policies import AtRandom, Oracle, Policy, Request, Tabled, ordered
from spark_jobs.market.policy_tables import numbers
from spark_jobs.market.replay import Level, Played, people_of, play, told
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import items, parameters, world

LENGTH, HINTS = 10, HintsShown()
CLICKS, PURCHASES, PREFERENCE, PLACES, LEFT, THOUSANDS = 1, 2, 6, 7, 8, 9


def daily(**changes: Any) -> World:
    return replace(world(choices__directly=0.0, hints__share=0.0, **changes), daily=True)


def lists(people: People, items: np.ndarray, version: str = "lists") -> Tabled:
    return Tabled(version, people.number, items, np.broadcast_to(ordered(np.arange(items.shape[1])), items.shape))


def everybody(people: People, items: np.ndarray) -> Tabled:
    return lists(people, np.tile(items, (len(people), 1)))


def test_the_same_lists_meet_the_same_reactions_in_any_company() -> None:
    market = daily()
    people = market.people(np.arange(50))
    policy = everybody(people, np.arange(LENGTH))
    whole = play(market, people, policy)
    assert np.array_equal(whole, play(market, people, policy))
    assert np.array_equal(whole[7:8], play(market, people.chosen(np.array([7])), policy))
    assert whole[:, 0].max() <= market.horizon.days and whole[:, CLICKS].sum() > 0


def test_an_item_that_both_policies_show_first_is_clicked_under_both_or_neither() -> None:
    market = daily(people__patience=0.999999, choices__done=0.0, choices__leave=-50.0, utility__seen=0.0)
    people = market.people(np.arange(60))
    one, two = (everybody(people, np.array([5, other])) for other in (6, 7))
    clicked = [
        np.stack([visit.done.clicked[:, 0] & (visit.items[:, 0] == 5) for visit in market.visits(people, policy)])
        for policy in (one, two)
    ]
    assert np.array_equal(clicked[0], clicked[1]) and clicked[0].any()


def test_an_order_is_shown_as_it_is_for_certain() -> None:
    market = daily(catalogue__out_of_stock=0.0)
    people = market.people(np.arange(40))
    order = np.array([9, 3, 77, 12])
    for visit in market.visits(people, everybody(people, order)):
        assert (visit.items[:, :4] == order).all() and (visit.items[:, 4:] == -1).all()
        assert np.allclose(visit.log_chances, 0.0)


def test_chance_shows_each_person_one_list_as_a_table_does() -> None:
    market = daily(catalogue__out_of_stock=0.0)
    people = market.people(np.arange(30))
    visits = market.visits(people, AtRandom(len(market.shop.item_ids), LENGTH, market.draws))
    shown = [dict(zip(visit.number.tolist(), visit.items.tolist(), strict=True)) for visit in visits]
    assert len(shown) == market.horizon.days and len({tuple(items) for items in shown[0].values()}) == 30
    for later in shown[1:]:
        assert all(later[person] == shown[0][person] for person in later)


def test_the_truth_is_better_than_any_list_and_chance_is_worse_than_the_logging_policy() -> None:
    market = daily()
    people = market.people(np.arange(400))
    popular = everybody(people, np.argsort(-market.shop.counted)[:LENGTH])
    chance = AtRandom(len(market.shop.item_ids), LENGTH, market.draws)
    oracle = Oracle(market.shop, market.parameters.utility, (popular, chance))
    policies: dict[str, Policy] = {"random": chance, "logging": market.logging, "popular": popular, "oracle": oracle}
    found = {name: play(market, people, policy) for name, policy in policies.items()}
    clicks = {name: counted[:, CLICKS].mean() for name, counted in found.items()}
    assert clicks["random"] < clicks["logging"] < clicks["oracle"] and clicks["popular"] < clicks["oracle"]
    assert found["oracle"][:, LEFT].mean() < found["random"][:, LEFT].mean()
    liked = {name: counted[:, PREFERENCE].sum() / counted[:, PLACES].sum() for name, counted in found.items()}
    assert liked["random"] < liked["logging"] < liked["oracle"] and liked["popular"] < liked["oracle"] < 1.0


def test_preference_is_of_all_places_that_were_shown_looked_at_or_not() -> None:
    """By hand: 1 / (1 + exp(click - worth)) over the places, where nobody is driven away."""
    market = daily(choices__leave=-50.0)
    people = market.people(np.arange(40))
    policy = everybody(people, np.arange(LENGTH))
    visits = list(market.visits(people, policy))
    there = np.concatenate([visit.items >= 0 for visit in visits])
    worth = np.concatenate([visit.worth for visit in visits])[there]
    counted = play(market, people, policy)
    assert counted[:, PLACES].sum() == there.sum() > counted[:, CLICKS].sum()
    click = market.parameters.choices.click
    assert counted[:, PREFERENCE].sum() == pytest.approx((1.0 / (1.0 + np.exp(click - worth))).sum())


def test_the_oracle_puts_first_what_is_worth_most() -> None:
    market = daily()
    people = market.people(np.arange(30))
    nothing = np.full((30, 0), -1)
    request = Request(people, 0, np.zeros(30, dtype=int), nothing, nothing, nothing, np.zeros(30, dtype=int))
    oracle = Oracle(market.shop, market.parameters.utility, ())
    candidates = oracle.candidates(request)
    scores = oracle.scores(request, candidates)
    never = np.zeros(candidates.shape, dtype=np.int64)
    worth = people.utility(market.shop, request.day, request.wish, candidates, never, market.parameters.utility)
    order = np.argsort(-scores, axis=1)
    assert (np.diff(np.take_along_axis(worth, order, axis=1), axis=1) <= 1e-12).all()


def test_whoever_has_a_history_wishes_for_it_or_for_what_is_near() -> None:
    market = daily()
    users = [f"u{n}" for n in range(200)]
    taken = pd.DataFrame({"user_id": users[:100], "item_id": [f"i{n:03d}" for n in range(100)]})
    taken = pd.concat([taken, pd.DataFrame({"user_id": ["u0", "nobody"], "item_id": ["gone", "i001"]})])
    people = people_of(market, users, taken)
    assert np.array_equal(people.number, np.sort(numbers(users)))
    row = {int(number): place for place, number in enumerate(people.number)}
    moved = 0
    for n in range(100):
        person = row[int(numbers([users[n]])[0])]
        assert people.bought[person, 0] == n and (people.bought[person, 1:] == -1).all()
        assert set(people.tastes[person]) <= {n, *market.shop.near[n].tolist()}
        moved += int((people.tastes[person] != n).sum())
    assert 0.35 < moved / 300 < 0.65  # half of the wishes, as `new_wish` says
    stranger = row[int(numbers([users[150]])[0])]
    assert (people.bought[stranger] == -1).all() and (people.tastes[stranger] >= 0).all()


def test_what_people_took_before_is_known_to_their_habit() -> None:
    """Of two who differ in their habit alone, the one who likes to buy again clicks more on what they took."""
    users = [f"u{n}" for n in range(300)]
    taken = pd.DataFrame({"user_id": users, "item_id": "i005"})
    clicks = {}
    for habit in (-4.0, 4.0):
        market = daily(people__habit=habit, catalogue__out_of_stock=0.0)
        people = people_of(market, users, taken)
        clicks[habit] = play(market, people, everybody(people, np.array([5])))[:, CLICKS].mean()
    assert clicks[4.0] > 2 * clicks[-4.0]


def test_a_difference_is_paired_and_the_way_from_chance_to_the_oracle_is_told() -> None:
    """Two clicks more for each of three people is two clicks more for certain."""
    before = np.zeros((3, 10))
    before[:, 0], before[:, CLICKS], before[:, THOUSANDS] = 2, [0, 1, 8], 0.02
    after, best = before.copy(), before.copy()
    after[:, CLICKS] += 2
    best[:, CLICKS] += 8
    played = Played(["1", "2", "3"], {"a": after, "b": before, "random": before, "oracle": best})
    assert played.level("clicks", "a") == Level(5.0, 3.0, 11.0) and played.level("clicks", "a").closed == 0.25
    assert played.difference("clicks", "a", "b", seed=1) == pytest.approx(Interval(2.0, 2.0, 2.0))
    assert played.level("bids", "a").closed is None
    lines = told(played, "a", "b", seed=1)
    assert "+2.0000 [+2.0000, +2.0000]  (25% and 0% of the way" in lines[1] and "way" not in lines[4] + lines[5]


@pytest.mark.parametrize("count", [2, 3])
def test_a_shop_of_hardly_any_items_can_be_played(count: int) -> None:
    market = replace(world(items(count)), daily=True)
    people = market.people(np.arange(20))
    oracle = Oracle(market.shop, market.parameters.utility, (AtRandom(count, LENGTH, market.draws),))
    assert play(market, people, oracle).shape == (20, 10)


def test_hints_are_played_as_lists_are() -> None:
    """What people wish for is followed more than what others wish for, and the truth's own order most."""
    shown = ("pen model3", "lamp model4 made of glass", "nothing of this shop")
    market = replace(world(people__tastes=1), daily=True, hints=shown)
    market = replace(market, parameters=everybody_sees_hints(market.parameters))
    people = market.people(np.arange(400))
    near = market.queries.near[people.tastes[:, 0]][:, :1]
    chance = AtRandom(len(market.queries), 3, market.draws)
    wished, others, strange = (
        lists(people, near),
        lists(people, np.roll(near, 1, axis=0)),
        everybody(people, np.array([2])),
    )
    oracle = HintOracle(market.search_box, (wished, others))
    policies: dict[str, Policy] = {
        "wished": wished,
        "others": others,
        "strange": strange,
        "random": chance,
        "oracle": oracle,
    }
    found = {name: play(market, people, policy, HINTS) for name, policy in policies.items()}
    clicks = {name: counted[:, CLICKS].sum() / counted[:, 0].sum() for name, counted in found.items()}
    assert clicks["oracle"] > clicks["wished"] > clicks["others"] > 0 < clicks["random"] < clicks["oracle"]
    assert clicks["strange"] < clicks["wished"]
    assert np.array_equal(found["wished"], play(market, people, wished, HINTS))
    assert np.array_equal(found["wished"][7:8], play(market, people.chosen(np.array([7])), wished, HINTS))


def test_who_follows_no_hint_buys_as_without_any() -> None:
    market = replace(world(hints__click=100.0, hints__share=1.0), daily=True)
    people = market.people(np.arange(60))
    policy = AtRandom(len(market.queries), 3, market.draws)
    hinted = play(market, people, policy, HINTS)
    plain = play(replace(market, parameters=parameters(hints__share=0.0)), people, market.logging)
    assert hinted[:, CLICKS].sum() == 0 < hinted[:, PURCHASES].sum()
    assert np.array_equal(hinted[:, PURCHASES:5], plain[:, PURCHASES:5]) and np.array_equal(
        hinted[:, LEFT], plain[:, LEFT]
    )
