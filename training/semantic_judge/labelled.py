"""Cases with their labels, as the language model learns and is measured by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.core.errors import LeftOut
from training.core.stage import StageSpec
from training.semantic_judge.aspects import UNKNOWN, Aspect, Levels
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.example_tables import read_pairs
from training.semantic_judge.examples import Cases, Ints, rows_to_learn
from training.semantic_judge.taught import Taught


@dataclass(frozen=True, eq=False)
class Labelled:
    """n `cases` with `levels` [n, K], of each of which some is known, and `reasons` [n]."""

    cases: Cases
    levels: Levels
    reasons: Sequence[str | None]
    aspects: Sequence[Aspect]
    evidence: Evidence

    def __len__(self) -> int:
        return len(self.cases)

    @classmethod
    def of(cls, taught: Taught, rows: Ints) -> Labelled:
        """Those of the rows of which some level is known. LeftOut where there is none."""
        own = rows[(taught.levels[rows] != UNKNOWN).any(axis=1)]
        reason = dict(zip(taught.asked.tolist(), taught.reasons, strict=True))
        found = [reason.get(row) for row in own.tolist()]
        return cls(
            taught.examples.cases.chosen(own), taught.levels[own], found, taught.aspects, taught.evidence
        )._refuse_nothing()

    def drawn(self, limit: int, seed: int) -> Labelled:
        """At most `limit` cases, by whole user states, as pairs are within one. LeftOut where none fits.

        States come in an order of their own for a seed, so a larger draw holds a smaller one.
        """
        states, sizes = np.unique(self.cases.state, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(states))
        own = np.flatnonzero(np.isin(self.cases.state, states[order[np.cumsum(sizes[order]) <= limit]]))
        reasons = [self.reasons[row] for row in own.tolist()]
        return replace(self, cases=self.cases.chosen(own), levels=self.levels[own], reasons=reasons)._refuse_nothing()

    def _refuse_nothing(self) -> Labelled:
        if not len(self):
            raise LeftOut(
                "there is no labelled example to learn or to measure by", do="teach more, or draw more of them"
            )
        return self


def read_labelled(spec: StageSpec, train: int, valid: int) -> tuple[Labelled, Labelled]:
    """So many examples to learn from and to measure by at most, of what the stage `teach` has labelled."""
    taught = Taught.load(spec)
    pairs = read_pairs(spec, taught.examples)
    limits = {"train": train, "valid": valid}
    learn, held = (
        Labelled.of(taught, rows_to_learn(taught.examples, pairs, part)).drawn(limit, spec.seed)
        for part, limit in limits.items()
    )
    return learn, held
