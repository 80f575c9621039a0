"""Holds the off-policy estimators against real clicks: the sample of the Open Bandit Dataset in the package `obp`.

    .venv/bin/python -m uv pip install --target FOLDER --no-deps obp==0.5.7
    .venv/bin/python scripts/open_bandit.py FOLDER/obp/dataset/obd

10,000 rows each of what a random policy and a Bernoulli Thompson sampler (bts) showed in three campaigns of one week
(Saito et al. 2021, CC BY 4.0). The click rate of each policy is estimated from the other's log and set beside its own.
A row is one item in one of three positions, logged with the chance of the item there: a list of length 1. Prints a
markdown table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from common.bootstrap import Interval, interval
from common.formulas import Mean
from infra.errors import DataError, exit_with_reason
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.logged_lists import LoggedLists
from spark_jobs.market.off_policy import Estimate, Estimates, estimate
from spark_jobs.market.reward_model import cross_fitted

CAMPAIGNS = ("all", "men", "women")
ESTIMATORS = ("ips", "snips", "dr", "dm")  # of one place; the others are the same there
POSITIONS = 3
MAX_WEIGHT = 100.0
SEED, RESAMPLES = 101, 2000
HEADER = (
    "campaign", "log of", "policy", "estimator", "clicks in 1,000 rows", "on-policy", "on-policy is",
    "effective rows", "mean weight", "clipped",
)  # fmt: skip
_USER = [f"user_feature_{number}" for number in range(4)]


@dataclass(frozen=True)
class Log:
    """Rows of one policy's log in one campaign, and the `items` [M] that it can show, by item_id from 0."""

    rows: pd.DataFrame
    items: pd.DataFrame

    @classmethod
    def read(cls, folder: Path, policy: str, campaign: str) -> Log:
        """Of the files as they are in the package."""
        there = folder / policy / campaign
        paths = [there / f"{campaign}.csv", there / "item_context.csv"]
        for path in paths:
            if not path.is_file():
                do = "name the folder obp/dataset/obd of the package obp 0.5.7"
                raise DataError("A file of the Open Bandit sample is missing.", where=str(path), do=do)
        rows, items = (pd.read_csv(path, index_col=0) for path in paths)
        return cls(rows, items.sort_values("item_id", ignore_index=True))

    @property
    def units(self) -> list[str]:
        """The log tells nobody apart: rows of people with the same four features are drawn together."""
        return ["/".join(row) for row in self.rows[_USER].astype(str).itertuples(index=False)]

    @property
    def clicks(self) -> Floats:
        """[rows]."""
        return self.rows.click.to_numpy(dtype=float)

    @property
    def items_shown(self) -> Ints:
        """[rows]."""
        return self.rows.item_id.to_numpy(dtype=np.int64)

    @property
    def positions(self) -> Ints:
        """[rows], from 0."""
        return self.rows.position.to_numpy(dtype=np.int64) - 1

    def halves(self) -> tuple[Log, Log]:
        """Of different units."""
        first, second = next(GroupKFold(2).split(self.rows, groups=self.units))
        return replace(self, rows=self.rows.iloc[first]), replace(self, rows=self.rows.iloc[second])

    def shares(self) -> Floats:
        """[POSITIONS, M]: how often each item stood in each position; of a sampler that learns, its mean chance."""
        counts = np.zeros((POSITIONS, len(self.items)))
        np.add.at(counts, (self.positions, self.items_shown), 1.0)
        return counts / counts.sum(axis=1, keepdims=True).clip(1.0)

    def click_rate(self) -> Interval:
        """What the policy earned itself."""
        metric = Mean("click")
        return interval(metric, [metric.terms({"click": self.clicks})], self.units, seed=SEED, resamples=RESAMPLES)

    def features(self, rows: Ints, items: Ints) -> Floats:
        """[..., features] of `items` shown in `rows`, both of one shape."""
        return np.stack(
            [
                self.positions[rows].astype(float),
                *(codes[items] for codes in self._item_codes),
                *(codes[rows] for codes in self._user_codes),
                self._affinities[rows, items],
            ],
            axis=-1,
        )

    @cached_property
    def _item_codes(self) -> list[Floats]:
        names = [f"item_feature_{number}" for number in range(1, 4)]
        return [self.items.item_feature_0.to_numpy(dtype=float), *(_codes(self.items[name]) for name in names)]

    @cached_property
    def _user_codes(self) -> list[Floats]:
        return [_codes(self.rows[name]) for name in _USER]

    @cached_property
    def _affinities(self) -> Floats:
        names = [f"user-item_affinity_{item}" for item in self.items.item_id]
        return self.rows[names].to_numpy(dtype=float)


def _codes(values: pd.Series) -> Floats:
    return np.asarray(pd.factorize(values, sort=True)[0], dtype=float)


def estimates(log: Log, chances: Floats) -> Estimates:
    """Click rate of the policy that gives an item `chances` [POSITIONS, M], by estimator."""
    count, own = len(log.rows), np.log(log.rows.propensity_score.to_numpy(dtype=float))[:, None]
    with np.errstate(divide="ignore"):
        new = np.log(chances[log.positions, log.items_shown])[:, None]
    shown = np.ones((count, 1), dtype=bool)
    logged = LoggedLists(log.units, shown, own, own[:, 0], new, log.clicks[:, None])

    def candidates(_: int, rows: Ints) -> tuple[Floats, Floats]:
        grid = np.broadcast_to(rows[:, None], (len(rows), len(log.items)))
        every = np.broadcast_to(np.arange(len(log.items)), grid.shape)
        return log.features(grid, every), chances[log.positions[rows]]

    features = log.features(np.arange(count), log.items_shown)[:, None, :]
    known = replace(logged, predictions=cross_fitted(logged, features, candidates))
    return estimate(known, max_weight=MAX_WEIGHT, seed=SEED, resamples=RESAMPLES)


def rows_of(folder: Path, campaign: str) -> Iterator[list[str]]:
    """Rows of the table: the sampler from the random log, then the random policy from the sampler's."""
    random, bts = (Log.read(folder, policy, campaign) for policy in ("random", "bts"))
    to_learn, to_judge = bts.halves()
    even = np.full((POSITIONS, len(random.items)), 1.0 / len(random.items))
    for names, log, chances, judge in (
        (("random", "bts"), random, to_learn.shares(), to_judge),
        (("bts", "random"), bts, even, random),
    ):
        truth, found = judge.click_rate(), estimates(log, chances)
        yield [campaign, *names, "none: the log's mean", *_beside(truth, found.logged), "", "", ""]
        for name in ESTIMATORS:
            one = found.estimates[name]
            yield [campaign, *names, name, *_beside(truth, one.value), *_support(one)]


def _beside(truth: Interval, found: Interval) -> list[str]:
    within = "inside" if found.lo <= truth.value <= found.hi else "outside"
    return [*(f"{1000 * one.value:.1f} [{1000 * one.lo:.1f}, {1000 * one.hi:.1f}]" for one in (found, truth)), within]


def _support(one: Estimate) -> list[str]:
    effective = f"{one.support.effective_lists:.0f}" + ("" if one.supported else ", not supported")
    return [effective, f"{one.support.mean_weight:.2f}", f"{one.support.clipped:.2%}"]


def main(folder: Path) -> int:
    """Print the table."""
    lines = [list(HEADER), ["---"] * len(HEADER)]
    for campaign in CAMPAIGNS:
        lines.extend(rows_of(folder, campaign))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/open_bandit.py FOLDER")
    exit_with_reason(lambda: main(Path(sys.argv[1])))
