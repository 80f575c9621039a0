"""Ranking metrics of one-truth samples, and what they are worth: bootstrap intervals by user, paired differences.

Everything starts from an array of ranks: the 1-based place of the truth in a model's list, `inf` where it is absent.
With one truth per sample Recall@k is the hit rate, and NDCG@k is 1 / log2(rank + 1) inside the first k
(Jarvelin and Kekalainen 2002, with an ideal gain of 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.bootstrap import resampled

Floats = NDArray[np.float64]

RECALL_AT = (1, 3, 5, 10)
NDCG_AT = (3, 5, 10)
METRICS = (*(f"recall@{k}" for k in RECALL_AT), *(f"ndcg@{k}" for k in NDCG_AT), "mrr")


@dataclass(frozen=True)
class Interval:
    """A mean with the percentile interval of its bootstrap; `n` counts samples, not users."""

    value: float
    lo: float
    hi: float
    n: int


def recall_at(ranks: Floats, k: int) -> Floats:
    """1 where the truth is among the first `k`, else 0; same shape as `ranks`."""
    return (ranks <= k).astype(np.float64)


def ndcg_at(ranks: Floats, k: int) -> Floats:
    """1 / log2(rank + 1) where the truth is among the first `k`, else 0; same shape as `ranks`."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocal_rank(ranks: Floats) -> Floats:
    """1 / rank, 0 for a truth that is absent; same shape as `ranks`."""
    return 1.0 / ranks


def gains(ranks: Floats) -> Floats:
    """Each sample's gain under each of `METRICS`: [samples] -> [samples, len(METRICS)]."""
    if ranks.size and not (ranks >= 1).all():
        raise ValueError("a rank is 1 or more, or inf for an absent truth")
    columns = [recall_at(ranks, k) for k in RECALL_AT] + [ndcg_at(ranks, k) for k in NDCG_AT]
    return np.stack([*columns, reciprocal_rank(ranks)], axis=1)


def rank_of(truth: str, ranked: Sequence[str]) -> float:
    """1-based place of `truth` in `ranked`, `inf` where it is absent."""
    return float(ranked.index(truth) + 1) if truth in ranked else float("inf")


def coverage(lists: Iterable[Sequence[str]], catalogue: int, k: int) -> float:
    """Share of a catalogue of `catalogue` items that stands among the first `k` of at least one list."""
    return len({item for ranked in lists for item in ranked[:k]}) / catalogue


def bootstrap(values: Floats, users: Sequence[str], *, seed: int, resamples: int = 1000) -> Floats:
    """Means of `values` over resamples of whole users; see `common.bootstrap`.

    Args:
        values: [samples, metrics]
        users: the user of each sample
    Returns: [resamples, metrics]
    """
    (drawn,) = resampled([np.column_stack([values, np.ones(len(values))])], users, seed=seed, resamples=resamples)
    return drawn[:, :-1] / drawn[:, -1:]


def intervals(
    values: Floats, users: Sequence[str], *, seed: int, resamples: int = 1000, level: float = 0.95
) -> list[Interval]:
    """One percentile interval per column of `values` [samples, metrics]; an empty list of samples gives NaN."""
    if len(values) == 0:
        return [Interval(float("nan"), float("nan"), float("nan"), 0)] * values.shape[1]
    tail = (1.0 - level) / 2.0
    lo, hi = np.quantile(bootstrap(values, users, seed=seed, resamples=resamples), [tail, 1.0 - tail], axis=0)
    means = values.mean(axis=0)
    return [
        Interval(float(mean), float(low), float(high), len(values))
        for mean, low, high in zip(means, lo, hi, strict=True)
    ]


def paired_difference(
    challenger: Floats,
    champion: Floats,
    users: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Interval]:
    """Intervals of mean(challenger - champion): both [samples, metrics], row by row the same samples."""
    if challenger.shape != champion.shape:
        raise ValueError(f"not the same samples: {challenger.shape} against {champion.shape}")
    return intervals(challenger - champion, users, seed=seed, resamples=resamples, level=level)
