"""Queries that a search box shows before anything is typed: what they are worth, who follows one, who tires of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from spark_jobs.market import lists
from spark_jobs.market.choices import Mask, read
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.policies import Oracle, Policy, Request, known, ordered
from spark_jobs.market.queries import Queries
from spark_jobs.market.shop import Shop


@dataclass(frozen=True)
class Hints:
    """To some of the people at a visit, the `rows` [H] of them: the `queries` [H, n] (-1: none) in their search box
    with the `log_chances` that the policy gave them, what each is `worth`, what was `looked` at, and what was
    `clicked`, at most one of each row. `asked`: what they came with; `offered` [H, M]: what was drawn from (-1: none);
    `loss` [H]: what every hint lost, as the last ones had been tiring."""

    rows: Ints
    queries: Ints
    log_chances: Floats
    worth: Floats
    looked: Mask
    clicked: Mask
    asked: Request
    offered: Ints
    loss: Floats

    @classmethod
    def none(cls, asked: Request, length: int) -> Hints:
        """To nobody."""
        floats, mask = np.zeros((0, length)), np.zeros((0, length), dtype=bool)
        queries, rows = np.zeros((0, length), dtype=np.int64), np.zeros(0, dtype=np.int64)
        return cls(rows, queries, floats, floats, mask, mask, asked, queries, np.zeros(0))

    @property
    def followed(self) -> Ints:
        """The query that each clicked [H], -1: none."""
        return np.asarray(np.max(np.where(self.clicked, self.queries, -1), axis=1, initial=-1))

    def tired(self, click: float) -> Floats:
        """By how much the best that each [H] looked at was below a `click`; by nothing for those who clicked."""
        best = np.max(np.where(self.looked, self.worth, -np.inf), axis=1, initial=-np.inf)
        return np.where(self.followed >= 0, 0.0, np.clip(click - best, 0.0, 5.0))


@dataclass(frozen=True)
class SearchBox:
    """Where hints stand."""

    shop: Shop
    queries: Queries
    parameters: Parameters
    draws: Draws

    def hints(self, policy: Policy, asked: Request, tired: Floats, rows: Ints) -> Hints:
        """What the policy shows to those who ask, the `rows` of a visit's people, and which of it they follow who are
        so `tired` [H] of the last ones."""
        draws, session, number = self.draws, asked.session, asked.people.number[:, None]
        candidates = lists.once(policy.candidates(asked))
        scores = np.where(candidates >= 0, policy.scores(asked, candidates), -np.inf)
        noise = draws.gumbel("hints", number, session, self.queries.keys[candidates.clip(0)])
        shown = lists.drawn(scores, noise, self.parameters.hinting.length)
        queries = lists.at(candidates, shown.places, -1)
        worth, loss = self.worth(asked, queries), self.parameters.hints.tiring * tired
        looked, clicked = self._read(asked, queries, worth - loss[:, None])
        return Hints(rows, queries, shown.log_chances, worth, looked, clicked, asked, candidates, loss)

    def wished(self, asked: Request) -> Ints:
        """What is searched for by those who wish the same [H, C], likeliest first, -1: none."""
        return self.queries.near[asked.people.tastes[np.arange(len(asked.people)), asked.wish]]

    def worth(self, asked: Request, queries: Ints) -> Floats:
        """Of `queries` [H, M] (-1: none), in the logits of an item's utility: nearness to the wish, how catching the
        words are, one's own view, less what is lost by those that stood there the last time."""
        own, there, people = self.parameters, queries.clip(0), asked.people
        keys, taste = self.queries.keys[there], people.tastes[np.arange(len(people)), asked.wish]
        nearness = np.einsum("ud,umd->um", self.shop.vectors[taste], self.queries.vectors[there]).astype(np.float64)
        catching = own.queries.appeal * self.draws.normal("catching", keys)
        view = own.utility.own * self.draws.normal("own view of a query", people.number[:, None], keys)
        again = own.utility.seen * known(queries, asked.shown)
        return np.asarray(own.utility.text * nearness + catching + view - again)

    def _read(self, asked: Request, queries: Ints, worth: Floats) -> tuple[Mask, Mask]:
        """What people look at and click: from the left, until one is wanted or they have had enough. A draw belongs to
        person, visit and words, and not to the place."""
        person, place = asked.people.number[:, None], np.arange(queries.shape[1])[None, :]
        there, keys = queries >= 0, self.queries.keys[queries.clip(0)]
        chance = 1.0 / (1.0 + np.exp(self.parameters.hints.click - worth))
        would = there & (self.draws.uniform("hint", person, asked.session, keys) < chance)
        enough = self.draws.uniform("hint patience", person, asked.session, place) >= asked.people.patience[:, None]
        looked = read(there, would | enough)
        return looked, looked & would


@dataclass(frozen=True)
class HintOracle:
    """The order of what hints are truly worth, over what is searched for by those who wish the same, what each has
    searched for, and what the policies `beside` it name. None is followed more; what is bought then is not asked."""

    box: SearchBox
    beside: Sequence[Policy]
    version: ClassVar[str] = Oracle.version

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        named = [policy.candidates(request) for policy in self.beside]
        return np.concatenate([self.box.wished(request), request.bought, *named], axis=1)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        worth = self.box.worth(request, candidates)
        return ordered(np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1))
