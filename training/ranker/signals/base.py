"""A signal: what it is fitted on, what it is asked, and the two things that it answers.

Items are numbers, the rows of the catalogue. A signal never looks at more than some questions times the catalogue at
once, and those that count look only at the items that stand near the history's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    histories begin, `users` who they are (both empty: nothing is known)."""

    histories: Sequence[Ints]
    pasts: Sequence[Ints] = ()
    users: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.histories)

    def parts(self, catalogue: int) -> Iterator[tuple[int, Questions]]:
        """Some at a time, so that a table of them and the whole catalogue fits; with the place of the first."""
        size = min(_QUESTIONS_AT_ONCE, rows_at_once(catalogue))
        for start in range(0, len(self), size):
            end = start + size
            yield start, Questions(self.histories[start:end], self.pasts[start:end], self.users[start:end])

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


class Signal(ABC):
    """What it says of an item is `scores`; `top` are the items of which it says most, of those of which it says
    anything: an item that a signal knows nothing of has the score 0 and is in no list of its own."""

    @abstractmethod
    def scores(self, asked: Questions, pairs: Pairs) -> Floats:
        """The score of each pair: [pairs]."""

    @abstractmethod
    def top(self, asked: Questions, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """The at most `n` best of the `allowed` items (None: all) of each question, best first, with their scores.

        Equal scores: the first of the catalogue.
        """


class Stored(Signal):
    """A signal that is a few arrays: what a bundle keeps."""

    name: ClassVar[str]

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that it has learnt."""

    @classmethod
    @abstractmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """The signal that has learnt this."""


class Evidence(Stored):
    """A signal that says something of few items: `evidence` is a sparse table of the items of which it does."""

    @property
    @abstractmethod
    def catalogue(self) -> int:
        """How many items there are."""

    @abstractmethod
    def evidence(self, asked: Questions) -> sp.csr_array:
        """Scores above 0: [questions, catalogue]."""

    def scores(self, asked: Questions, pairs: Pairs) -> Floats:
        """See `Signal.scores`."""
        found = np.zeros(len(pairs), dtype=np.float32)
        for start, part in asked.parts(self.catalogue):
            own = pairs.within(start, start + len(part))
            table = self.evidence(part)
            found[own] = table[pairs.questions[own] - start, pairs.items[own]]
        return found

    def top(self, asked: Questions, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Signal.top`."""
        lists = Lists()
        for start, part in asked.parts(self.catalogue):
            table = self.evidence(part)
            for row in range(len(part)):
                own = slice(table.indptr[row], table.indptr[row + 1])
                lists.add(start + row, table.indices[own], table.data[own], n, allowed)
        return lists.joined()


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
