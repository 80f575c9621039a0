"""Logits as chances: log loss, and the sigmoid that has the lowest one on held-out days (Platt 1999)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Platt:
    """P = sigmoid(exp(`log_slope`) z + `shift`)."""

    log_slope: float = 0.0
    shift: float = 0.0

    @classmethod
    def of(cls, logits: Doubles, clicked: NDArray[np.bool_]) -> Self:
        """The one of the lowest log loss on these: both [n]."""
        from scipy.optimize import minimize

        def loss(given: Doubles) -> float:
            return log_loss(_sigmoid(math.exp(given[0]) * logits + given[1]), clicked)

        found = minimize(loss, np.zeros(2), method="Nelder-Mead", bounds=[(-4.0, 4.0), (-20.0, 20.0)])
        return cls(float(found.x[0]), float(found.x[1]))

    def __call__(self, logits: Doubles) -> Doubles:
        """[n] to [n]."""
        return _sigmoid(math.exp(self.log_slope) * logits + self.shift)


def log_loss(chances: Doubles, clicked: NDArray[np.bool_]) -> float:
    """Mean of -log P(what happened): both [n]."""
    sure = np.clip(np.where(clicked, chances, 1.0 - chances), 1e-12, 1.0)
    return float(-np.log(sure).mean())


def calibrated_loss(logits: Doubles, clicked: NDArray[np.bool_]) -> float:
    """The log loss of logits on the days on which they are calibrated, by which all is chosen: both [n]."""
    return log_loss(Platt.of(logits, clicked)(logits), clicked)


def _sigmoid(values: Doubles) -> Doubles:
    from scipy.special import expit

    return np.asarray(expit(values))
