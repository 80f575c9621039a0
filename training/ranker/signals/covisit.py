"""Items that stood near the user's last items in other users' sequences. Counting, no learning; a strong signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp

from training.ranker.signals.base import Arrays, Ints, Learnt, Questions, Said, Stored, Table

Direction = Literal["forward", "backward", "both"]
LAST = 5


class CoVisit(Stored):
    """score(i | h) = sum over the last 5 items h_p of log(1 + c(h_p, i)) / log2(2 + p), p = 0 for the newest.

    c(a, b) counts how often b stands after a in a sequence (`forward`), before it (`backward`), or either (`both`), at
    most `reach` places apart.
    """

    name, recalls = "covisit", True

    def __init__(self, table: sp.csr_array) -> None:
        self.table = table

    @classmethod
    def fit(cls, learnt: Learnt, direction: Direction, reach: int) -> Self:
        """Count the pairs of every sequence."""
        before, after = _pairs(learnt.sequences, reach)
        if direction == "backward":
            before, after = after, before
        elif direction == "both":
            before, after = np.concatenate([before, after]), np.concatenate([after, before])
        keys, counts = np.unique(before * learnt.catalogue + after, return_counts=True)
        values = np.log1p(counts).astype(np.float32)
        shape = (learnt.catalogue, learnt.catalogue)
        return cls(sp.csr_array((values, (keys // learnt.catalogue, keys % learnt.catalogue)), shape=shape))

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return int(self.table.shape[0])

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        return Table(asked.weighted(self.catalogue, LAST) @ self.table)

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        return {"data": self.table.data, "indices": self.table.indices, "indptr": self.table.indptr}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        size = len(arrays["indptr"]) - 1
        return cls(sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(size, size)))


def _pairs(sequences: Sequence[Ints], reach: int) -> tuple[Ints, Ints]:
    """Each item and each that stands at most `reach` places behind it in its sequence."""
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    items = np.concatenate([np.empty(0, dtype=np.int64), *sequences])
    found = []
    for apart in range(1, reach + 1):
        same = owner[apart:] == owner[:-apart]
        found.append((items[:-apart][same], items[apart:][same]))
    before, after = zip(*found, strict=True)
    return np.concatenate(before), np.concatenate(after)
