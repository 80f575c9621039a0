"""What a judge said of items that people were shown, held against what these were worth to them.

A judge never meets the truth: `hand_out` gives what a shop knows, the judge's scores come back as a table
(`training.semantic_judge.shown`), and here they are held against `true_exposures`. In two ways: of pairs of which one
was clicked, as `judge_pairs` has them, how many are in order; and how the places of a list stand beside their utility.

A clicked item of a pair stood below the one that was passed over, always. So whatever is like the policy that made the
lists is wrong in these pairs more often than it is wrong of people: the row `list`, the order shown, is never right.
The second figure knows no such choice. The row `utility` is the truth itself: of pairs it is the ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from common.bootstrap import Interval, interval
from common.formulas import Mean
from infra.errors import DataError
from infra.lake import Lake
from spark_jobs.market.draws import Floats

KEY = ("request_id", "position", "user_id", "item_id")
UTILITY, LIST = "utility", "list"
_PLACE = ["request_id", "position"]
_MEAN = Mean("value")
_LEAST = 3  # places of a list of which an order can be told
_RESAMPLES = 1000


@dataclass(frozen=True)
class Held:
    """A row of scores: the share of `pairs` that it has in order, ties half, and the mean over requests of Spearman's
    rank correlation with utility; 95 % over people."""

    name: str
    pairs: Interval
    correlation: Interval


@dataclass(frozen=True)
class Judged:
    """All rows, and of how many pairs, requests and people they are."""

    rows: Sequence[Held]
    pairs: int
    requests: int
    people: int


def hand_out(lake: Lake, first: date, folder: Path) -> int:
    """Write what a shop knows of what it has shown since `first`; returns how many places that is."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = _read(lake, "exposures", [*KEY, "exposure_time"], first)
    known = _read(lake, "item_stats", ["item_id", "available_at", "mean_rating_365d", "events_365d"])
    for table, rows in (("exposures", shown), ("item_stats", known)):
        rows.to_parquet(folder / f"{table}.parquet", index=False)
    return len(shown)


def of_lake(lake: Lake, scores: pd.DataFrame, seed: int) -> Judged:
    """The scores of `training.semantic_judge.shown` beside the truth of the lake, on the pairs of the part for test."""
    truth = _read(lake, "true_exposures", [*_PLACE, UTILITY])
    pairs = _read(lake, "judge_pairs", ["request_id", "preferred_item_id", "other_item_id", "split_time", "source"])
    return held(scores, truth, pairs[(pairs["source"] == "exposure") & (pairs["split_time"] == "test")], seed)


def held(scores: pd.DataFrame, truth: pd.DataFrame, pairs: pd.DataFrame, seed: int) -> Judged:
    """Every row of `scores` (`KEY`, and a column for each row) beside `truth` (`request_id`, `position`, `utility`) and
    `pairs` (`request_id`, `preferred_item_id`, `other_item_id`).

    Raises:
        DataError: no place is scored, or no pair is of a list that is.
    """
    names = [column for column in scores if column not in KEY]
    places = scores.merge(truth, on=_PLACE).sort_values(_PLACE, ignore_index=True)
    places[LIST] = -places["position"].astype(np.float64)
    of_pairs = _members(places, pairs)
    lists = [np.asarray(own) for own in places.groupby("request_id").indices.values() if len(own) >= _LEAST]
    if not names or not lists or not len(of_pairs):
        raise DataError(
            "There is nothing to hold against the truth.",
            why=f"{len(names)} rows, {len(lists)} lists of at least {_LEAST} scored places and {len(of_pairs)} pairs.",
            do="Score what `market shown` has written, of days from which the judge has test pairs.",
        )
    readers = places["user_id"].to_numpy()[[own[0] for own in lists]]
    ranks = _ranks(places[UTILITY].to_numpy(), lists)
    rows = [
        Held(
            name,
            _mean(_in_order(of_pairs, name), of_pairs["user_id_x"], seed),
            _mean(_correlations(_ranks(places[name].to_numpy(), lists), ranks), readers, seed),
        )
        for name in (*names, LIST, UTILITY)
    ]
    return Judged(rows, len(of_pairs), len(lists), len(set(readers)))


def told(judged: Judged) -> list[str]:
    """Lines of a table for people (Markdown)."""
    lines = ["| row | pairs in order | rank correlation with utility |", "| --- | --- | --- |"]
    for row in judged.rows:
        cells = (f"{one.value:.3f} [{one.lo:.3f}, {one.hi:.3f}]" for one in (row.pairs, row.correlation))
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return lines


def _read(lake: Lake, table: str, columns: Sequence[str], since: date | None = None) -> pd.DataFrame:
    files = lake.files(table, first=since)
    if not files:
        raise DataError(f"Nothing of the table {table!r} is there.", do="Land and build it: this is a market's shop.")
    return pd.concat([pd.read_parquet(file.path, columns=list(columns)) for file in files], ignore_index=True)


def _members(places: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with all columns of both members, `_x` of the preferred one and `_y` of the other."""
    preferred = places.rename(columns={"item_id": "preferred_item_id"})
    other = places.rename(columns={"item_id": "other_item_id"})
    known = pairs[["request_id", "preferred_item_id", "other_item_id"]]
    return known.merge(preferred, on=["request_id", "preferred_item_id"]).merge(
        other, on=["request_id", "other_item_id"]
    )


def _in_order(pairs: pd.DataFrame, name: str) -> Floats:
    """1 where the preferred one has more, 1/2 where both have the same, else 0."""
    apart = pairs[f"{name}_x"].to_numpy(np.float64) - pairs[f"{name}_y"].to_numpy(np.float64)
    return np.asarray((np.sign(apart) + 1.0) / 2.0)


def _ranks(values: Floats, lists: Sequence[np.ndarray]) -> list[Floats]:
    return [rankdata(values[own]) - (len(own) + 1) / 2.0 for own in lists]


def _correlations(one: Sequence[Floats], other: Sequence[Floats]) -> Floats:
    """Spearman's, list by list; 0 where one side says the same of all: it tells nothing apart."""
    above = np.array([float(a @ b) for a, b in zip(one, other, strict=True)])
    below = np.sqrt([float(a @ a) * float(b @ b) for a, b in zip(one, other, strict=True)])
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0.0))


def _mean(values: Floats, people: Sequence[str], seed: int) -> Interval:
    terms = _MEAN.terms({_MEAN.mean: values})
    return interval(_MEAN, [terms], people, seed=seed, resamples=_RESAMPLES)
