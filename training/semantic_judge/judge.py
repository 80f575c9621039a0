"""The two parts of a judge, as whoever builds one meets them, and the score that they make together.

Part A scores a candidate by aspect (`Scorer`), Part B says how much each aspect counts for a user (`Aggregator`). Where
nothing is looked for, as at night, nobody knows how an item fits that: `known` says so, and `Scores` leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from training.semantic_judge.aspects import CONTEXT, Aspect, expected, overall
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


def known(states: States, scored: Sequence[Aspect]) -> NDArray[np.bool_]:
    """Which aspects there are to judge of each user state: [states, K], all but context where nothing is looked for."""
    sought = np.array([bool(context) for context in states.contexts], dtype=bool)
    return np.stack([sought | (aspect != CONTEXT) for aspect in scored], axis=1)


@dataclass(frozen=True, eq=False)
class Scores:
    """What a judge says of n cases: `aspects` [n, K] are expected values, `weights` [n, K] what each counts for the
    user, `score` [n] their product. An aspect that is not `known` is NaN and weighs 0; the others share its weight."""

    aspects: Floats
    weights: Floats
    score: Floats

    @classmethod
    def of(cls, chances: Sequence[Floats], scored: Sequence[Aspect], aggregator: Aggregator, cases: Cases) -> Self:
        """Of what Part A says of the cases (K arrays [n, levels]) and what Part B says of their users."""
        asked, place = np.unique(cases.state, return_inverse=True)  # chosen cases have the states of all
        states = cases.states.chosen(asked)
        there = known(states, scored)
        weights = _shared(aggregator.weights(states, cases.catalogue), there)[place]
        values = np.where(there[place], expected(chances, scored), np.float32(np.nan))
        return cls(values, weights, overall(values, weights))


def _shared(weights: Floats, there: NDArray[np.bool_]) -> Floats:
    """Weights [states, K] of which only those that are there count; a state with all of them keeps exactly its own.

    Where all weight lay on what is not known, what is known counts evenly.
    """
    kept = np.where(there, weights, np.float32(0))
    kept = np.where(kept.any(axis=1, keepdims=True), kept, there.astype(np.float32))
    return np.where(there.all(axis=1, keepdims=True), weights, kept / kept.sum(axis=1, keepdims=True))
