"""Means of what a judge says of many rows, corrected by what it says of a few whose truth is known.

Prediction-powered inference (Angelopoulos et al. 2023, arXiv 2301.09633, equation 4): the mean of the judge over the
night plus the mean of truth minus judge over the gold cases; its variance is that of both. Rows of one user belong
together, so both variances are of users (Liang & Zeger 1986). It holds as far as the judge errs on the night's rows as
it does on the gold cases; what is truth there, `gold` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_NORMAL = 1.959963984540054  # 97.5 % of the standard normal


@dataclass(frozen=True)
class Residuals:
    """Mean of truth minus judge over `cases` gold cases, and the variance of that mean, by user."""

    mean: float
    variance: float
    cases: int

    @classmethod
    def of(cls, truth: Doubles, said: Doubles, users: NDArray[np.generic]) -> Self:
        """Of gold cases [n]; NaN where the truth is not known."""
        known = ~np.isnan(truth)
        apart = (truth - said)[known]
        return cls(float(apart.mean()) if len(apart) else np.nan, variance(apart, users[known]), len(apart))


@dataclass(frozen=True)
class PoweredMean:
    """Over all rows that were submitted: the `raw` mean, the `corrected` one, and the ends of its 95 % interval; the
    last three are NaN where fewer than two gold users tell of the judge's errors."""

    raw: float
    corrected: float
    lo: float
    hi: float

    @classmethod
    def of(cls, said: Doubles, users: NDArray[np.generic], least: float, residuals: Residuals) -> Self:
        """Of what was said of each submitted row [n], NaN where it failed.

        A failed row counts as the `least` that can be said, so a mean cannot rise by a failure; only what was said can
        be corrected, so the correction counts by the share of it.
        """
        failed = np.isnan(said)
        values = np.where(failed, least, said)
        share = 1.0 - float(failed.mean())
        raw = float(values.mean())
        corrected = raw + share * residuals.mean
        reach = _NORMAL * float(np.sqrt(variance(values, users) + share**2 * residuals.variance))
        return cls(raw, corrected, corrected - reach, corrected + reach)


def variance(values: Doubles, users: NDArray[np.generic]) -> float:
    """Of the mean of values [n] whose users [n] were drawn; NaN of fewer than two users."""
    _, owner = np.unique(users, return_inverse=True)
    groups = int(owner.max()) + 1 if len(owner) else 0
    if groups < 2:
        return float("nan")
    sums = np.bincount(owner, weights=values - values.mean())
    return float((sums**2).sum() / len(values) ** 2 * groups / (groups - 1))
