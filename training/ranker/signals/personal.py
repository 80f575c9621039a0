"""What this user takes again and again: the strongest rule of a shop whose customers come back for the same things."""

from __future__ import annotations

from typing import Self

import numpy as np
import scipy.sparse as sp

from training.ranker.signals.base import Arrays, Learnt, Questions, Said, Stored, Table


class Personal(Stored):
    """score(i | h) = how often the user has taken i, plus (1 + the last place of i) / (1 + the length of what is known
    of the user), which is at most 1: recency decides between equal counts alone.
    """

    name = "personal"

    def __init__(self, catalogue: int) -> None:
        self._catalogue = catalogue

    @classmethod
    def fit(cls, learnt: Learnt) -> Self:
        """There is nothing to learn: what a user has taken stands in the question."""
        return cls(learnt.catalogue)

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return self._catalogue

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        pasts = asked.pasts or [np.empty(0, dtype=np.int64)] * len(asked)
        rows, starts = [np.empty(0, dtype=np.int64)], [0]
        values = [np.empty(0, dtype=np.float32)]
        for past, history in zip(pasts, asked.histories, strict=True):
            known = np.concatenate([past, history])
            items, first_from_end, counts = np.unique(known[::-1], return_index=True, return_counts=True)
            last = len(known) - 1 - first_from_end
            rows.append(items)
            values.append((counts + (1.0 + last) / (1.0 + len(known))).astype(np.float32))
            starts.append(starts[-1] + len(items))
        shape = (len(asked), self.catalogue)
        return Table(sp.csr_array((np.concatenate(values), np.concatenate(rows), starts), shape=shape))

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        return {"catalogue": np.array(self.catalogue)}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        return cls(int(arrays["catalogue"]))
