"""Intents at the opening of a chat: who clicks which, by the chances that are documented, and whom it drives away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spark_jobs.market.chats import LOGISTICS_STATES, ORDER_STATES, STATES, Chats, opened
from spark_jobs.market.draws import Floats
from spark_jobs.market.kinds import Intents, shown_at
from spark_jobs.market.lists import Ints
from spark_jobs.market.menu import IntentOracle, Menu, Shown
from spark_jobs.market.people import People
from spark_jobs.market.policies import AtRandom, Policy, Request, Tabled, ordered
from spark_jobs.market.replay import play
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import utterances, with_desk

PEOPLE, INTENTS = 300, Intents()
LISTS, CLICKS, PURCHASES, SATISFACTION, PREFERENCE, LEFT, SHOWN = 0, 1, 2, 5, 6, 8, 9
ELSEWHERE = pd.DataFrame({"intent": ["reset_2fa", "get_refund"], "text": ["Two factors", "Pay it back."]})


def with_menu(**openings: float) -> World:
    """A desk whose menu has more intents than anybody asks for; everybody comes once a day."""
    market = with_desk()
    assert market.desk is not None
    menu = Menu.of(pd.concat([utterances(), ELSEWHERE]), market.desk)
    own = replace(market.parameters, openings=replace(market.parameters.openings, **openings))  # type: ignore[arg-type]
    return replace(market, menu=menu, parameters=own, daily=True)


def menu_of(market: World) -> Menu:
    assert market.menu is not None
    return market.menu


def table(people: People, lists: np.ndarray, version: str = "table") -> Tabled:
    """Of a list [n] for everybody, or one for each state [S, n]."""
    lists = np.tile(np.broadcast_to(lists, (len(STATES), lists.shape[-1])), (len(people), 1))
    return Tabled(version, people.number, lists, np.broadcast_to(ordered(np.arange(lists.shape[1])), lists.shape), 9)


def chats(market: World, people: People, policy: Policy) -> Iterator[tuple[Chats, Shown]]:
    for visit in market.visits(people, market.logging):
        yield from ((found, shown_at(market, visit, found, policy)) for found in opened(market, visit))


def numbers(market: World, *names: str) -> np.ndarray:
    return np.array([menu_of(market).intents.index(name) for name in names])


class Meant:
    """Each sees the intent at this place of the order of nearness to what they mean; the first one is that itself."""

    version = "meant"

    def __init__(self, market: World, *places: int) -> None:
        self.oracle, self.places = IntentOracle(menu_of(market)), list(places)

    def candidates(self, request: Request) -> Ints:
        return self.oracle.candidates(request)[:, self.places]

    def scores(self, request: Request, candidates: Ints) -> Floats:
        return np.broadcast_to(ordered(np.arange(len(self.places))), candidates.shape)


def test_the_right_intent_is_the_nearest_and_what_is_worded_alike_is_near() -> None:
    market = with_menu()
    menu, desk = menu_of(market), market.desk
    assert desk is not None and [menu.intents[n] for n in menu.right] == list(desk.intents)
    assert "reset_2fa" in menu.intents and menu.near.shape == (len(desk.intents), len(menu.intents))
    near = dict(zip(menu.intents, menu.near[desk.intents.index("get_invoice")], strict=True))
    assert near["get_invoice"] == pytest.approx(1.0) and near["check_invoice"] > 0.5 > 3 * near["recover_password"]
    assert menu.near.min() >= 0.0


def test_a_look_at_the_right_intent_and_at_one_that_is_near_ends_in_a_click_as_often_as_documented() -> None:
    """The first place is always looked at: a list of one is clicked with the chance of a look."""
    market = with_menu()
    people, own = market.people(np.arange(PEOPLE)), market.parameters.openings
    for place in (0, 1):
        found = list(chats(market, people, Meant(market, place)))
        clicked = np.concatenate([shown.clicked[:, 0] for _, shown in found])
        near = np.concatenate([np.sort(menu_of(market).near[chat.meant], axis=1)[:, -2] for chat, _ in found])
        chance = np.full(len(near), 1.0 - own.overlooked) if place == 0 else own.mistaken * near
        off = clicked - chance
        assert len(off) > 300 and abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
    assert 0.02 < clicked.mean() < own.mistaken


def test_a_list_is_read_from_the_top_until_one_is_clicked() -> None:
    market = with_menu()
    people = market.people(np.arange(PEOPLE))
    for _, shown in chats(market, people, Meant(market, 1, 0, 2)):
        assert (shown.clicked.sum(axis=1) <= 1).all() and not (shown.clicked & ~shown.looked).any()
        assert (np.diff(shown.looked.astype(int), axis=1) <= 0).all() and shown.looked[:, 0].all()
        after = np.cumsum(shown.clicked, axis=1) - shown.clicked
        assert not (shown.looked & (after > 0)).any()


def test_an_intent_meets_the_same_luck_in_another_place_and_in_any_company() -> None:
    market = with_menu(mistaken=0.0)
    people = market.people(np.arange(PEOPLE))
    people = replace(people, patience=np.full(PEOPLE, 0.999999))
    one, two = (list(chats(market, people, Meant(market, *order))) for order in ((0, 1, 2), (2, 1, 0)))
    for (_, first), (_, last) in zip(one, two, strict=True):
        assert np.array_equal(first.clicked[:, 0], last.clicked[:, 2])
    alone = play(market, people.chosen(np.array([7])), Meant(market, 0, 1, 2), INTENTS)
    whole = play(market, people, Meant(market, 0, 1, 2), INTENTS)
    assert np.array_equal(whole[7:8], alone)


def test_the_state_of_a_chat_is_that_of_its_order_and_a_table_shows_the_list_of_that_state() -> None:
    market = with_menu()
    people, seen = market.people(np.arange(PEOPLE)), set()
    own = np.arange(len(STATES))[:, None] + np.array([[0, 10]])
    policy = table(people, own)
    for chat, shown in chats(market, people, policy):
        for order, sent, state in zip(chat.order, chat.logistics, chat.state, strict=True):
            names = (None if order < 0 else ORDER_STATES[order], None if sent < 0 else LOGISTICS_STATES[sent])
            assert STATES[state] == names
        assert np.array_equal(shown.intents[:, :2], own[chat.state]) and (shown.intents[:, 2:] == -1).all()
        seen |= set(chat.state.tolist())
    assert seen == set(range(len(STATES)))


def test_who_knows_the_state_is_above_who_does_not_and_the_truth_is_above_all() -> None:
    market = with_menu()
    people = market.people(np.arange(PEOPLE))
    popular = numbers(market, "track_order", "delivery_period", "payment_issue")
    known = {
        (None, None): ("payment_issue", "check_payment_methods", "place_order"),
        ("placed", None): ("change_order", "change_shipping_address", "set_up_shipping_address"),
        ("paid", None): ("cancel_order", "check_cancellation_fee", "get_invoice"),
        ("delivered", "delivered"): ("get_refund", "check_refund_policy", "complaint"),
        ("returned", "delivered"): ("track_refund", "get_refund", "complaint"),
        ("cancelled", None): ("track_refund", "get_refund", "complaint"),
    }
    by_state = np.stack([numbers(market, *known[state]) if state in known else popular for state in STATES])
    chance, oracle = INTENTS.beside(market, ())
    policies = {
        "random": chance,
        "popular": table(people, popular),
        "state": table(people, by_state),
        "oracle": oracle,
    }
    found = {name: play(market, people, policy, INTENTS).sum(axis=0) for name, policy in policies.items()}
    for metric in (CLICKS, SATISFACTION):
        rates = [counted[metric] / counted[LISTS] for counted in found.values()]
        assert rates == sorted(rates) and rates[0] < 0.5 * rates[1] < 0.5 * rates[2]
    liked = [counted[PREFERENCE] for counted in found.values()]
    assert liked == sorted(liked) and 0 < liked[0] < liked[-1]
    assert found["oracle"][LEFT] <= found["random"][LEFT]
    # Everybody looks at the first place.
    assert found["oracle"][SATISFACTION] == pytest.approx(0.9 * found["oracle"][LISTS])
    assert isinstance(chance, AtRandom) and chance.items == len(menu_of(market).intents)


def test_a_click_by_mistake_counts_and_does_not_satisfy() -> None:
    market = with_menu(mistaken=1.0)
    people = market.people(np.arange(PEOPLE))
    wrong, right = (play(market, people, Meant(market, *order), INTENTS).sum(axis=0) for order in ((1, 2, 0), (0,)))
    assert wrong[CLICKS] > 0.7 * right[CLICKS]
    assert wrong[SATISFACTION] / wrong[LISTS] < right[SATISFACTION] / right[LISTS]


def test_what_is_read_in_vain_drives_people_away() -> None:
    market = with_menu(leave=-3.0, annoyed=2.0, mistaken=0.0)
    people = market.people(np.arange(PEOPLE))
    strange = numbers(market, "reset_2fa", "newsletter_subscription", "switch_account")
    vain, right = table(people, strange), Meant(market, 0)
    left = [np.concatenate([shown.left for _, shown in chats(market, people, policy)]) for policy in (right, vain)]
    assert left[1].mean() > 3 * left[0].mean() > 0


def test_who_was_driven_away_by_a_chat_does_not_come_again_and_others_do_what_they_would_have_done() -> None:
    market = with_menu(leave=-50.0, annoyed=0.0)
    people = market.people(np.arange(PEOPLE))
    stays = play(market, people, Meant(market, 0), INTENTS)
    plain = play(replace(market, desk=None), people, Meant(market, 0), INTENTS)
    assert np.array_equal(stays[:, PURCHASES:SATISFACTION], plain[:, PURCHASES:SATISFACTION])
    assert np.array_equal(stays[:, LEFT:], plain[:, LEFT:]) and plain[:, LISTS].sum() == 0 < stays[:, LISTS].sum()
    goes = play(with_menu(leave=50.0), people, Meant(market, 0), INTENTS)
    asked = stays[:, LISTS] > 0
    assert (goes[asked, LEFT] == 1.0).all() and goes[:, LEFT].max() == 1.0
    assert np.array_equal(goes[~asked], stays[~asked])
    assert (goes[:, SHOWN] <= stays[:, SHOWN]).all() and goes[asked, SHOWN].sum() < 0.8 * stays[asked, SHOWN].sum()
    first = {}
    for visit in market.visits(people, market.logging):
        for chat in opened(market, visit):
            for person, time in zip(chat.about.number.tolist(), chat.time.tolist(), strict=True):
                first[person] = min(time, first.get(person, time))
    visits = np.zeros(PEOPLE)
    for visit in market.visits(people, market.logging):
        early = [time < first.get(person, np.inf) for person, time in zip(visit.number, visit.time, strict=True)]
        visits[visit.number[early]] += (visit.items[early] >= 0).sum(axis=1) / 1000.0
    # Of the chats about visits that never were, none was counted: whoever goes first goes by the first chat of these.
    assert (goes[:, SHOWN] >= visits - 1e-9).all() and goes[:, SHOWN] == pytest.approx(visits)
