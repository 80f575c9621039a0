"""A block of people from their first visit to their last: what they were shown, and what they did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np

from spark_jobs.market import choices, lists
from spark_jobs.market.choices import Choices, Mask
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.hints import Hints, SearchBox
from spark_jobs.market.lists import Ints
from spark_jobs.market.menu import Menu
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.people import People
from spark_jobs.market.policies import Logging, Policy, Request, known, times
from spark_jobs.market.queries import Queries
from spark_jobs.market.shop import Shop

_CLICKS = 3  # the shop looks at so many last ones of each person
_SEARCHES = 3  # and at so many searches
DAY, SECOND = 86_400_000_000, 1_000_000  # microseconds
_READS, DECIDES = 8 * SECOND, 40 * SECOND  # a place of a list; from click to purchase
_LASTS = 1.0 / 24.0  # days: a visit is over before the next one begins
VISITS = 1 << 20
"""More than any person makes: the request at a visit has the number person * VISITS + visit."""


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
    searched: Ints
    hinted: Ints
    tired: Floats


@dataclass(frozen=True)
class Visit:
    """What happened at the `session`-th visit of the people `number` [U]: at `time` [U], microseconds since 1970.

    `items` [U, n] (-1: none) with their `prices`, what each is `worth` to the person, and the `log_chances` that the
    policy gave them; `listed` [U]: it was a policy's list, not what the person searched for; what was `done`.
    `request` is what the person came with, `offered` [U, M] what the list was drawn from (-1: none), all of it `liked`
    as it would be if it were shown. `query` [U]: what was searched for, -1: nothing; `hints`: what the search box
    showed before, one of which it may be.
    """

    number: Ints
    session: int
    time: Ints
    items: Ints
    prices: Floats
    worth: Floats
    log_chances: Floats
    listed: Mask
    done: Choices
    request: Request
    offered: Ints
    liked: Floats
    query: Ints
    hints: Hints

    @property
    def requests(self) -> Ints:
        """Their numbers [U]."""
        return self.number * VISITS + self.session

    @property
    def read(self) -> Ints:
        """When each place is looked at, [U, n], microseconds since 1970."""
        return self.time[:, None] + _READS * (1 + np.arange(self.items.shape[1]))[None, :]


@dataclass(frozen=True)
class World:
    """Everything that does not change. `daily`: everybody comes once a day, and not as often as they like. `desk`: whom
    they may ask, and the `menu` of what they may be shown then. `hints`: texts that policies show, each once, whether
    anything answers them or not: the first queries.
    """

    shop: Shop
    parameters: Parameters
    draws: Draws
    horizon: Horizon
    daily: bool = False
    desk: Desk | None = None
    hints: Sequence[str] = ()
    menu: Menu | None = None

    @property
    def logging(self) -> Logging:
        """The policy of a shop that only counts."""
        return Logging(self.shop, self.parameters.logging, self.draws)

    @cached_property
    def queries(self) -> Queries:
        """What people search for, and what they are shown."""
        return Queries.of(self.shop, self.parameters, self.hints)

    @property
    def search_box(self) -> SearchBox:
        """Where hints stand."""
        return SearchBox(self.shop, self.queries, self.parameters, self.draws)

    @property
    def hinting(self) -> Logging:
        """The same of hints."""
        return Logging(self.shop, self.parameters.hinting, self.draws, self.queries)

    def people(self, number: Ints) -> People:
        """Those of these numbers."""
        return People.of(number, self.shop, self.parameters, self.draws)

    def visits(self, people: People, policy: Policy, hinting: Policy | None = None) -> Iterator[Visit]:
        """All visits of these people, shown the lists of the policy, and the hints of another or of the shop's own."""
        number, users = people.number, len(people)
        arrival, gap = self._coming(people)
        state = _State(
            arrival,
            np.full(users, -1),
            people.bought[:, :_CLICKS].copy(),
            people.bought.copy(),
            np.full((users, self.parameters.logging.length), -1),
            np.zeros(users, dtype=bool),
            np.full((users, _SEARCHES), -1),
            np.full((users, self.parameters.hinting.length), -1),
            np.zeros(users),
        )
        for session in count():
            rows = np.flatnonzero(~state.left & (state.time < self.horizon.days))
            if len(rows) == 0:
                break
            yield _Visiting(self, policy, hinting, people.chosen(rows), state, rows, session).happens()
            luck = 1.0 if self.daily else self.draws.exponential("gap", number[rows], session)
            state.time[rows] += gap[rows] * luck if self.daily else np.maximum(gap[rows] * luck, _LASTS)

    def _coming(self, people: People) -> tuple[Floats, Floats]:
        """In days: when each comes first, and the mean time from one visit to the next."""
        drawn, days = self.draws.uniform("arrival", people.number), float(self.horizon.days)
        if self.daily:
            return drawn, np.ones(len(people))
        often = days / people.sessions
        arrival = np.where(people.newcomer, days, often) * drawn
        # The first visit of a newcomer is one of those that they make on average.
        more = np.maximum(people.sessions - 1.0, 1e-6)
        return arrival, np.where(people.newcomer, (days - arrival) / more, often)


