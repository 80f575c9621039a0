"""What every row of the comparison can do: rank the catalogue for a history."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.core.metrics import Floats, ndcg_at, rank_of
from training.core.ranking import rows_at_once
from training.next_item.recommender import ListRequest, Ranking, Recommender
from training.next_item.samples import NextItem

CHOSEN_BY = 10  # the k of the NDCG that chooses on validation
Scores = NDArray[np.float32]
_HISTORIES_AT_ONCE = 512


@dataclass(frozen=True)
class Known:
    """What a row may learn from: the training part, one list of item ids per user, oldest first.

    `pasts`: the same by user, without the days on which something of the user is held out: what may be known of a user
    who is asked about. `validation` is there to choose by, ranked as the row will be: `rank_own` as in
    `Recommender.recommend`.
    """

    catalogue: Sequence[str]
    sequences: Sequence[Sequence[str]]
    pasts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    validation: Sequence[NextItem] = ()
    rank_own: bool = True
    seed: int = 0


class Baseline(Recommender):
    """A recommender that scores the whole catalogue. Equal scores rank by popularity, then by catalogue order."""

    def __init__(self, known: Known) -> None:
        self.known, self.catalogue = known, list(known.catalogue)
        self._row = {item: row for row, item in enumerate(self.catalogue)}
        self.sequences = [self.rows(sequence) for sequence in known.sequences]
        self.popularity = np.bincount(
            [row for sequence in self.sequences for row in sequence], minlength=len(self.catalogue)
        ).astype(np.float32)

    @abstractmethod
    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """Scores of all items for histories given as catalogue rows: [histories, items]."""

    def rows(self, items: Sequence[str]) -> list[int]:
        """Places in the catalogue of the items that it has."""
        return [self._row[item] for item in items if item in self._row]

    def gains(self, asked: Sequence[NextItem]) -> Floats:
        """NDCG@10 of each sample: [samples]."""
        histories = list(dict.fromkeys(sample.history for sample in asked))
        ranked = self.recommend(histories, CHOSEN_BY, rank_own=self.known.rank_own)
        lists = {own: [item for item, _ in line] for own, line in zip(histories, ranked, strict=True)}
        return ndcg_at(np.array([rank_of(sample.item_id, lists[sample.history]) for sample in asked]), CHOSEN_BY)

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """See `Recommender.answer`."""
        outside = np.array([within is not None and item not in within for item in self.catalogue], dtype=bool)
        found: list[Ranking] = []
        size = min(_HISTORIES_AT_ONCE, rows_at_once(len(self.catalogue)))
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            scores = self.scores([self.rows(one.history) for one in part])
            for line, one in zip(scores, part, strict=True):
                line[outside] = -np.inf
                line[self.rows(tuple(one.left_out))] = -np.inf
                last = np.partition(line, -k)[-k] if k < len(line) else -np.inf
                rows = np.flatnonzero(line >= last)  # sorting these alone takes a tenth of the time
                best = rows[np.lexsort((-self.popularity[rows], -line[rows]))][:k]
                found.append([(self.catalogue[row], float(line[row])) for row in best if line[row] > -np.inf])
        return found
