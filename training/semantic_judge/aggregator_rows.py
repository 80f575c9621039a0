"""Aggregators side by side on the same held-out pairs: uniform weights, fitted ones, the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.core.metrics import intervals, paired_difference
from training.semantic_judge.contests import Contests, ordered, won
from training.semantic_judge.examples import Catalogue, Floats, States
from training.semantic_judge.importance import evenness
from training.semantic_judge.judge import Aggregator

UNIFORM, GLOBAL, PERSONAL, MODEL = "uniform", "global_vector", "user_regression", "language_model"
"""The rows: what must be beaten, one vector fitted on pairs, a regression on user features, and Part B itself."""
SURE = 0.9
"""The lower end of a two-sided interval of this level is the one-sided 95 % bound (as `core.gated_stage`)."""


@dataclass(frozen=True)
class Row:
    """`auc`: pairs ordered rightly, a tie counting a half; `accuracy`: strictly, as the reward counts. Both with 95 %
    intervals, as is `gain`, the AUC less that of uniform weights; `surely`: its one-sided 95 % lower bound.

    `evenness`: of the weights, 1 for uniform ones. All bootstrapped by user.
    """

    name: str
    pairs: int
    users: int
    auc: tuple[float, float, float]
    accuracy: tuple[float, float, float]
    gain: tuple[float, float, float]
    surely: float
    evenness: float


def compared(
    aggregators: Mapping[str, Aggregator], contests: Contests, states: States, catalogue: Catalogue, seed: int
) -> list[Row]:
    """A row for each aggregator, in their order; `UNIFORM` is one of them."""
    asked, places = np.unique(contests.state, return_inverse=True)
    own, users = states.chosen(asked), contests.of_users(states)
    weights = {name: one.weights(own, catalogue)[places] for name, one in aggregators.items()}
    base = ordered(weights[UNIFORM], contests.difference)
    return [_row(name, found, base, contests, users, seed) for name, found in weights.items()]


def _row(
    name: str, weights: Floats, base: NDArray[np.float64], contests: Contests, users: Sequence[str], seed: int
) -> Row:
    right = ordered(weights, contests.difference)
    both = np.column_stack([right, won(weights, contests.difference)])
    auc, accuracy = intervals(both, users, seed=seed)
    gain, sure = (
        paired_difference(right[:, None], base[:, None], users, seed=seed, level=level)[0] for level in (0.95, SURE)
    )
    told = {key: (one.value, one.lo, one.hi) for key, one in (("auc", auc), ("accuracy", accuracy), ("gain", gain))}
    even = float(evenness(weights).mean())
    return Row(name, pairs=len(contests), users=len(set(users)), surely=sure.lo, evenness=even, **told)
