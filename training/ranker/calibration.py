"""What a score is worth: a probability that rises with it, by isotonic regression (Zadrozny and Elkan 2002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.ranker.signals.base import Floats, Mask


@dataclass(frozen=True)
class Calibration:
    """The steps: probability `shares[n]` from score `edges[n]` on."""

    edges: Floats
    shares: Floats

    @classmethod
    def of(cls, scores: Floats, taken: Mask) -> Calibration:
        """The isotonic regression of what was taken on the scores: both [pairs]."""
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, taken)
        starts = np.concatenate([[True], np.diff(fitted.y_thresholds_) > 0])
        return cls(*(values[starts].astype(np.float32) for values in (fitted.X_thresholds_, fitted.y_thresholds_)))

    def __call__(self, scores: Floats) -> Floats:
        """The probability of each score: [pairs]."""
        return self.shares[np.clip(np.searchsorted(self.edges, scores, side="right") - 1, 0, None)]

    def facts(self) -> dict[str, Any]:
        """What `of_facts` reads, for JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Calibration:
        """Read it."""
        return cls(*(np.array(facts[name], dtype=np.float32) for name in ("edges", "shares")))
