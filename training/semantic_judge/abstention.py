"""From which distance of two scores on a judge's verdict counts, so that a bounded share of those that count is wrong.

A judge that must always decide is wrong as often as a coin on what it hardly tells apart. It abstains from pairs whose
scores are nearer than a gap. Gaps are tried on held-out pairs from one on that answers three tenths of them (of fewer
little can be said), by tenths; each by the upper end of its error (Clopper and Pearson 1934), and the first whose end
is above what is allowed ends it. Tests in a fixed order need no correction for how many they are (Learn then Test,
Angelopoulos et al. 2021, arXiv 2110.01052): of `confidence` of all such validation parts the error of what is answered
is at most `most_wrong`. That asks for pairs that are independent of each other and drawn as later ones are: one of each
user is taken.

SCOPE (arXiv 2602.13110) goes by the entropy of verdicts in both orders of a pair. A judge of one item at a time says
the same in both, so the distance of the scores stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from training.semantic_judge.examples import Floats, Ints, Pairs

Doubles = NDArray[np.float64]
_TENTHS = range(3, 11)


@dataclass(frozen=True)
class AbstentionConfig:
    """INFERRED: of the answered pairs at most the share `most_wrong` may be wrong, with `confidence`."""

    most_wrong: float = 0.4
    confidence: float = 0.9


@dataclass(frozen=True)
class Abstention:
    """The least distance that is answered (infinite: none is), how many validation pairs were, and the upper end of
    their error (NaN where none was)."""

    gap: float
    answered: int
    bound: float

    @classmethod
    def of(cls, distances: Doubles, config: AbstentionConfig) -> Self:
        """Of the scores of the preferred less those of the other [pairs]; a tie, and one that was not scored, is
        wrong."""
        found = cls(float("inf"), 0, float("nan"))
        widest_first = np.sort(np.abs(np.nan_to_num(distances)))[::-1]
        for tenths in _TENTHS:
            count = len(widest_first) * tenths // 10
            if count == 0:
                continue
            gap = float(widest_first[count - 1])
            answered, wrong = _outcome(distances, gap)
            bound = upper_end(wrong, answered, config.confidence)
            if bound > config.most_wrong:
                break
            found = cls(gap, answered, bound)
        return found

    def measured(self, distances: Doubles) -> dict[str, float]:
        """Coverage, and the error of what is answered, on other pairs."""
        answered, wrong = _outcome(distances, self.gap)
        return {"coverage": answered / len(distances), "error": wrong / answered if answered else float("nan")}


def upper_end(wrong: int, answered: int, confidence: float) -> float:
    """The exact one-sided upper end of a share of which `wrong` of `answered` were seen."""
    return 1.0 if wrong == answered else float(beta.ppf(confidence, wrong + 1, answered - wrong))


def one_each(pairs: Pairs, users: Sequence[str], seed: int) -> Pairs:
    """One pair of each user, drawn."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    _, first = np.unique(np.asarray(users)[order], return_index=True)
    return pairs.chosen(np.sort(order[first]))


def distances_of(scores: Floats, members: Ints, pairs: Pairs) -> Doubles:
    """Of what the `members` (rows, sorted) score: preferred less other [pairs]."""
    preferred, other = (np.searchsorted(members, rows) for rows in (pairs.preferred, pairs.other))
    return scores[preferred].astype(np.float64) - scores[other]


def _outcome(distances: Doubles, gap: float) -> tuple[int, int]:
    answered = np.abs(np.nan_to_num(distances)) >= gap
    return int(answered.sum()), int((~(distances[answered] > 0)).sum())
