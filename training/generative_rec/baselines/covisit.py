"""Items that stood near the user's last items in other users' sequences. Counting, no learning; a strong baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.generative_rec.baselines.base import Baseline, Scores

REACH = 3
LAST = 5


class CoVisit(Baseline):
    """score(i | h) = sum over the last 5 items h_p of log(1 + c(h_p, i)) / log2(2 + p), p = 0 for the newest.

    c(a, b) counts, both ways, how often a and b stand at most 3 places apart in a training sequence.
    """

    def __init__(self, catalogue: Sequence[str], sequences: Sequence[Sequence[str]]) -> None:
        super().__init__(catalogue, sequences)
        size = len(self.catalogue)
        keys, counts = np.unique(_pairs(self.sequences, size), return_counts=True)
        self._neighbour = keys % size
        self._weight = np.log1p(counts).astype(np.float32)
        self._start = np.searchsorted(keys // size, np.arange(size + 1))

    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """See `Baseline.scores`."""
        found = np.zeros((len(histories), len(self.catalogue)), dtype=np.float32)
        for line, history in zip(found, histories, strict=True):
            for place, item in enumerate(reversed(history[-LAST:])):
                near = slice(self._start[item], self._start[item + 1])
                line[self._neighbour[near]] += self._weight[near] / np.log2(2.0 + place)
        return found


def _pairs(sequences: Sequence[Sequence[int]], size: int) -> NDArray[np.int64]:
    """One key, a * size + b, for each pair at most `REACH` places apart, both ways."""
    pairs = [
        (a, b)
        for sequence in sequences
        for place, a in enumerate(sequence)
        for b in sequence[place + 1 : place + 1 + REACH]
    ]
    both = np.array([*pairs, *((b, a) for a, b in pairs)], dtype=np.int64).reshape(-1, 2)
    return both[:, 0] * size + both[:, 1]
