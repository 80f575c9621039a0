"""What every row of the comparison can do: rank the catalogue for a history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Ranking = list[tuple[str, float]]
_HISTORIES_AT_ONCE = 512


class Recommender(Protocol):
    """Item ids with scores for each history, best first; the same call for baselines and generative models."""

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        *,
        users: Sequence[str] | None = None,
        rank_own: bool = True,
    ) -> list[Ranking]:
        """The first `k` items for each history (item ids, oldest first); fewer where the catalogue ends.

        `users` says whose histories they are. `rank_own` says whether the items of the history itself may be ranked.
        """


class Baseline(ABC):
    """A recommender that scores the whole catalogue. Equal scores rank by popularity, then by catalogue order."""

    def __init__(self, catalogue: Sequence[str], sequences: Sequence[Sequence[str]]) -> None:
        """`sequences`: the training part, one list of item ids per user, oldest first."""
        self.catalogue = list(catalogue)
        self._row = {item: row for row, item in enumerate(self.catalogue)}
        self.sequences = [self.rows(sequence) for sequence in sequences]
        self.popularity = np.bincount(
            [row for sequence in self.sequences for row in sequence], minlength=len(self.catalogue)
        ).astype(np.float32)

    @abstractmethod
    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """Scores of all items for histories given as catalogue rows: [histories, items]."""

    def rows(self, items: Sequence[str]) -> list[int]:
        """Places in the catalogue of the items that it has."""
        return [self._row[item] for item in items if item in self._row]

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        *,
        users: Sequence[str] | None = None,
        rank_own: bool = True,
    ) -> list[Ranking]:
        """See `Recommender.recommend`."""
        found: list[Ranking] = []
        for start in range(0, len(histories), _HISTORIES_AT_ONCE):
            rows = [self.rows(history) for history in histories[start : start + _HISTORIES_AT_ONCE]]
            scores = self.scores(rows)
            if not rank_own:
                for line, own in zip(scores, rows, strict=True):
                    line[own] = -np.inf
            found += [self._best(line, k) for line in scores]
        return found

    def _best(self, scores: Scores, k: int) -> Ranking:
        last = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
        rows = np.flatnonzero(scores >= last)  # sorting these alone takes a tenth of the time
        best = rows[np.lexsort((-self.popularity[rows], -scores[rows]))][:k]
        return [(self.catalogue[row], float(scores[row])) for row in best if scores[row] > -np.inf]
