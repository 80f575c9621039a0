"""Bootstrap intervals by unit, plain and paired, of any formula over sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from common.formulas import Floats

_RESAMPLES_AT_ONCE = 64


class OfSums(Protocol):
    """A metric of summed terms, [..., terms] -> [...]: every `common.formulas.Formula` is one."""

    def of(self, sums: Floats) -> Floats:
        """The metric of each row of sums."""


class Interval(NamedTuple):
    """A metric and the percentile interval of its bootstrap."""

    value: float
    lo: float
    hi: float


def interval(
    formula: OfSums, terms: Sequence[Floats], units: Sequence[str], *, seed: int, resamples: int, level: float = 0.95
) -> Interval:
    """The metric of the first `terms` [samples, terms], minus that of the second where there are two, and its interval.

    Both sides are the same samples in one order and are drawn alike, which makes the interval of a difference the
    paired one. The formula is applied to each resample's sums: exact where it is not linear in them.
    """

    def metric(sums: Sequence[Floats]) -> Floats:
        found = [formula.of(one) for one in sums]
        return found[0] - found[1] if len(found) > 1 else found[0]

    tail = (1.0 - level) / 2.0
    drawn = metric(resampled(terms, units, seed=seed, resamples=resamples))
    lo, hi = np.nanquantile(drawn, [tail, 1.0 - tail])
    return Interval(float(metric([one.sum(axis=0) for one in terms])), float(lo), float(hi))


def resampled(terms: Sequence[Floats], units: Sequence[str], *, seed: int, resamples: int) -> list[Floats]:
    """Sums of each of `terms` [samples, columns] over resamples of whole units, drawn alike: [resamples, columns].

    Samples of one unit are not independent, so units are drawn with replacement, each with all of its samples
    (cluster bootstrap, Efron and Tibshirani 1993, chapter 8). The terms of a unit are summed once.
    """
    _, group = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    count = int(group.max()) + 1
    sums = [np.zeros((count, one.shape[1])) for one in terms]
    for whole, one in zip(sums, terms, strict=True):
        np.add.at(whole, group, one)
    rng, found = np.random.default_rng(seed), [list[Floats]() for _ in terms]
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        drawn = rng.integers(count, size=(size, count)) + np.arange(0, size * count, count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        for place, whole in enumerate(sums):
            found[place].append(times @ whole)
    return [np.concatenate(one) for one in found]
