"""A signal: what it is fitted on, what it is asked, and what it says.

Items are numbers, the rows of the catalogue. What a signal says of some questions is worked out once, and answers all
that is asked of it: scores of any items, the best items, how good the best is. No more than some questions times the
catalogue are looked at together, and signals that count look only at the items that stand near the history's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from training.core.ranking import rows_at_once

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[Any]]
_QUESTIONS_AT_ONCE = 512


@dataclass(frozen=True)
class Questions:
    """Histories, oldest item first, to rank the catalogue for. `pasts` is what is known of their users from before the
    histories begin, `users` who they are (both empty: nothing is known). `store_features`, by name: what the feature
    store says of the users as of the question, NaN where it is unknown: [questions] each; signals read over it."""

    histories: Sequence[Ints]
    pasts: Sequence[Ints] = ()
    users: Sequence[str | None] = ()
    store_features: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.histories)

    def parts(self, catalogue: int) -> Iterator[tuple[int, Questions]]:
        """Some at a time, so that a table of them and the whole catalogue fits; with the place of the first."""
        size = min(_QUESTIONS_AT_ONCE, rows_at_once(catalogue))
        for start in range(0, len(self), size):
            end = start + size
            told = {name: values[start:end] for name, values in self.store_features.items()}
            yield start, Questions(self.histories[start:end], self.pasts[start:end], self.users[start:end], told)

    def known(self) -> Iterator[Ints]:
        """All that is known of each user, oldest first: the past, and of the history what came after it.

        Where the history begins before the past ends, the past ends as the history begins: that is told once. The past
        names an item once a day, where a history may have it twice in a row: viewed, and bought.
        """
        pasts = self.pasts or [np.empty(0, dtype=np.int64)] * len(self)
        for past, history in zip(pasts, self.histories, strict=True):
            shared = _shared(past, history)
            if not shared and len(history):
                starts = np.flatnonzero(np.diff(history, prepend=-1))
                runs = _shared(past[np.flatnonzero(np.diff(past, prepend=-1))], history[starts])
                shared = int([*starts, len(history)][runs])
            yield np.concatenate([past, history[shared:]])

    def weighted(self, catalogue: int, last: int) -> sp.csr_array:
        """The last items of each history, [questions, catalogue]: 1 / log2(2 + p) for the p-th from the end.

        An item that stands there twice has the sum.
        """
        ends = [history[-last:][::-1] for history in self.histories]
        lengths = [len(end) for end in ends]
        place = np.concatenate([np.arange(n) for n in lengths]) if lengths else np.empty(0)
        values = (1.0 / np.log2(2.0 + place)).astype(np.float32)
        items = np.concatenate(ends) if ends else np.empty(0, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        found = sp.csr_array((values, items, starts), shape=(len(self), catalogue))
        found.sum_duplicates()
        return found


def _shared(past: Ints, history: Ints) -> int:
    """With how many items the past ends as the history begins, at most."""
    longest = min(len(past), len(history))
    return next((n for n in range(longest, 0, -1) if np.array_equal(past[-n:], history[:n])), 0)


@dataclass(frozen=True)
class Pairs:
    """Questions and items, pair by pair: both [pairs], questions in rising order."""

    questions: Ints
    items: Ints

    def __len__(self) -> int:
        return len(self.questions)

    def places(self, wanted: Pairs, catalogue: int) -> Ints:
        """Where each of the `wanted` pairs stands among these, whose items rise within a question; all are there."""
        return np.searchsorted(self.questions * catalogue + self.items, wanted.questions * catalogue + wanted.items)

    def within(self, start: int, end: int) -> slice:
        """The place of the pairs of the questions [start, end)."""
        first, last = np.searchsorted(self.questions, [start, end])
        return slice(int(first), int(last))

    def of(self, start: int, end: int) -> Pairs:
        """Those of the questions [start, end), which are counted from 0 again."""
        own = self.within(start, end)
        return Pairs(self.questions[own] - start, self.items[own])

    @classmethod
    def joined(cls, parts: Sequence[tuple[int, Pairs]]) -> Pairs:
        """Those of parts, each with the place of its first question."""
        empty = np.empty(0, dtype=np.int64)
        questions = [empty, *(pairs.questions + start for start, pairs in parts)]
        return cls(np.concatenate(questions), np.concatenate([empty, *(pairs.items for _, pairs in parts)]))


@dataclass(frozen=True)
class Learnt:
    """What a signal may learn from. `sequences`: one of items per user, oldest first, with the `days` since 1970 of its
    events. `texts`: of the items, None where there is none."""

    catalogue: int
    sequences: Sequence[Ints]
    days: Sequence[Ints]
    texts: Sequence[str | None] = ()
    seed: int = 0

    @property
    def counts(self) -> Floats:
        """How often each item was taken: [catalogue]."""
        events = np.concatenate([np.empty(0, dtype=np.int64), *self.sequences])
        return np.bincount(events, minlength=self.catalogue).astype(np.float32)


class Said(ABC):
    """What a signal says of some questions. An item that it knows nothing of has the score 0 and is in no list."""

    @abstractmethod
    def scores(self, pairs: Pairs) -> Floats:
        """The score of each pair: [pairs]."""

    @abstractmethod
    def top(self, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """The at most `n` best of the `allowed` items (None: all) of each question, best first, with their scores.

        Equal scores: the first of the catalogue.
        """

    @abstractmethod
    def best(self) -> Floats:
        """The score of the best item of the catalogue, 0 where nothing is said: [questions]."""


class Signal(ABC):
    """What it has learnt, and how it is asked. `logarithms`: its scores are logarithms of probabilities, not sizes of
    which one is a share of another. `recalls`: what its last item alone says is worth asking beside the history.
    `joins`: its items join those of the other signals, and move the places of none of them."""

    name: ClassVar[str]
    logarithms: ClassVar[bool] = False
    recalls: ClassVar[bool] = False
    joins: ClassVar[bool] = False

    @property
    @abstractmethod
    def catalogue(self) -> int:
        """How many items there are."""

    @abstractmethod
    def said(self, asked: Questions) -> Said:
        """What it says of so many questions as fit in a table of them and the catalogue (`Questions.parts`)."""

    def scores(self, asked: Questions, pairs: Pairs) -> Floats:
        """See `Said.scores`; of any number of questions."""
        found = [np.empty(0, dtype=np.float32)]
        for start, part in asked.parts(self.catalogue):
            found.append(self.said(part).scores(pairs.of(start, start + len(part))))
        return np.concatenate(found)

    def top(self, asked: Questions, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Said.top`; of any number of questions."""
        found = [(start, *self.said(part).top(n, allowed)) for start, part in asked.parts(self.catalogue)]
        pairs = Pairs.joined([(start, pairs) for start, pairs, _ in found])
        return pairs, np.concatenate([np.empty(0, dtype=np.float32), *(scores for _, _, scores in found)])


