"""The same items for everyone: those that were taken most often, of late or ever."""

from __future__ import annotations

from typing import Self

import numpy as np

from training.ranker.signals.base import Arrays, Floats, Learnt, Lists, Mask, Pairs, Questions, Stored


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

    def scores(self, asked: Questions, pairs: Pairs) -> Floats:
        """See `Signal.scores`."""
        return self.counts[pairs.items]

    def top(self, asked: Questions, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Signal.top`."""
        one, taken = Lists(), np.flatnonzero(self.counts)
        one.add(0, taken, self.counts[taken], n, allowed)
        pairs, scores = one.joined()
        questions = np.repeat(np.arange(len(asked)), len(pairs))
        return Pairs(questions, np.tile(pairs.items, len(asked))), np.tile(scores, len(asked))

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        return {"counts": self.counts}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        return cls(arrays["counts"])
