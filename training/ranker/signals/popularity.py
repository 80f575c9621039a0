"""The same items for everyone: those that were taken most often, of late or ever."""

from __future__ import annotations

from typing import Self

import numpy as np

from training.ranker.signals.base import Arrays, Floats, Learnt, Lists, Mask, Pairs, Questions, Said, Stored


class Popularity(Stored):
    """score(i) = count of i in the last `days` of what is learnt from, or in all of it."""

    name = "popularity"

    def __init__(self, counts: Floats) -> None:
        self.counts = counts

    @classmethod
    def fit(cls, learnt: Learnt, days: int | None = None) -> Self:
        """Count the items; `days` back from the last one that there is."""
        if days is None:
            return cls(learnt.counts)
        empty = np.empty(0, dtype=np.int64)
        when, items = np.concatenate([empty, *learnt.days]), np.concatenate([empty, *learnt.sequences])
        late = items[when > when.max(initial=0) - days]
        return cls(np.bincount(late, minlength=learnt.catalogue).astype(np.float32))

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return len(self.counts)

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        return _SameForAll(self.counts, len(asked))

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        return {"counts": self.counts}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        return cls(arrays["counts"])


class _SameForAll(Said):
    """One list, whoever asks: `counts` [catalogue]."""

    def __init__(self, counts: Floats, questions: int) -> None:
        self.counts, self.questions = counts, questions

    def scores(self, pairs: Pairs) -> Floats:
        """See `Said.scores`."""
        return self.counts[pairs.items]

    def top(self, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Said.top`."""
        one, taken = Lists(), np.flatnonzero(self.counts)
        one.add(0, taken, self.counts[taken], n, allowed)
        pairs, scores = one.joined()
        questions = np.repeat(np.arange(self.questions), len(pairs))
        return Pairs(questions, np.tile(pairs.items, self.questions)), np.tile(scores, self.questions)

    def best(self) -> Floats:
        """See `Said.best`."""
        return np.full(self.questions, self.counts.max(initial=0.0), dtype=np.float32)
