"""What the hint ranker is asked: how likely a person clicks on a query, in numbers and texts.

The numbers of a pair are what the feature store says of person and query as of the moment, how often the query was
clicked where it was shown, and how near it is to what the person did, counted in words. Those that a pair has not are
NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from training.query_rec.hashed_text import Ints, Texts
from training.query_rec.people import Person
from training.query_rec.prompts import ACTIONS, SEARCH

Floats = NDArray[np.float32]
COUNTED = tuple(
    f"query_daily__{name}_{days}d" for name in ("shown", "clicked", "typed", "bought") for days in (7, 30, 365)
)
OF_QUERY = (*COUNTED, "query_daily__distinct_users_365d", "query_daily__days_since_first_365d")
"""What the feature store says of a query."""
OF_USER = (
    *(f"user_daily__{name}" for name in ("events_7d", "events_30d", "events_365d", "mean_rating_365d")),
    *("user_daily__distinct_items_365d", "user_daily__days_since_first_365d"),
    *("user_recency__days_since_last_event", "user_recency__is_cold"),
)
"""What it says of a person."""
DERIVED = ("click_share_30d", "click_share_365d", "letters", "words")
MATCHES = ("behaviours", "searched", "overlap_best", "overlap_last", "overlap_mean", "overlap_searches")
"""`overlap`: the share of the query's words that something the person did has too, the best, the last, and the mean of
all weighed by one over its number from the last; `searched`: whether all of it was searched for."""
NAMES = (*OF_USER, *OF_QUERY, *DERIVED, *MATCHES)
_AGO = np.array([0, 1, 2, 3, 5, 7, 14, 30, 60], dtype=np.int64)
"""A behaviour is at least so many days old."""
AGES = len(_AGO)
KNOTS = 65
"""Of the quantiles of a number."""
KINDS = {name: number for number, name in enumerate(ACTIONS)}
_PRIOR_SHOWN, _AT_ONCE = 20.0, 20_000


@dataclass(frozen=True, eq=False)
class Questions:
    """n pairs of m people and a query.

    `texts` holds queries and contents; `contents`, `kinds`, `ages` [m, length] are what each person did, the last
    first, with -1 for nothing; `person` and `query` [n] say whom and what a pair is of, `place` [n] where it is shown,
    from 1, and `numbers` [n, NAMES] what is known of it.
    """

    texts: Texts
    contents: Ints
    kinds: Ints
    ages: Ints
    person: Ints
    query: Ints
    place: Ints
    numbers: Floats

    def __len__(self) -> int:
        """n."""
        return len(self.query)

    def numbers_of(self, name: str) -> Floats:
        """One of the `NAMES`: [n]."""
        return self.numbers[:, NAMES.index(name)]

    def chosen(self, rows: Ints) -> Self:
        """Those pairs, and of the people whom they are of."""
        people, person = np.unique(self.person[rows], return_inverse=True)
        lists = {name: getattr(self, name)[people] for name in ("contents", "kinds", "ages")}
        pairs = {name: getattr(self, name)[rows] for name in ("query", "place", "numbers")}
        return replace(self, person=person, **lists, **pairs)

    @classmethod
    def of(
        cls,
        people: Sequence[Person],
        queries: Sequence[Sequence[str]],
        known: Mapping[str, Floats],
        phrases: Mapping[str, str],
        length: int,
        buckets: int,
        share: float,
    ) -> Self:
        """Of each person all their `queries`, each at the first place.

        `known`: what the feature store says of queries, each [OF_QUERY]; `phrases` of items; `share`: of hints that are
        clicked. The last `length` behaviours are read, each told once whatever the order (`done`).
        """
        did = [done(person, phrases, length) for person in people]
        asked = [query for own in queries for query in own]
        texts = list(dict.fromkeys([*asked, *(words for own in did for _, _, words in own)]))
        number = {text: place for place, text in enumerate(texts)}
        contents, kinds, ages = (np.full((len(people), length), -1, dtype=np.int64) for _ in range(3))
        for row, own in enumerate(did):
            for place, (days, action, words) in enumerate(own):
                contents[row, place], kinds[row, place], ages[row, place] = number[words], KINDS[action], age_of(days)
        person = np.repeat(np.arange(len(people)), [len(own) for own in queries]).astype(np.int64)
        unknown = np.full(len(OF_QUERY), np.nan, dtype=np.float32)
        users = np.array(
            [[one.features.get(name, np.nan) for name in OF_USER] for one in people], dtype=np.float32
        ).reshape(-1, len(OF_USER))
        told = np.array([known.get(query, unknown) for query in asked], dtype=np.float32).reshape(-1, len(OF_QUERY))
        found = cls(
            Texts(texts, buckets), contents, kinds, ages, person,
            np.array([number[query] for query in asked], dtype=np.int64),
            np.ones(len(asked), dtype=np.int64), np.zeros((len(asked), 0), dtype=np.float32),
        )  # fmt: skip
        return found.told(users[person], told, share)

    def told(self, users: Floats, queries: Floats, share: float) -> Self:
        """With their `numbers`: of what the store says of each pair's person [n, OF_USER] and query [n, OF_QUERY]."""
        return replace(
            self, numbers=np.concatenate([users, queries, self._derived(queries, share), self._matches()], axis=1)
        )

    def _derived(self, queries: Floats, share: float) -> Floats:
        column = {name: queries[:, place] for place, name in enumerate(OF_QUERY)}
        shares = [
            (column[f"query_daily__clicked_{days}d"] + _PRIOR_SHOWN * share)
            / (column[f"query_daily__shown_{days}d"] + _PRIOR_SHOWN)
            for days in (30, 365)
        ]
        letters = np.array([len(text) for text in self.texts.texts], dtype=np.float32)
        words = np.asarray(self.texts.words.sum(axis=1), dtype=np.float32).ravel()
        return np.stack([*shares, letters[self.query], words[self.query]], axis=1)

    def _matches(self) -> Floats:
        parts = [
            self._matches_of(np.arange(start, min(start + _AT_ONCE, len(self))))
            for start in range(0, len(self), _AT_ONCE)
        ]
        return np.concatenate([np.zeros((0, len(MATCHES)), dtype=np.float32), *parts])

    def _matches_of(self, rows: Ints) -> Floats:
        words = self.texts.words
        contents, kinds = self.contents[self.person[rows]], self.kinds[self.person[rows]]
        there = contents >= 0
        pairs = np.flatnonzero(there.ravel())
        queries = np.repeat(self.query[rows], contents.shape[1])[pairs]
        shared = np.asarray(words[queries].multiply(words[contents.ravel()[pairs]]).sum(axis=1)).ravel()
        size = np.asarray(words.sum(axis=1)).ravel()
        flat = np.zeros(contents.size, dtype=np.float32)
        flat[pairs] = shared / np.maximum(size[queries], 1.0)
        overlap = flat.reshape(contents.shape)
        same = np.zeros(contents.size, dtype=bool)
        same[pairs] = (shared == size[queries]) & (size[queries] == size[contents.ravel()[pairs]]) & (shared > 0)
        searched = there & (kinds == KINDS[SEARCH])
        weights = there / np.arange(1, contents.shape[1] + 1)
        mean = (overlap * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
        columns = (
            there.sum(axis=1),
            (same.reshape(contents.shape) & searched).any(axis=1),
            overlap.max(axis=1, initial=0.0),
            overlap[:, 0],
            mean,
            (overlap * searched).max(axis=1, initial=0.0),
        )
        return np.stack([column.astype(np.float32) for column in columns], axis=1)


def done(person: Person, phrases: Mapping[str, str], length: int) -> list[tuple[int, str, str]]:
    """The last `length` things that a person did, the last first: days ago, action and words, each once.

    By days, as `Person.told` has it: what arrives out of order or twice says no more than once and in order.
    """
    told = person.told(phrases)
    rows = zip(reversed(told.days_ago), reversed(told.actions), reversed(told.contents), strict=True)
    return list(dict.fromkeys(rows))[:length]


def age_of(days: int) -> int:
    """The number of the range of days, from 0; of days to come that of today."""
    return int(np.searchsorted(_AGO, max(days, 0), side="right")) - 1


class Quantiles(NamedTuple):
    """Which share of the training part has less of each number: `edges` and `ranks` [NAMES, K], rising, ranks -1 to 1.

    Counts of any size come to one scale, and what is beyond all that was shown is no more than the furthest of these: a
    policy finds whatever a reward says of a query of a hundred letters if none was ever shown.
    """

    edges: Floats
    ranks: Floats

    @classmethod
    def of(cls, numbers: Floats) -> Quantiles:
        """Of numbers [n, NAMES], where they are known; one that never is has the rank 0."""
        edges, ranks = np.zeros((2, len(NAMES), KNOTS), dtype=np.float32)
        for row, own in enumerate(numbers.T):
            known = np.sort(own[~np.isnan(own)])
            if len(known):
                edges[row] = np.quantile(known, np.linspace(0.0, 1.0, KNOTS), method="nearest")
                below = np.searchsorted(known, edges[row], "left") + np.searchsorted(known, edges[row], "right")
                ranks[row] = below / len(known) - 1.0
        return cls(edges, ranks)

    def __call__(self, numbers: Floats) -> Floats:
        """The ranks of numbers [n, NAMES], between two edges in a straight line; NaN stays NaN."""
        columns = [np.interp(*own) for own in zip(numbers.T, self.edges, self.ranks, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)
