"""The two parts of a judge, as whoever builds one meets them, and the score that they make together.

Part A scores a candidate by aspect (`Scorer`), Part B says how much each aspect counts for a user (`Aggregator`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.semantic_judge.aspects import Aspect
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.examples import Cases, Catalogue, Floats, States


class Scorer(Protocol):
    """Part A: what an item is to a user, by aspect."""

    @property
    def aspects(self) -> Sequence[Aspect]:
        """Those that it scores, in their order: K."""

    def chances(self, cases: Cases) -> list[Floats]:
        """How likely each level of each aspect is: K arrays [n, levels] whose rows add up to 1."""

    def over(self, evidence: Evidence) -> Scorer:
        """The same scorer on evidence over another catalogue."""


class Aggregator(Protocol):
    """Part B: what counts for a user. It is never shown an item to judge, so it cannot weigh by pair."""

    def weights(self, states: States, catalogue: Catalogue) -> Floats:
        """What each aspect counts for each user state, 0 or more and 1 in all: [states, K]."""


@dataclass(frozen=True)
class OneVector:
    """The same weights for everybody: `shares` [K], each 0 or more, 1 in all."""

    aspects: Sequence[Aspect]
    shares: tuple[float, ...]

    def weights(self, states: States, catalogue: Catalogue) -> Floats:
        """See `Aggregator.weights`."""
        return np.tile(np.array(self.shares, dtype=np.float32), (len(states), 1))


class Uniform:
    """Every aspect counts the same for everybody: what an aggregator starts from and must beat."""

    def __init__(self, aspects: Sequence[Aspect]) -> None:
        self.aspects = aspects

    def weights(self, states: States, catalogue: Catalogue) -> Floats:
        """See `Aggregator.weights`."""
        return np.full((len(states), len(self.aspects)), 1.0 / len(self.aspects), dtype=np.float32)
