"""The evaluation's ranks (`eval_ranks`), and what follows from them: metrics, pairs, bootstrap intervals per user.

One row is one test sample of one model: `model, user_id, as_of, item_id, rank, split`; `rank` is the 1-based place of
the truth in the model's list, null or infinite where it is absent. `slices` (optional) lists the slices it is in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.errors import DataError

Floats = NDArray[np.float64]
SAMPLE = ["user_id", "as_of", "item_id"]
_COLUMNS = ["model", "split", *SAMPLE, "rank"]
_METRIC = re.compile(r"(recall|ndcg)@(\d+)|mrr")
_RESAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class Interval:
    """A mean over samples and the percentile interval of its bootstrap."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: resamples, confidence level and seed."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 17


@dataclass(frozen=True)
class Pairs:
    """Two models on the same samples (`frame`: `user_id, slices, rank_a, rank_b`), and those without a partner."""

    frame: pd.DataFrame
    only_a: int
    only_b: int

    @property
    def shared(self) -> float:
        """Share of all samples that both models ranked."""
        total = len(self.frame) + self.only_a + self.only_b
        return len(self.frame) / total if total else 0.0


def read_ranks(files: Sequence[Path]) -> pd.DataFrame:
    """Read `eval_ranks` files; absent truths become rank infinity, samples without `slices` are in none.

    Raises:
        DataError: a column is missing, a rank is below 1, or a sample has two ranks from one model.
    """
    frame = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    where = ", ".join(str(file) for file in files)
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"The ranks lack the column {missing[0]!r}.", where=where, do="Evaluate the model again.")
    frame["slices"] = [tuple(names) for names in frame["slices"]] if "slices" in frame.columns else [()] * len(frame)
    frame["rank"] = frame["rank"].astype(float).fillna(np.inf)
    frame["as_of"] = pd.to_datetime(frame["as_of"], utc=True)
    if (frame["rank"] < 1).any():
        raise DataError("A rank is below 1.", where=where, why="Ranks start at 1; an absent truth is null.")
    return _one_rank_each(frame[[*_COLUMNS, "slices"]], where)


def _one_rank_each(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    # The same target twice on a day (looked at, then bought) is one question with one answer.
    distinct = frame.drop_duplicates(ignore_index=True)
    twice = distinct[distinct.duplicated(["model", "split", *SAMPLE])]
    if len(twice):
        raise DataError(f"{len(twice)} samples have two different ranks from one model.", where=where)
    return distinct


def of_model(ranks: pd.DataFrame, model: str, split: str) -> pd.DataFrame:
    """The rows of one model and split.

    Raises:
        DataError: there are none.
    """
    rows = ranks[(ranks["model"] == model) & (ranks["split"] == split)]
    if rows.empty:
        known = ", ".join(sorted(set(ranks["model"] + " / " + ranks["split"])))
        raise DataError(f"The ranks hold no rows of model {model!r} in split {split!r}.", why=f"They hold: {known}.")
    return rows


def in_slice(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows whose sample is in a slice; every sample is in `all`."""
    return rows if name == "all" else rows[[name in names for names in rows["slices"]]]


def pair(a: pd.DataFrame, b: pd.DataFrame) -> Pairs:
    """Match the samples of two models (rows as of `of_model`) by user, time and item."""
    both = a.merge(b[[*SAMPLE, "rank"]], on=SAMPLE, how="inner", suffixes=("_a", "_b"), validate="one_to_one")
    return Pairs(both, len(a) - len(both), len(b) - len(both))


def is_rank_metric(metric: str) -> bool:
    """Whether `gains` knows the metric: `recall@k`, `ndcg@k` or `mrr`."""
    return _METRIC.fullmatch(metric) is not None


def gains(metric: str, ranks: Floats) -> Floats:
    """Each sample's gain, same shape as `ranks`. One truth per sample, so recall@k is the hit rate and the ideal
    discounted gain is 1 (Jarvelin and Kekalainen 2002)."""
    match = _METRIC.fullmatch(metric)
    if match is None:
        raise DataError(f"Unknown rank metric {metric!r}.", do="Use recall@k, ndcg@k or mrr.")
    if match[1] is None:
        return 1.0 / ranks
    hit = ranks <= int(match[2])
    return hit.astype(float) if match[1] == "recall" else np.where(hit, 1.0 / np.log2(ranks + 1.0), 0.0)


def interval(values: Floats, users: Sequence[str], bootstrap: Bootstrap) -> Interval:
    """The mean of `values` [samples] and its interval over resamples of whole users.

    Samples of one user are not independent, so users are drawn with replacement, each with all samples (cluster
    bootstrap, Efron and Tibshirani 1993). Given differences of two models on the same samples this is the paired one.
    """
    _, group = np.unique(np.asarray(users, dtype=str), return_inverse=True)
    sums = np.stack([np.bincount(group, weights=values), np.bincount(group)], axis=1)
    count = len(sums)
    rng = np.random.default_rng(bootstrap.seed)
    means: list[Floats] = []
    for start in range(0, bootstrap.resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, bootstrap.resamples - start)
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=size) @ sums
        means.append(drawn[:, 0] / drawn[:, 1])
    tail = (1.0 - bootstrap.confidence) / 2.0
    lo, hi = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return Interval(float(values.mean()), float(lo), float(hi))


def difference(metric: str, pairs: Pairs, bootstrap: Bootstrap) -> Interval:
    """The mean gain of model a over model b on the shared samples, with its paired interval."""
    frame = pairs.frame
    gain = gains(metric, frame["rank_a"].to_numpy()) - gains(metric, frame["rank_b"].to_numpy())
    return interval(gain, frame["user_id"].tolist(), bootstrap)


def level(metric: str, rows: pd.DataFrame, bootstrap: Bootstrap) -> Interval:
    """A metric of one model with its interval."""
    return interval(gains(metric, rows["rank"].to_numpy()), rows["user_id"].tolist(), bootstrap)
