"""Pairs as an aggregator meets them: of two items the difference of their aspect scores, and whose pair it is.

Part A has scored both beforehand and is frozen. A pair whose aspect scores are equal cannot be ordered by any weights;
it is dropped and counted. What the items are is not known here: an aggregator learns from differences alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.semantic_judge.aspects import Aspect, expected
from training.semantic_judge.examples import Cases, Floats, Ints, Pairs, States
from training.semantic_judge.importance import TIE
from training.semantic_judge.judge import Scorer, known


@dataclass(frozen=True, eq=False)
class Contests:
    """`difference` [n, K]: expected aspect scores of the preferred item less those of the other one.

    `state` [n] is a place in the user states of the examples, `source` [n] as in `Pairs`. `equal`: how many pairs of
    equal scores were dropped.
    """

    state: Ints
    difference: Floats
    source: NDArray[np.str_]
    equal: int

    def __len__(self) -> int:
        return len(self.state)

    @classmethod
    def of(cls, pairs: Pairs, cases: Cases, scorer: Scorer) -> Self:
        """Both members of each pair scored, every case once."""
        rows = np.unique(np.concatenate([pairs.preferred, pairs.other]))
        scores = np.zeros((0, len(scorer.aspects)), dtype=np.float32)
        if len(rows):
            scores = expected(scorer.chances(cases.chosen(rows)), scorer.aspects)
        of_cases = np.full((len(cases), len(scorer.aspects)), np.nan, dtype=np.float32)
        of_cases[rows] = scores
        return cls.by(pairs, cases, of_cases, scorer.aspects)

    @classmethod
    def by(cls, pairs: Pairs, cases: Cases, scores: Floats, scored: Sequence[Aspect]) -> Self:
        """From the aspect scores of the cases [cases, K]; by an aspect that is not `known` no two differ."""
        state = cases.state[pairs.preferred]
        there = known(cases.states, scored)[state]
        preferred, other = (np.where(there, scores[rows], np.float32(0)) for rows in (pairs.preferred, pairs.other))
        return cls.between(state, preferred, other, pairs.source)

    @classmethod
    def between(cls, state: Ints, preferred: Floats, other: Floats, source: NDArray[np.str_]) -> Self:
        """From the aspect scores [n, K] of both."""
        difference = (preferred.astype(np.float64) - other).astype(np.float32)
        told = (np.abs(difference) > TIE).any(axis=1)
        return cls(state[told], difference[told], source[told], int((~told).sum()))

    def chosen(self, rows: Ints | NDArray[np.bool_]) -> Contests:
        """Those at these places, or where it is true."""
        return replace(self, state=self.state[rows], difference=self.difference[rows], source=self.source[rows])

    def of_users(self, states: States) -> list[str]:
        """Whose each is."""
        return [states.users[state] for state in self.state.tolist()]

    def by_state(self) -> tuple[Ints, list[Floats]]:
        """The states that have a contest, ascending, and of each the differences [own, K]."""
        order = np.argsort(self.state, kind="stable")
        found, first = np.unique(self.state[order], return_index=True)
        return found, np.split(self.difference[order], first[1:]) if len(found) else []


def won(weights: Floats, differences: Floats) -> NDArray[np.bool_]:
    """r = 1[w.s(preferred) > w.s(other)], strictly: a tie earns nothing. Weights [..., K], differences [..., K]."""
    return np.asarray(_margins(weights, differences) > TIE)


def ordered(weights: Floats, differences: Floats) -> NDArray[np.float64]:
    """How well pairs are ordered by weights [n, K]: 1, 0, or for a tie a half, as PairAUC counts it: [n].

    Not the reward: uniform weights tie where scores lie on a grid, and others that guess there would seem better.
    """
    margins = _margins(weights, differences)
    return np.where(np.abs(margins) <= TIE, 0.5, margins > 0).astype(np.float64)


def _margins(weights: Floats, differences: Floats) -> NDArray[np.float64]:
    return np.asarray((weights.astype(np.float64) * differences).sum(axis=-1))


def by_users(users: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows belong to a `share` of the users, drawn by seed: [rows]. One at least, and never all of several."""
    names = sorted(set(users))
    count = min(max(1, round(share * len(names))), max(len(names) - 1, 0))
    drawn = set(np.random.default_rng(seed).permutation(names)[:count].tolist())
    return np.array([user in drawn for user in users], dtype=bool)