class Stored(Signal):
    """A signal that is a few arrays: what a bundle keeps."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that it has learnt."""

    @classmethod
    @abstractmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """The signal that has learnt this."""


class Table(Said):
    """Scores above 0 of few items: [questions, catalogue], sparse."""

    def __init__(self, table: sp.csr_array) -> None:
        self.table = table
        table.sum_duplicates()  # in rising order of the items, to be looked up

    def scores(self, pairs: Pairs) -> Floats:
        """See `Said.scores`."""
        found: Floats = self.table[pairs.questions, pairs.items]
        return found

    def top(self, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Said.top`."""
        lists, table = Lists(), self.table
        for row in range(table.shape[0]):
            own = slice(table.indptr[row], table.indptr[row + 1])
            lists.add(row, table.indices[own], table.data[own], n, allowed)
        return lists.joined()

    def best(self) -> Floats:
        """See `Said.best`."""
        found: Floats = self.table.max(axis=1).toarray().ravel()
        return found


class Lists:
    """Collects the best items of one question after the other."""

    def __init__(self) -> None:
        self._questions: list[Ints] = []
        self._items: list[Ints] = []
        self._scores: list[Floats] = []

    def add(self, question: int, items: NDArray[np.integer], scores: Floats, n: int, allowed: Mask | None) -> None:
        """The `n` best of these items."""
        if allowed is not None:
            kept = allowed[items]
            items, scores = items[kept], scores[kept]
        if len(items) > n:
            # Sorting those alone that can be among the first takes a tenth of the time.
            kept = scores >= np.partition(scores, -n)[-n]
            items, scores = items[kept], scores[kept]
        order = np.lexsort((items, -scores))[:n]
        self._questions.append(np.full(len(order), question, dtype=np.int64))
        self._items.append(items[order].astype(np.int64))
        self._scores.append(scores[order])

    def joined(self) -> tuple[Pairs, Floats]:
        """All of them."""
        if not self._items:
            return Pairs(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)), np.empty(0, dtype=np.float32)
        return Pairs(np.concatenate(self._questions), np.concatenate(self._items)), np.concatenate(self._scores)


def listed(pairs: Pairs, scores: Floats, n: int) -> Ints:
    """The places of the `n` best pairs of each question, best first; equal scores: the first of the catalogue."""
    order = np.lexsort((pairs.items, -scores, pairs.questions))
    questions = pairs.questions[order]
    found: Ints = order[np.arange(len(order)) - np.searchsorted(questions, questions) < n]
    return found
