"""What the user takes most: the own items by count. The rule of shops whose customers buy the same again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from training.generative_rec.baselines.base import Baseline, Scores
from training.next_item.recommender import ListRequest, Ranking


class PersonalFrequency(Baseline):
    """score(i | h) = how often h holds i, plus (1 + the last place of i in h) / (1 + |h|) where it does.

    The second term is below 1: recency decides between equal counts alone. All other items follow by popularity. A
    history is cut to its last items, so what training knows of the user's past stands before it; an item that both hold
    counts in both.
    """

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """See `Recommender.answer`."""
        pasts = self.known.pasts
        longer = [replace(one, history=(*pasts.get(one.user or "", ()), *one.history)) for one in asked]
        return super().answer(longer, k, within)

    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """See `Baseline.scores`."""
        found = np.zeros((len(histories), len(self.catalogue)), dtype=np.float32)
        for line, history in zip(found, histories, strict=True):
            np.add.at(line, list(history), 1.0)
            last = {item: place for place, item in enumerate(history)}
            line[list(last)] += (np.array(list(last.values()), dtype=np.float32) + 1.0) / (len(history) + 1.0)
        return found
