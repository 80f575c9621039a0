"""What this user takes again and again: the strongest rule of a shop whose customers come back for the same things."""

from __future__ import annotations

from typing import Self

import numpy as np
import scipy.sparse as sp

from training.ranker.signals.base import Arrays, Learnt, Questions, Said, Stored, Table


class Personal(Stored):
    """score(i | h) = sum over the user's events of i of 2^-(age / half_life), age in events of the user since then; so
    a habit that ends is forgotten.

    Without a half-life, 0, all events count alike, and (1 + the last place of i) / (1 + the number of events), which is
    at most 1, comes on top: recency decides between equal counts alone.
    """

    name = "personal"

    def __init__(self, catalogue: int, half_life: int = 0) -> None:
        self._catalogue, self.half_life = catalogue, half_life

    @classmethod
    def fit(cls, learnt: Learnt, half_life: int = 0) -> Self:
        """There is nothing to learn: what a user has taken stands in the question."""
        return cls(learnt.catalogue, half_life)

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return self._catalogue

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        rows, starts = [np.empty(0, dtype=np.int64)], [0]
        values = [np.empty(0, dtype=np.float32)]
        for known in asked.known():
            items, first_from_end, own = np.unique(known[::-1], return_index=True, return_inverse=True)
            ages = np.arange(len(known))
            shares = np.exp2(-ages / self.half_life) if self.half_life else np.ones(len(ages))
            weights = np.bincount(own, shares, minlength=len(items)).astype(np.float64)
            if not self.half_life:
                weights += (len(known) - first_from_end) / (1.0 + len(known))
            rows.append(items)
            values.append(weights.astype(np.float32))
            starts.append(starts[-1] + len(items))
        shape = (len(asked), self.catalogue)
        return Table(sp.csr_array((np.concatenate(values), np.concatenate(rows), starts), shape=shape))

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        return {"catalogue": np.array(self.catalogue), "half_life": np.array(self.half_life)}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        return cls(int(arrays["catalogue"]), int(arrays.get("half_life", 0)))
