"""How a judge is measured: pairs in the right order, and levels as the teacher has them, with intervals by user.

PointAcc is the share of cells (example, aspect) with the exact level. PairAUC is the share of pairs of examples with
different levels that the expected level puts in order, ties half (both INFERRED; the paper's formulas were not found).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.core.metrics import Interval, intervals
from training.semantic_judge.aspects import Levels
from training.semantic_judge.examples import Examples, Floats, Pairs

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """Of whole users."""

    seed: int
    resamples: int


def users_of(examples: Examples, rows: NDArray[np.int64]) -> list[str]:
    """The user of each example."""
    return [examples.cases.states.users[state] for state in examples.cases.state[rows].tolist()]


def right_order(scores: Floats, pairs: Pairs) -> Doubles:
    """1 where the preferred one of a pair has the higher score, 1/2 where both have the same, else 0: [pairs].

    NaN where one of the two was not scored.
    """
    difference = scores[pairs.preferred].astype(np.float64) - scores[pairs.other]
    return np.where(np.isnan(difference), np.nan, (np.sign(difference) + 1.0) / 2.0)


def accuracy(values: Doubles, users: Sequence[str], by: Bootstrap) -> Interval:
    """The mean of `values` [n], what was not scored as wrong: it stays in the denominator."""
    (found,) = intervals(np.nan_to_num(values)[:, None], users, seed=by.seed, resamples=by.resamples)
    return found


def pair_auc(scores: Floats, pairs: Pairs, users: Sequence[str], by: Bootstrap) -> Interval:
    """That a preferred item of any pair is scored above the other of any pair, ties half; unscored ones are lowest."""
    values = np.concatenate([scores[pairs.preferred], scores[pairs.other]]).astype(np.float64)
    values[np.isnan(values)] = -np.inf
    preferred = np.arange(len(values)) < len(pairs)
    number = {user: place for place, user in enumerate(dict.fromkeys(users))}
    owner = np.tile(np.array([number[user] for user in users], dtype=np.int64), 2)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    # Not by their difference: that of two infinities is none.
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(values) else np.empty(0, int)
    rng, drawn = np.random.default_rng(by.seed), []
    for _ in range(by.resamples):
        counts = np.bincount(rng.integers(len(number), size=len(number)), minlength=len(number))
        drawn.append(_auc(counts[owner].astype(float)[order], preferred[order], starts))
    value = _auc(np.ones(len(values)), preferred[order], starts)
    lo, hi = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(lo), float(hi), len(pairs))


def _auc(weights: Doubles, positive: NDArray[np.bool_], starts: NDArray[np.int64]) -> float:
    """Of weighted scores in rising order, of which those from each of `starts` on are equal."""
    above = np.add.reduceat(np.where(positive, weights, 0.0), starts)
    below = np.add.reduceat(np.where(positive, 0.0, weights), starts)
    pairs = above.sum() * below.sum()
    return float((above * (np.cumsum(below) - below / 2.0)).sum() / pairs) if pairs else 0.5


def level_auc(expected: Floats, levels: Levels) -> float:
    """PairAUC of one aspect: expected values [n] and known levels [n]; NaN where all levels are the same."""
    right, total = 0.0, 0.0
    found = np.unique(levels)
    for place, low in enumerate(found):
        for high in found[place + 1 :]:
            own = (levels == low) | (levels == high)
            order = np.argsort(expected[own], kind="stable")
            ordered = expected[own][order]
            starts = np.flatnonzero(np.concatenate([[True], np.diff(ordered) > 0]))
            pairs = float((levels == low).sum()) * float((levels == high).sum())
            right += pairs * _auc(np.ones(len(ordered)), levels[own][order] == high, starts)
            total += pairs
    return right / total if total else float("nan")


def calibration_error(chances: Floats, levels: Levels, bins: int = 10) -> float:
    """Expected calibration error of the likeliest level (Guo et al. 2017): [n, levels] and [n]."""
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == levels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    apart = np.bincount(place, weights=right.astype(float) - sure, minlength=bins)
    return float(np.abs(apart).sum() / max(len(levels), 1))
