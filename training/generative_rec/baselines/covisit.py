"""Items that stood near the user's last items in other users' sequences. Counting, no learning; a strong baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.core.metrics import paired_difference
from training.generative_rec.baselines.base import Baseline, Known, Scores
from training.next_item.recommender import Choice
from training.next_item.samples import NextItem

Direction = Literal["both", "forward", "backward"]
LAST = 5
_ASKED = 2000


@dataclass(frozen=True)
class Counting:
    """Which pairs of a training sequence count: what stands after an item, before it or either, `reach` places apart
    at most."""

    direction: Direction = "both"
    reach: int = 3

    def __str__(self) -> str:
        return f"{self.direction}, reach {self.reach}"


COUNTINGS = tuple(Counting(direction, reach) for reach, direction in product((3, 1, 5, 10), get_args(Direction)))


class CoVisit(Baseline):
    """score(i | h) = sum over the last 5 items h_p of log(1 + c(h_p, i)) / log2(2 + p), p = 0 for the newest.

    c(a, b) counts how often b stands near a in a training sequence. Which side of a, and how near, is a property of the
    data: of the `countings` the one with the best NDCG@10 on validation is taken, the first without validation.
    """

    def __init__(self, known: Known, countings: Sequence[Counting] = COUNTINGS) -> None:
        super().__init__(known)
        asked = asked_to_choose(known)
        self._count(countings[0])
        if asked and len(countings) > 1:
            quality: dict[Counting, float] = {}
            for one in countings:
                self._count(one)
                quality[one] = float(self.gains(asked).mean())
            best = max(countings, key=lambda one: quality[one])
            self._count(best)
            self.choice = Choice(str(best), quality[best])

    def _count(self, counting: Counting) -> None:
        size = len(self.catalogue)
        keys, counts = np.unique(_pairs(self.sequences, size, counting), return_counts=True)
        self._neighbour, self._weight = keys % size, np.log1p(counts).astype(np.float32)
        self._start = np.searchsorted(keys // size, np.arange(size + 1))

    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """See `Baseline.scores`."""
        found = np.zeros((len(histories), len(self.catalogue)), dtype=np.float32)
        for line, history in zip(found, histories, strict=True):
            for place, item in enumerate(reversed(history[-LAST:])):
                near = slice(self._start[item], self._start[item + 1])
                line[self._neighbour[near]] += self._weight[near] / np.log2(2.0 + place)
        return found


def asked_to_choose(known: Known) -> Sequence[NextItem]:
    """At most 2,000 of the validation samples, evenly spread over the users."""
    return known.validation[:: max(1, -(-len(known.validation) // _ASKED))]


def order_matters(known: Known) -> bool:
    """Whether counting forward only ranks the validation items surely better (one-sided 95 %) than both ways does."""
    asked = asked_to_choose(known)
    if not asked:
        return False
    ways = Counting("forward"), Counting("both")
    forward, both = (CoVisit(known, [one]).gains(asked)[:, None] for one in ways)
    users = [sample.user_id for sample in asked]
    return paired_difference(forward, both, users, seed=known.seed, level=0.9)[0].lo > 0.0


def _pairs(sequences: Sequence[Sequence[int]], size: int, counting: Counting) -> NDArray[np.int64]:
    """One key, a * size + b, for each pair of an item a and an item b that counts."""
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    keys = [np.empty(0, dtype=np.int64)]
    for apart in range(1, counting.reach + 1):
        same = owner[apart:] == owner[:-apart]
        first, second = items[:-apart][same], items[apart:][same]
        if counting.direction != "backward":
            keys.append(first * size + second)
        if counting.direction != "forward":
            keys.append(second * size + first)
    return np.concatenate(keys)
