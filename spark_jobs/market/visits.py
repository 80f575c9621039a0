"""A block of people from their first visit to their last: what they were shown, and what they did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark_jobs.market import choices, lists
from spark_jobs.market.choices import Choices, Mask
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.log import Log
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.people import People
from spark_jobs.market.shop import Shop

_CLICKS, _BOUGHT = 3, 16  # of each person the shop looks at so many last clicks, and remembers so many purchases
_DAY, _SECOND = 86_400_000_000, 1_000_000  # microseconds
_READS, _DECIDES = 8 * _SECOND, 40 * _SECOND  # a place of a list; from click to purchase
_REVIEWS = 5.0  # days from purchase to review


@dataclass(frozen=True)
class Horizon:
    """`start`: microseconds since 1970; `days` that are simulated."""

    start: int
    days: int


@dataclass
class _State:
    """What has happened to people [U] so far; -1 where nothing has."""

    time: Floats
    wish: Ints
    clicked: Ints
    bought: Ints
    shown: Ints
    left: Mask


@dataclass(frozen=True)
class World:
    """Everything that does not change."""

    shop: Shop
    parameters: Parameters
    draws: Draws
    horizon: Horizon

    def lived(self, number: Ints) -> Log:
        """The log of these people."""
        people = People.of(number, self.shop, self.parameters, self.draws)
        users = len(people)
        arrival = self.horizon.days * self.draws.uniform("arrival", number)
        state = _State(
            arrival,
            np.full(users, -1),
            np.full((users, _CLICKS), -1),
            np.full((users, _BOUGHT), -1),
            np.full((users, self.parameters.logging.length), -1),
            np.zeros(users, dtype=bool),
        )
        log = Log()
        for session in range(int(people.sessions.max(initial=0))):
            rows = np.flatnonzero((people.sessions > session) & ~state.left & (state.time < self.horizon.days))
            if len(rows) == 0:
                break
            _Visit(self, people.chosen(rows), state, rows, session).happens(log)
            gap = (self.horizon.days - arrival[rows]) / people.sessions[rows]
            state.time[rows] += gap * self.draws.exponential("gap", number[rows], session)
        return log


@dataclass(frozen=True)
class _Visit:
    """The `session`-th visit of those people who come so often: the `rows` of the state."""

    world: World
    people: People
    state: _State
    rows: Ints
    session: int

    def happens(self, log: Log) -> None:
        """Search for the wish, or read a list; do something about it; remember it."""
        own, draws = self.world.parameters, self.world.draws
        keys = (self.people.number, np.full(len(self.rows), self.session))
        self._wish(draws)
        direct = draws.uniform("directly", *keys) < own.choices.directly
        bought = self.state.bought[self.rows]
        candidates = np.where(direct[:, None], self._looked_for(bought), self._candidates(bought))
        again = (candidates[:, :, None] == bought[:, None, :]).any(axis=2) & (candidates >= 0)
        wish = self.state.wish[self.rows]
        utility = self.people.utility(self.world.shop, wish, candidates, again, own.utility)
        scores = np.where(direct[:, None], utility, self._scores(candidates, again))
        scores = np.where(candidates >= 0, scores, -np.inf)
        person, session = keys[0][:, None], keys[1][:, None]
        shown = lists.drawn(scores, draws.gumbel("list", person, session, candidates), own.logging.length)
        items = _at(candidates, shown.places, -1)
        worth = _at(utility, shown.places, 0.0)
        worth = worth - own.utility.seen * (items[:, :, None] == self.state.shown[self.rows][:, None, :]).any(axis=2)
        prices = np.exp(self.world.shop.log_prices[items.clip(0)])
        done = choices.choose(worth, items, prices, self.people.patience, self.people.budget, keys, own.choices, draws)
        self._write(log, items, prices, worth, shown, ~direct, done)
        self._remember(items, done, ~direct)

    def _wish(self, draws: Draws) -> None:
        number, before = self.people.number, self.state.wish[self.rows]
        stays = draws.uniform("need", number, self.session) < self.world.parameters.people.need_lasts
        drawn = draws.uniform("wish", number, self.session)[:, None]
        fresh = (drawn > np.cumsum(self.people.shares, axis=1)[:, :-1]).sum(axis=1)
        self.state.wish[self.rows] = np.where(stays & (before >= 0), before, fresh)

    def _looked_for(self, bought: Ints) -> Ints:
        """What a person finds who knows what it is: the thing, what is near it, and what they bought before."""
        taste = self.people.tastes[np.arange(len(self.rows)), self.state.wish[self.rows]][:, None]
        return self._padded([taste, self.world.shop.near[taste[:, 0]], bought])

    def _candidates(self, bought: Ints) -> Ints:
        """What the shop would show: near to the last clicks, bought before, and much that is popular."""
        shop, own = self.world.shop, self.world.parameters.logging
        clicked = self.state.clicked[self.rows]
        near = np.where(clicked[:, :, None] >= 0, shop.near[clicked.clip(0)], -1)
        near = near[:, :, : own.candidates // (2 * _CLICKS)].reshape(len(self.rows), -1)
        slots = np.arange(own.candidates - near.shape[1])[None, :]
        popular = self.world.draws.choice(
            np.exp(own.popular * shop.counted), "candidate", self.people.number[:, None], self.session, slots
        )
        return self._padded([near, bought, popular])

    def _padded(self, found: list[Ints]) -> Ints:
        """Side by side, as wide as any visit's, each item once and in stock."""
        width = self.world.parameters.logging.candidates + _BOUGHT
        items = np.concatenate(found, axis=1)
        items = np.pad(items, ((0, 0), (0, max(0, width - items.shape[1]))), constant_values=-1)
        order = np.argsort(items, axis=1, kind="stable")
        ordered = np.take_along_axis(items, order, axis=1)
        twice = np.zeros_like(items, dtype=bool)
        np.put_along_axis(twice, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        days = self.state.time[self.rows].astype(np.int64)[:, None]
        return np.where(twice | ~self.world.shop.in_stock(items, days), -1, items)

    def _scores(self, candidates: Ints, again: Mask) -> Floats:
        """What the shop knows, and no more."""
        shop, own = self.world.shop, self.world.parameters.logging
        clicked = self.state.clicked[self.rows]
        taste = np.where((clicked >= 0)[:, :, None], shop.vectors[clicked.clip(0)], 0.0).mean(axis=1)
        near = np.einsum("ud,umd->um", taste, shop.vectors[candidates.clip(0)]).astype(np.float64)
        score = own.popular * shop.counted[candidates.clip(0)] + own.similar * near + own.own * again
        return np.asarray(score / own.temperature)

    def _write(
        self, log: Log, items: Ints, prices: Floats, worth: Floats, shown: lists.Lists, listed: Mask, done: Choices
    ) -> None:
        number, horizon = self.people.number, self.world.horizon
        start = horizon.start + (self.state.time[self.rows] * _DAY).astype(np.int64) // _SECOND * _SECOND
        rows, places = np.nonzero(listed[:, None] & (items >= 0))
        log.show(
            self.session,
            {
                "user": number[rows],
                "time": start[rows],
                "position": places + 1,
                "item": items[rows, places],
                "item_chance": np.exp(shown.log_chances[rows, places]),
                "list_chance": np.exp(shown.log_chances.sum(axis=1))[rows],
                "bid": self.world.shop.bids[items[rows, places]],
            },
        )
        at = start[:, None] + _READS * (1 + np.arange(items.shape[1]))[None, :]
        stages = (("click", done.clicked, 0), ("cart", done.carted, _DECIDES // 2), ("purchase", done.bought, _DECIDES))
        for kind, mask, later in stages:
            found = np.nonzero(mask)
            log.act(kind, number[found[0]], items[found], at[found] + later, prices[found])
        self._rate(log, items[found], worth[found], at[found], number[found[0]], prices[found])

    def _rate(self, log: Log, items: Ints, worth: Floats, at: Ints, number: Ints, prices: Floats) -> None:
        """Some of what was bought, days later, if the horizon is not over then."""
        own, draws, horizon = self.world.parameters.choices, self.world.draws, self.world.horizon
        keys = (number, self.session, items)
        stars = choices.ratings(worth, (number, np.full(len(number), self.session)), items, own, draws)
        days = _REVIEWS * draws.exponential("review", *keys)
        when = at + (days * _DAY).astype(np.int64) // _SECOND * _SECOND
        told = (draws.uniform("rates", *keys) < own.rates) & (when < horizon.start + horizon.days * _DAY)
        log.act("review", number[told], items[told], when[told], prices[told], stars[told])

    def _remember(self, items: Ints, done: Choices, listed: Mask) -> None:
        self.state.clicked[self.rows] = _pushed(self.state.clicked[self.rows], items, done.clicked)
        self.state.bought[self.rows] = _pushed(self.state.bought[self.rows], items, done.bought)
        unseen = np.where(done.clicked, -1, items)
        self.state.shown[self.rows] = np.where(listed[:, None], unseen, self.state.shown[self.rows])
        self.state.left[self.rows] |= done.left


def _at(values: np.ndarray, places: Ints, none: float) -> np.ndarray:
    return np.where(places >= 0, np.take_along_axis(values, places.clip(0), axis=1), none).astype(values.dtype)


def _pushed(known: Ints, items: Ints, mask: Mask) -> Ints:
    """The last ones, newest first."""
    fresh = np.where(mask, items, -1)[:, ::-1]
    both = np.concatenate([fresh, known], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")[:, : known.shape[1]]
    return np.take_along_axis(both, order, axis=1)
