"""What can be played in the market: lists of items, hints in the search box, intents of a help desk.

Each has people who meet it, chance and the order of the truth to be held against, and what was read of it at a visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from spark_jobs.market.chats import Chats, opened
from spark_jobs.market.choices import Mask, chance_of_click
from spark_jobs.market.draws import Floats
from spark_jobs.market.hints import HintOracle
from spark_jobs.market.income import IncomeOracle
from spark_jobs.market.lists import Ints
from spark_jobs.market.menu import IntentOracle, Shown
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.people import People
from spark_jobs.market.policies import AtRandom, Oracle, Policy, Request
from spark_jobs.market.policy_tables import Thing
from spark_jobs.market.visits import DAY, Visit, World


@dataclass(frozen=True)
class Reading:
    """Of what is played, by each person [U] at a visit, or after it: how many `lists` they read, how often they
    clicked, how pleased they were, a list at most 1, how many `places` stood in them, looked at or not, with the sum of
    the chances that a look at each ends in a click (`preference`), and when it drove them away for good, microseconds
    since 1970, infinite: it did not."""

    lists: Floats
    clicks: Floats
    satisfaction: Floats
    preference: Floats
    places: Floats
    gone: Floats


class Kind(Protocol):
    """One of them."""

    def met_by_all(self, parameters: Parameters) -> Parameters:
        """A market in which everybody meets it who can."""

    def beside(self, world: World, listed: Sequence[Policy]) -> Sequence[Policy]:
        """Chance, the order of the truth, and where places are paid for, the one that earns most."""

    def visits(self, world: World, people: People, policy: Policy) -> Iterator[Visit]:
        """All that these people would make, but for what drives them away between two visits."""

    def read(self, world: World, visit: Visit, policy: Policy) -> Reading:
        """What was read of the policy's."""


class Lists:
    """Of items: one a visit."""

    def met_by_all(self, parameters: Parameters) -> Parameters:
        """See `Kind`."""
        return everybody_reads(parameters)

    def beside(self, world: World, listed: Sequence[Policy]) -> Sequence[Policy]:
        """See `Kind`."""
        chance = AtRandom(len(world.shop.item_ids), world.parameters.logging.length, world.draws)
        preference = Oracle(world.shop, world.parameters.utility, listed)
        return chance, preference, IncomeOracle(preference, world.shop, world.parameters)

    def visits(self, world: World, people: People, policy: Policy) -> Iterator[Visit]:
        """See `Kind`."""
        return world.visits(people, policy)

    def read(self, world: World, visit: Visit, policy: Policy) -> Reading:
        """See `Kind`."""
        done = visit.done
        return _one_each(visit.items >= 0, done.looked, done.clicked, visit.worth, world.parameters.choices.click)


class HintsShown:
    """Queries: some before each visit. The lists are the shop's own."""

    def met_by_all(self, parameters: Parameters) -> Parameters:
        """See `Kind`."""
        return everybody_sees_hints(parameters)

    def beside(self, world: World, listed: Sequence[Policy]) -> Sequence[Policy]:
        """See `Kind`."""
        chance = AtRandom(len(world.queries), world.parameters.hinting.length, world.draws)
        return chance, HintOracle(world.search_box, listed)

    def visits(self, world: World, people: People, policy: Policy) -> Iterator[Visit]:
        """See `Kind`."""
        return world.visits(people, world.logging, policy)

    def read(self, world: World, visit: Visit, policy: Policy) -> Reading:
        """See `Kind`."""
        hints = visit.hints
        return _one_each(hints.queries >= 0, hints.looked, hints.clicked, hints.worth, world.parameters.hints.click)


class Intents:
    """Some at the opening of each chat about what came of a visit. Lists and hints are the shop's own."""

    def met_by_all(self, parameters: Parameters) -> Parameters:
        """See `Kind`."""
        return parameters

    def beside(self, world: World, listed: Sequence[Policy]) -> Sequence[Policy]:
        """See `Kind`. Of a world with a menu."""
        assert world.menu is not None
        chance = AtRandom(len(world.menu.intents), world.parameters.openings.length, world.draws)
        return chance, IntentOracle(world.menu)

    def visits(self, world: World, people: People, policy: Policy) -> Iterator[Visit]:
        """See `Kind`."""
        return world.visits(people, world.logging)

    def read(self, world: World, visit: Visit, policy: Policy) -> Reading:
        """See `Kind`. Who has left for good may still ask about what they had bought."""
        many = len(visit.number)
        lists, clicks, satisfaction, preference, places = (np.zeros(many) for _ in range(5))
        gone = np.full(many, np.inf)
        for chats in opened(world, visit):
            rows, shown = chats.about.rows, shown_at(world, visit, chats, policy)
            lists += np.bincount(rows, minlength=many)
            clicks += np.bincount(rows, shown.clicked.sum(axis=1), many)
            satisfaction += np.bincount(rows, shown.satisfied, many)
            preference += np.bincount(rows, shown.chances.sum(axis=1), many)
            places += np.bincount(rows, (shown.intents >= 0).sum(axis=1), many)
            np.minimum.at(gone, rows[shown.left], chats.time[shown.left])
        return Reading(lists, clicks, satisfaction, preference, places, gone)


KINDS: Mapping[Thing, Kind] = {"item_id": Lists(), "query": HintsShown(), "intent": Intents()}


def everybody_reads(parameters: Parameters) -> Parameters:
    """Nobody searches for themselves or follows a hint: what they found would be no list of a policy's."""
    reads = replace(parameters.choices, directly=0.0)
    return replace(parameters, choices=reads, hints=replace(parameters.hints, share=0.0))


def everybody_sees_hints(parameters: Parameters) -> Parameters:
    """At each visit."""
    return replace(parameters, hints=replace(parameters.hints, share=1.0))


def shown_at(world: World, visit: Visit, chats: Chats, policy: Policy) -> Shown:
    """What the policy shows to those who open these chats, and what they do about it."""
    assert world.menu is not None
    about, day = chats.about, (chats.time - world.horizon.start) // DAY
    nothing: Ints = np.full((len(day), 0), -1)
    people = visit.request.people.chosen(about.rows)
    asked = Request(people, visit.session, day, nothing, nothing, nothing, chats.meant, chats.state)
    chat = about.requests, about.places
    return world.menu.shown(policy, asked, chat, world.parameters.openings, world.draws)


def _one_each(there: Mask, looked: Mask, clicked: Mask, worth: Floats, click: float) -> Reading:
    """A list for each of the visit's people, with something at the places that are `there`."""
    best = np.max(np.where(looked, worth, -np.inf), axis=1, initial=-np.inf)
    # The chance to click on the best that was looked at: 0 where there was nothing to look at.
    satisfied = chance_of_click(best, click)
    liked = np.where(there, chance_of_click(worth, click), 0.0).sum(axis=1)
    one, never = np.ones(len(looked)), np.full(len(looked), np.inf)
    return Reading(one, _count(clicked), satisfied, liked, _count(there), never)


def _count(marked: Mask) -> Floats:
    return np.asarray(marked.sum(axis=1), dtype=np.float64)
