"""Two scorers in a row: a cheap one judges everything, a dear one what the first is least sure of.

Where the first scorer's levels are nearly certain a second opinion seldom differs (QUPID, arXiv 2505.07345). From how
much doubt on the second is asked is found once, on cases of its own, so what a case gets never depends on what else is
judged with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.core.errors import DataError
from training.semantic_judge.aspects import Aspect
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.examples import Cases, Floats
from training.semantic_judge.judge import Scorer


def doubt(chances: Sequence[Floats]) -> Floats:
    """How unsure a scorer is of each case: the mean over aspects of the entropy of its levels, over that of even ones.

    `chances`: K arrays [n, levels]. Returns [n], 0 to 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [-np.nansum(own * np.log(own), axis=1) / np.log(own.shape[1]) for own in chances]
    return np.asarray(np.mean(parts, axis=0), dtype=np.float32)


@dataclass(frozen=True)
class Routed:
    """The `second` scorer judges what the `first` doubts by `threshold` or more, the first all the rest."""

    first: Scorer
    second: Scorer
    threshold: float

    @classmethod
    def of(cls, first: Scorer, second: Scorer, cases: Cases, share: float) -> Routed:
        """The second is asked about the `share` of `cases` that the first doubts most. DataError for another share than
        from 0 to 1, for scorers of other aspects, and for no cases."""
        if not 0.0 <= share <= 1.0:
            raise DataError(f"a share of {share:g} of the pairs is routed", do="give a share from 0 to 1")
        if list(first.aspects) != list(second.aspects):
            raise DataError("the two scorers score other aspects", do="train both on the same labels")
        if not len(cases):
            raise DataError("there is no case to find the doubt on", do="give those of the validation part")
        return cls(first, second, threshold_of(doubt(first.chances(cases)), share))

    @property
    def aspects(self) -> Sequence[Aspect]:
        """See `Scorer`."""
        return self.first.aspects

    def chances(self, cases: Cases) -> list[Floats]:
        """See `Scorer`."""
        return self.judged(cases)[0]

    def over(self, evidence: Evidence) -> Routed:
        """See `Scorer`."""
        return replace(self, first=self.first.over(evidence), second=self.second.over(evidence))

    def judged(self, cases: Cases) -> tuple[list[Floats], NDArray[np.bool_]]:
        """The chances, and which cases [n] the second scorer has judged."""
        found = [own.copy() for own in self.first.chances(cases)]
        routed = doubt(found) >= self.threshold
        if routed.any():
            for own, better in zip(found, self.second.chances(cases.chosen(np.flatnonzero(routed))), strict=True):
                own[routed] = better
        return found, routed


def threshold_of(doubts: Floats, share: float) -> float:
    """From which doubt on the `share` of the cases with these `doubts` [n] lies; infinite for none of them.

    Of equal doubts all are in or none: fewer than the share, never more.
    """
    count = int(share * len(doubts))
    ordered = np.sort(doubts)[::-1]
    if count == len(doubts):
        return 0.0
    inside = ordered[:count][ordered[:count] > ordered[count]]
    return float(inside[-1]) if len(inside) else float("inf")
