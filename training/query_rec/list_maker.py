"""From meetings with the search box to examples: what is told of people, and the ordered lists that are learnt.

Candidates of a list are what counting says of the person; the hint ranker orders them and its best are added behind
what the person truly searched for (`labels`). Nearness of texts says what fits, and which behaviours are one interest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.query_rec.clicks import ClickRanker
from training.query_rec.counting import QueryCounts, filled_up
from training.query_rec.examples import Example, ListConfig
from training.query_rec.interest_lists import Interest
from training.query_rec.labels import Floats, concatenated, fitting, interests_of
from training.query_rec.people import Met, Person
from training.query_rec.prompts import SEARCH, Behaviours
from training.query_rec.reasons import Teacher

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Vectors of length 1 of texts, [texts, width]."""
Profiles = Callable[[Person], str | None]
Generated = Callable[[Sequence[Behaviours]], Sequence[Sequence[str]]]
THINK, DIRECT = "think", "direct"
_AFTER_A_SEARCH = frozenset({"click", "view", "cart", "purchase"})


def nobody_generates(people: Sequence[Behaviours]) -> Sequence[Sequence[str]]:
    """No model adds queries."""
    return [()] * len(people)


def no_profile(person: Person) -> str | None:
    """Nothing is told of who they are."""
    return None


@dataclass(frozen=True)
class ListMaker:
    """`candidates` of each counting row are ordered by the ranker, its `ranked` best are added; without one, none."""

    config: ListConfig
    phrases: Mapping[str, str]
    counts: QueryCounts
    ranker: ClickRanker | None
    encode: Encode
    teacher: Teacher
    candidates: int = 10
    ranked: int = 10
    profile: Profiles = no_profile
    generated: Generated = nobody_generates
    _vectors: dict[str, Floats] = field(default_factory=dict, repr=False)

    def examples(self, met: Sequence[Met]) -> list[Example]:
        """One example for each meeting that something can be learnt of, in their order: who met it without a search has
        no list, and a day in which no behaviour leads to a query has no interests."""
        asked = [one for one in met if one.labels]
        told = [one.person.told(self.phrases, self.config.behaviours, self.profile(one.person)) for one in asked]
        ranked, written = self._ranked(asked), self.generated(told)
        labels = [
            concatenated({**one.labelled(), "rank": best, "generated": own})
            for one, best, own in zip(asked, ranked, written, strict=True)
        ]
        self._learn(text for own in labels for text, _ in own)
        self._learn(text for one in told for text in one.contents)
        found = map(self._example, asked, told, labels)
        return [one for one in found if one.interests or one.form == DIRECT or one.part == "test"]

    def _example(self, met: Met, told: Behaviours, labels: Sequence[tuple[str, str]]) -> Example:
        near = self._cosines([text for text, _ in labels], told.contents)
        stay = fitting(labels, near.max(axis=1, initial=-1.0) if near.shape[1] else _unknown(near), self.config.labels)
        queries = [labels[place][0] for place in stay]
        interests: tuple[Interest, ...] = ()
        if met.form == THINK:
            among = self._cosines(told.contents, told.contents)
            interests = tuple(interests_of(queries, near[stay], among, self.config.labels))
        sources = tuple(labels[place][1] for place in stay)
        reasons = self.teacher.reasons(told, interests)
        own = (met.person, told, met.form, met.request_id, met.day, met.part, met.labels)
        return Example(*own, tuple(queries), sources, interests, reasons)

    def _ranked(self, met: Sequence[Met]) -> list[list[str]]:
        """The ranker's best of what counting says, and of the hints that were shown."""
        if self.ranker is None:
            return [[] for _ in met]
        pools = [filled_up(one.shown, self._counted(one.person), 10 * self.candidates) for one in met]
        found = list[list[str]]()
        for pool, chances in zip(pools, self.ranker.chances([one.person for one in met], pools), strict=True):
            order = np.argsort(-chances, kind="stable")[: self.ranked]
            found.append([pool[place] for place in order.tolist()])
        return found

    def _counted(self, person: Person) -> Iterable[Sequence[str]]:
        return self.counts.rows(person.items, person.searches, self.candidates).values()

    def _learn(self, texts: Iterable[str]) -> None:
        fresh = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if fresh:
            self._vectors.update(zip(fresh, self.encode(fresh), strict=True))

    def _cosines(self, one: Sequence[str], other: Sequence[str]) -> Floats:
        """[one, other]"""
        if not one or not other:
            return np.zeros((len(one), len(other)), dtype=np.float32)
        left, right = (np.stack([self._vectors[text] for text in own]) for own in (one, other))
        return np.asarray(left @ right.T, dtype=np.float32)


def _unknown(near: Floats) -> Floats:
    return np.full(len(near), np.nan, dtype=np.float32)


def searched(person: Person) -> list[tuple[str, str | None]]:
    """What they searched for, each with the first item that they acted on behind it and before the next search, that
    day; None: there is none."""
    found = list[tuple[str, str | None]]()
    rows = list(zip(person.days_ago, person.actions, person.contents, strict=True))
    for place, (day, action, query) in enumerate(rows):
        if action == SEARCH:
            following = rows[place + 1] if place + 1 < len(rows) else None
            led = following is not None and following[0] == day and following[1] in _AFTER_A_SEARCH
            found.append((query, following[2] if following is not None and led else None))
    return found
