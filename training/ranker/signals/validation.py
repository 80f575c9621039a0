"""Questions whose answers are known: what a shop chooses by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from training.core.metrics import Floats as Gains
from training.core.metrics import ndcg_at
from training.ranker.signals.base import Ints, Questions, Signal

AT = 10


@dataclass(frozen=True)
class Validation:
    """Questions whose answers are known, as rows of the catalogue. `rank_own`: may a history's own items be ranked."""

    asked: Questions
    truth: Ints
    rank_own: bool

    def first(self, limit: int) -> Validation:
        """At most `limit` of them, evenly spread."""
        step = max(1, -(-len(self.truth) // limit))
        asked = Questions(self.asked.histories[::step], self.asked.pasts[::step], self.asked.users[::step])
        return replace(self, asked=asked, truth=self.truth[::step])

    def ndcg(self, signal: Signal) -> float:
        """Mean NDCG@10 of the signal's own lists; 0 without a question."""
        return float(self.gains(signal).mean()) if len(self.truth) else 0.0

    def gains(self, signal: Signal) -> Gains:
        """NDCG@10 of each of the signal's own lists: [questions]."""
        longest = 0 if self.rank_own else max((len(history) for history in self.asked.histories), default=0)
        pairs, _ = signal.top(self.asked, AT + longest)
        ranks = np.full(len(self.truth), np.inf)
        starts = np.searchsorted(pairs.questions, np.arange(len(self.truth) + 1))
        for question, truth in enumerate(self.truth):
            items = pairs.items[starts[question] : starts[question + 1]]
            if not self.rank_own:
                items = items[~np.isin(items, self.asked.histories[question])]
            place = np.flatnonzero(items == truth)
            if len(place):
                ranks[question] = place[0] + 1
        return ndcg_at(ranks, AT)
