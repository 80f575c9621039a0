"""A scorer's levels beside those of the labels, user by user, and whether it says anything at all.

PointAcc and PairAUC as in `measures`, in the form that a gate can compare by user: PairAUC here is of the pairs of one
user state alone (`pairs_in_order`), as a judge ranks the items of one user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.semantic_judge.aspects import UNKNOWN, Aspect, Levels, expected
from training.semantic_judge.examples import Floats, Ints

Doubles = NDArray[np.float64]


def likeliest(chances: Sequence[Floats]) -> Levels:
    """The likeliest level of each aspect: [n, K]."""
    return np.stack([own.argmax(axis=1) for own in chances], axis=1).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Marks:
    """Of each of S user states and K aspects how many cells are right, of how many that are known, and the same of
    pairs: all [S, K]."""

    right: Doubles
    cells: Doubles
    ordered: Doubles
    pairs: Doubles

    @classmethod
    def of(cls, chances: Sequence[Floats], labels: Levels, states: Ints, scored: Sequence[Aspect]) -> Marks:
        """`chances`: K arrays [n, levels]; `labels` [n, K]; `states` [n] says which examples are of one user state.

        The states come in the order of their numbers.
        """
        known, hits, values = labels != UNKNOWN, likeliest(chances) == labels, expected(chances, scored)
        order = np.argsort(states, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(states[order])) + 1) if len(order) else []
        rows = [
            (
                (hits[run] & known[run]).sum(axis=0),
                known[run].sum(axis=0),
                *_pairs(values[run], labels[run], known[run]),
            )
            for run in runs
        ]
        columns = zip(*rows, strict=True) if rows else [()] * 4
        return cls(*(np.array(column, dtype=np.float64).reshape(len(runs), len(scored)) for column in columns))

    def gains(self) -> Doubles:
        """PointAcc and the share of pairs in order of each state: [S, 2], NaN where it has nothing of the kind."""
        with np.errstate(invalid="ignore"):
            columns = self.right.sum(axis=1) / self.cells.sum(axis=1), self.ordered.sum(axis=1) / self.pairs.sum(axis=1)
        return np.stack(columns, axis=1)

    def metrics(self, scored: Sequence[Aspect]) -> dict[str, float]:
        """`point_acc` and `pairs_in_order`, of all and by aspect; NaN where nothing is labelled."""
        found = {"point_acc": _share(self.right, self.cells), "pairs_in_order": _share(self.ordered, self.pairs)}
        for k, aspect in enumerate(scored):
            found[f"point_acc.{aspect.name}"] = _share(self.right[:, k], self.cells[:, k])
            found[f"pairs_in_order.{aspect.name}"] = _share(self.ordered[:, k], self.pairs[:, k])
        return found


def spread(chances: Sequence[Floats], scored: Sequence[Aspect]) -> dict[str, float]:
    """How far the expected values of an aspect lie apart (standard deviation), and the share of each likeliest level: a
    scorer that says the same of all shows here."""
    values, levels = expected(chances, scored), likeliest(chances)
    found = {f"spread.{aspect.name}": float(values[:, k].std()) for k, aspect in enumerate(scored)}
    for k, aspect in enumerate(scored):
        shares = np.bincount(levels[:, k], minlength=len(aspect.values)) / max(len(levels), 1)
        found |= {f"share.{aspect.name}.{place}": float(share) for place, share in enumerate(shares)}
    return found


def majority(labels: Levels, of: Levels) -> float:
    """PointAcc on `labels` [n, K] of who always says the commonest level of `of` [m, K]: what must be beaten."""
    commonest = [np.bincount(own[own != UNKNOWN], minlength=1).argmax() for own in of.T]
    known = labels != UNKNOWN
    return _share((labels == np.array(commonest)) & known, known)


def _pairs(values: Floats, labels: Levels, known: NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """Of one state how many pairs are ordered rightly, and how many there are, by aspect: [K] each."""
    higher = (labels[:, None] > labels[None]) & known[:, None] & known[None]
    apart = np.sign(values[:, None] - values[None])
    return (higher * (apart + 1) / 2).sum(axis=(0, 1)), higher.sum(axis=(0, 1)).astype(np.float64)


def _share(part: NDArray[np.generic], whole: NDArray[np.generic]) -> float:
    total = float(np.sum(whole))
    return float(np.sum(part)) / total if total else float("nan")
