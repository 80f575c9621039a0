"""What makes the lists of the market: the shop's logging policy, a policy's table, chance, and the truth itself.

A policy names candidates and scores; the list is drawn from them by Plackett-Luce (`lists`). An order without chances
is the limit of scores that lie far apart: drawn like the others, with a chance of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import LoggingParameters, UtilityParameters
from spark_jobs.market.people import People
from spark_jobs.market.queries import Queries
from spark_jobs.market.shop import Shop

_FAR = 1_000.0  # between scores of a list whose order is certain: no Gumbel draw bridges it


@dataclass(frozen=True)
class Request:
    """People [U] who ask for a list at their `session`-th visit, on a `day` each [U] of the horizon.

    `clicked` and `bought` [U, n]: the last ones, newest first, -1 where there are fewer, and `shown` [U, n], what stood
    in the last list and was not clicked: all that a shop knows. `wish` [U]: what each came for, which only the oracle
    may read. Who asks for hints is offered queries: then `bought` are what each searched for before, and `shown` the
    hints of the last time. Who opens a chat is offered intents, about an order in the `state` [U] (`chats.STATES`):
    `wish` is what each means, an intent of the desk's.
    """

    people: People
    session: int
    day: Ints
    clicked: Ints
    bought: Ints
    shown: Ints
    wish: Ints
    state: Ints | int = 0


class Policy(Protocol):
    """What makes lists."""

    @property
    def version(self) -> str:
        """Its name in the log."""

    def candidates(self, request: Request) -> Ints:
        """Items, or queries, [U, M] to choose from, -1: none. One that stands twice counts once; what is not in stock
        falls out."""

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """Of those of its candidates that are left (-1: not): logits [U, M]."""


@dataclass(frozen=True)
class Logging:
    """What a shop does that only counts: near to the last clicks, had before, and much that is popular. It offers items
    or, where there are any, `queries`."""

    shop: Shop
    own: LoggingParameters
    draws: Draws
    queries: Queries | None = None

    @property
    def version(self) -> str:
        """See `Policy`."""
        return self.own.version

    @property
    def _offered(self) -> Shop | Queries:
        return self.shop if self.queries is None else self.queries

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        offered, clicked, users = self._offered, request.clicked, len(request.people)
        near = np.where(clicked[:, :, None] >= 0, offered.near[clicked.clip(0)], -1)
        near = near[:, :, : self.own.candidates // (2 * clicked.shape[1])].reshape(users, -1)
        slots = np.arange(self.own.candidates - near.shape[1])[None, :]
        number, days = request.people.number[:, None], offered.told_apart(request.day)
        purpose = "candidate" if self.queries is None else "candidate query"
        popular = np.empty((users, slots.shape[1]), dtype=np.int64)
        for day in np.unique(days):
            weights, rows = np.exp(self.own.popular * offered.counted_on(day)), days == day
            popular[rows] = self.draws.choice(weights, purpose, number[rows], request.session, slots)
        return np.concatenate([near, request.bought, popular], axis=1)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`. What the shop knows, and no more."""
        offered, own, clicked = self._offered, self.own, request.clicked
        taste = np.where((clicked >= 0)[:, :, None], self.shop.vectors[clicked.clip(0)], 0.0).mean(axis=1)
        near = np.einsum("ud,umd->um", taste, offered.vectors[candidates.clip(0)]).astype(np.float64)
        score = own.popular * offered.counted_on(request.day[:, None], candidates.clip(0)) + own.similar * near
        return np.asarray((score + own.own * known(candidates, request.bought)) / own.temperature)


@dataclass(frozen=True)
class Tabled:
    """Lists from a table: of the people `numbers` [N], rising, `items` [N * S, L] (-1: none), and `log_chances`
    [N * S, L], the logarithm of the chance that each stands first. One person's lists of the S `states` of an order
    stand one after the other; where a policy knows of no order, S is 1."""

    version: str
    numbers: Ints
    items: Ints
    log_chances: Floats
    states: int = 1

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        return self.items[self._rows(request)]

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        return self.log_chances[self._rows(request)]

    def _rows(self, request: Request) -> Ints:
        return np.searchsorted(self.numbers, request.people.number) * self.states + request.state


@dataclass(frozen=True)
class AtRandom:
    """Any items of the catalogue: what a market without a policy would have. To each person the same list again and
    again, as a table shows it: what is new each day would be less tiring."""

    items: int
    length: int
    draws: Draws
    version: ClassVar[str] = "random"

    def candidates(self, request: Request) -> Ints:
        """See `Policy`. More than a list needs: some stand twice, some are not in stock."""
        slots, number = np.arange(3 * self.length)[None, :], request.people.number[:, None]
        drawn = self.draws.uniform("random", number, slots)
        return np.minimum((drawn * self.items).astype(np.int64), self.items - 1)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        return np.broadcast_to(ordered(np.arange(candidates.shape[1])), candidates.shape)


@dataclass(frozen=True)
class Oracle:
    """The order of the true preference, over what is near each wish, what is loved, and what the policies `beside` it
    name: no list of theirs is better, but for the luck of the draw."""

    shop: Shop
    own: UtilityParameters
    beside: Sequence[Policy]
    version: ClassVar[str] = "oracle"

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        rows = np.arange(len(request.people))
        taste = request.people.tastes[rows, request.wish][:, None]
        days, day = np.unique(self.shop.told_apart(request.day), return_inverse=True)
        order = [np.argsort(-self.shop.appeal_on(one), kind="stable") for one in days]
        loved = np.stack([found[: self.shop.near.shape[1]] for found in order])[day]
        named = [policy.candidates(request) for policy in self.beside]
        return np.concatenate([taste, self.shop.near[taste[:, 0]], loved, request.bought, *named], axis=1)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        order = np.argsort(-self.worth(request, candidates), axis=1, kind="stable")
        return ordered(np.argsort(order, axis=1))

    def worth(self, request: Request, candidates: Ints) -> Floats:
        """What each of the candidates [U, M] would be worth to who asks."""
        taken = times(candidates, request.bought)
        utility = request.people.utility(self.shop, request.day, request.wish, candidates, taken, self.own)
        return np.asarray(utility - self.own.seen * known(candidates, request.shown))


def ordered(places: Ints) -> Floats:
    """Scores of lists whose order is certain; `places` of any shape, from the first on rising."""
    return np.asarray(-_FAR * places, dtype=np.float64)


def times(items: Ints, bought: Ints) -> Ints:
    """How often each of `items` [U, M] is among `bought` [U, n]."""
    found = (items[:, :, None] == bought[:, None, :]).sum(axis=2)
    return np.asarray(np.where(items >= 0, found, 0))


def known(items: Ints, bought: Ints) -> NDArray[np.bool_]:
    """Which of `items` [U, M] are among `bought` [U, n]."""
    return np.asarray((items[:, :, None] == bought[:, None, :]).any(axis=2) & (items >= 0))