@dataclass(frozen=True)
class _Visiting:
    """The `session`-th visit of those people who come so often: the `rows` of the state."""

    world: World
    policy: Policy
    hinting: Policy | None
    people: People
    state: _State
    rows: Ints
    session: int

    def happens(self) -> Visit:
        """Follow a hint, search for the wish, or read a list; do something about it; remember it."""
        own, draws, number = self.world.parameters, self.world.draws, self.people.number
        self._wish(draws)
        request = self._request()
        hinted = self._hints(request)
        query, direct = self._searched(request, hinted)
        candidates, scores = self._offered(request, direct, hinted)
        taken = times(candidates, request.bought)
        utility = self.people.utility(self.world.shop, request.day, request.wish, candidates, taken, own.utility)
        scores = np.where(candidates >= 0, np.where(direct[:, None], utility, scores), -np.inf)
        noise = draws.gumbel("list", number[:, None], self.session, candidates)
        shown = lists.drawn(scores, noise, own.logging.length)
        items = lists.at(candidates, shown.places, -1)
        liked = utility - own.utility.seen * known(candidates, request.shown)
        worth = lists.at(liked, shown.places, 0.0)
        prices = np.exp(self.world.shop.log_prices[items.clip(0)])
        keys = (number, np.full(len(self.rows), self.session))
        done = choices.choose(worth, items, prices, self.people.patience, self.people.budget, keys, own.choices, draws)
        self._remember(items, done, ~direct)
        self._remember_search(query, hinted)
        start = self.world.horizon.start + (self.state.time[self.rows] * DAY).astype(np.int64) // SECOND * SECOND
        listed, worths = (items, prices, worth, shown.log_chances), (candidates, liked)
        return Visit(number, self.session, start, *listed, ~direct, done, request, *worths, query, hinted)

    def _wish(self, draws: Draws) -> None:
        number, before = self.people.number, self.state.wish[self.rows]
        stays = draws.uniform("need", number, self.session) < self.world.parameters.people.need_lasts
        drawn = draws.uniform("wish", number, self.session)[:, None]
        fresh = (drawn > np.cumsum(self.people.shares, axis=1)[:, :-1]).sum(axis=1)
        self.state.wish[self.rows] = np.where(stays & (before >= 0), before, fresh)

    def _request(self) -> Request:
        state, rows = self.state, self.rows
        day = state.time[rows].astype(np.int64)
        clicked, bought, shown = (past[rows] for past in (state.clicked, state.bought, state.shown))
        return Request(self.people, self.session, day, clicked, bought, shown, state.wish[rows])

    def _hints(self, request: Request) -> Hints:
        """What the search box shows to some, and which of it they follow."""
        own, draws, state, number = self.world.parameters, self.world.draws, self.state, self.people.number
        rows = np.flatnonzero(draws.uniform("hints", number, self.session) < own.hints.share)
        day, clicked, wish = request.day[rows], request.clicked[rows], request.wish[rows]
        searched, hinted, tired = state.searched[self.rows[rows]], state.hinted[self.rows[rows]], state.tired
        asked = Request(self.people.chosen(rows), self.session, day, clicked, searched, hinted, wish)
        if len(rows) == 0:
            return Hints.none(asked, own.hinting.length)
        policy = self.world.hinting if self.hinting is None else self.hinting
        return self.world.search_box.hints(policy, asked, tired[self.rows[rows]], rows)

    def _searched(self, request: Request, hinted: Hints) -> tuple[Ints, Mask]:
        """What each searches for, -1: nothing, and who searches: who follows a hint, and who types what they wish."""
        own, draws, number = self.world.parameters, self.world.draws, self.people.number
        query = np.full(len(self.rows), -1)
        query[hinted.rows] = hinted.followed
        typed = np.flatnonzero((draws.uniform("directly", number, self.session) < own.choices.directly) & (query < 0))
        if len(typed):
            taste = self.people.tastes[typed, request.wish[typed]]
            query[typed] = self.world.queries.typed(taste, number[typed], self.session, draws)
        return query, query >= 0

    def _offered(self, request: Request, direct: Mask, hinted: Hints) -> tuple[Ints, Floats]:
        """What the policy would show, or what the person finds who searches, side by side; each once and in stock."""
        named, found = self.policy.candidates(request), self._looked_for(request)
        follows = hinted.followed >= 0
        if follows.any():
            # What is typed finds what was meant; a hint finds what its words say.
            answers = self.world.queries.items[hinted.followed[follows]]
            found[hinted.rows[follows]] = _wide(answers, found.shape[1], -1)
        width = max(named.shape[1], found.shape[1])
        either = np.where(direct[:, None], _wide(found, width, -1), _wide(named, width, -1))
        candidates = self._there(either, request.day)
        scores = self.policy.scores(request, np.where(direct[:, None], -1, candidates)[:, : named.shape[1]])
        return candidates, _wide(scores, width, 0.0)

    def _looked_for(self, request: Request) -> Ints:
        """What a person finds who knows what it is: the thing, what is near it, and what they bought before."""
        taste = self.people.tastes[np.arange(len(self.rows)), request.wish][:, None]
        return np.concatenate([taste, self.world.shop.near[taste[:, 0]], request.bought], axis=1)

    def _there(self, items: Ints, day: Ints) -> Ints:
        """Each item at its first place and in stock, else -1."""
        return np.where(self.world.shop.in_stock(items, day[:, None]), lists.once(items), -1)

    def _remember(self, items: Ints, done: Choices, listed: Mask) -> None:
        self.state.clicked[self.rows] = _pushed(self.state.clicked[self.rows], items, done.clicked)
        self.state.bought[self.rows] = _pushed(self.state.bought[self.rows], items, done.bought)
        unseen = np.where(done.clicked, -1, items)
        self.state.shown[self.rows] = np.where(listed[:, None], unseen, self.state.shown[self.rows])
        self.state.left[self.rows] |= done.left

    def _remember_search(self, query: Ints, hinted: Hints) -> None:
        past, state, shown = query[:, None], self.state, self.rows[hinted.rows]
        state.searched[self.rows] = _pushed(state.searched[self.rows], past, past >= 0)
        unseen = np.where(hinted.clicked, -1, hinted.queries)
        state.hinted[shown] = _wide(unseen, state.hinted.shape[1], -1)
        state.tired[shown] = hinted.tired(self.world.parameters.hints.click)


def _wide(values: np.ndarray, width: int, none: float) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=none)


def _pushed(known: Ints, items: Ints, mask: Mask) -> Ints:
    """The last ones, newest first."""
    fresh = np.where(mask, items, -1)[:, ::-1]
    both = np.concatenate([fresh, known], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")[:, : known.shape[1]]
    return np.take_along_axis(both, order, axis=1)
