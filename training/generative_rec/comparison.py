"""From the lists of every row to the tables of a comparison: means with intervals by slice, ranks by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from training.core.metrics import METRICS, Floats, Interval, coverage, gains, intervals, paired_difference
from training.generative_rec.baselines.base import Choice
from training.generative_rec.samples import NextItem, Protocol

HISTORY_BUCKETS = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6+": (6, 10**9)}
COVERAGE_AT = 10
COMPARED = "ndcg@10"
RANKS_SCHEMA = pa.schema(
    {
        "model": pa.string(),
        "user_id": pa.string(),
        "as_of": pa.date32(),
        "item_id": pa.string(),
        "rank": pa.int32(),
        "split": pa.string(),
        "slices": pa.list_(pa.string()),
    }
)
_METRICS_SCHEMA = {
    "model": pa.string(),
    "metric": pa.string(),
    "slice": pa.string(),
    "value": pa.float64(),
    "lo": pa.float64(),
    "hi": pa.float64(),
    "n": pa.int64(),
    "reason": pa.string(),
}


@dataclass(frozen=True)
class Row:
    """One model's lists for the test samples, and the ranks of the truth in them (`inf`: absent).

    `choice`: what it has chosen on validation.
    """

    model: str
    lists: list[list[str]]
    ranks: Floats
    choice: Choice | None = None


@dataclass(frozen=True)
class Comparison:
    """Rows fitted on the same training part of a `split` and measured on the same `test` samples.

    `warm` are the items that training saw, `catalogue` counts all, `kinds` are the categories of those that have one.
    """

    split: Protocol
    rows: Sequence[Row]
    test: Sequence[NextItem]
    warm: frozenset[str]
    catalogue: int
    kinds: Mapping[str, str]
    seed: int
    resamples: int

    def lines(self) -> list[dict[str, Any]]:
        """One line per model, metric and slice, with its interval; coverage and kinds are counts and have none.

        `kinds@10` is the mean number of different categories among the first 10 of a list.
        The `reason` of `choice` says what the row has chosen on validation; its value is the NDCG@10 there.
        """
        users = np.array([sample.user_id for sample in self.test])
        values = np.concatenate([gains(row.ranks) for row in self.rows], axis=1)
        columns = [(row.model, metric) for row in self.rows for metric in METRICS]
        lines = []
        for name, chosen in slices(self.test, self.warm).items():
            found = intervals(values[chosen], users[chosen].tolist(), seed=self.seed, resamples=self.resamples)
            lines += [_line(*column, name, interval) for column, interval in zip(columns, found, strict=True)]
        for row in self.rows:
            lines += [self._count(row.model, name, value) for name, value in self._counts(row).items()]
            if row.choice:
                lines.append({**self._count(row.model, "choice", row.choice.ndcg), "reason": row.choice.words})
        return lines

    def _counts(self, row: Row) -> dict[str, float]:
        found = {f"coverage@{COVERAGE_AT}": coverage(row.lists, self.catalogue, COVERAGE_AT)}
        if self.kinds:
            found[f"kinds@{COVERAGE_AT}"] = float(np.mean([self._kinds_of(ranked) for ranked in row.lists]))
        return found

    def _count(self, model: str, name: str, value: float) -> dict[str, Any]:
        line = _line(model, name, "all", Interval(value, value, value, len(self.test)))
        return {**line, "lo": None, "hi": None}

    def _kinds_of(self, ranked: Sequence[str]) -> int:
        return len({self.kinds[item] for item in ranked[:COVERAGE_AT] if item in self.kinds})

    def differences(self) -> dict[str, float]:
        """Each row minus the one above, and the last row minus each other, paired, on NDCG@10.

        `sft.minus.covisit.ndcg@10`, with `.lo` and `.hi`.
        """
        users, column = [sample.user_id for sample in self.test], [METRICS.index(COMPARED)]
        steps = list(zip(self.rows[1:], self.rows[:-1], strict=True))
        pairs = [*steps, *((self.rows[-1], row) for row in self.rows[:-2])]
        found: dict[str, float] = {}
        for higher, lower in pairs:
            pair = paired_difference(
                gains(higher.ranks)[:, column],
                gains(lower.ranks)[:, column],
                users,
                seed=self.seed,
                resamples=self.resamples,
            )[0]
            name = f"{higher.model}.minus.{lower.model}.{COMPARED}"
            found |= {name: pair.value, f"{name}.lo": pair.lo, f"{name}.hi": pair.hi}
        return found

    def ranks_table(self) -> pa.Table:
        """One line per model and sample, with the slices it is in; a null rank is a truth that is not in the list."""
        flags = slices(self.test, self.warm)
        within = [[name for name, chosen in flags.items() if chosen[place]] for place in range(len(self.test))]
        asked = {name: [getattr(sample, name) for sample in self.test] for name in ("user_id", "as_of", "item_id")}
        asked |= {"split": [self.split] * len(self.test), "slices": within}
        return pa.concat_tables([self._ranks_of(row, asked) for row in self.rows])

    def _ranks_of(self, row: Row, asked: Mapping[str, Sequence[Any]]) -> pa.Table:
        found = np.isfinite(row.ranks)
        ranks = pa.array(np.where(found, row.ranks, 0).astype(np.int32), mask=~found)
        return (
            pa.table({**asked, "model": [row.model] * len(ranks), "rank": ranks})
            .select(RANKS_SCHEMA.names)
            .cast(RANKS_SCHEMA)
        )

    def metrics_table(self, lines: Sequence[Mapping[str, Any]], origin: str) -> pa.Table:
        """`lines`, with where they come from."""
        return metrics_table(lines, origin, self.split, max(sample.as_of for sample in self.test))


def metrics_table(lines: Sequence[Mapping[str, Any]], origin: str, split: str, as_of: date | None) -> pa.Table:
    """The table `model_metrics`; `as_of` is the day of the newest test sample, None where there is none."""
    table = pa.Table.from_pylist(list(lines), schema=pa.schema(_METRICS_SCHEMA))
    constants = (("origin", origin, pa.string()), ("split", split, pa.string()), ("as_of", as_of, pa.date32()))
    for name, value, kind in constants:
        table = table.append_column(name, pa.array([value] * len(table), kind))
    return table


def record_lines(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per figure of each rung's or left-out stage's record, and its `place` among them.

    `stands` is 1 where the rung's model went on; 0 for what was left out, with the `reason` beside it.
    """
    nothing = {"slice": "all", "lo": None, "hi": None, "n": None}
    return [
        {"model": stage, "metric": name, "value": float(value), **nothing}
        | {"reason": (record["reason"] or None) if name == "stands" else None}
        for place, (stage, record) in enumerate(records.items(), start=1)
        for name, value in {"place": place, **record}.items()
        if not isinstance(value, str)
    ]


def slices(test: Sequence[NextItem], warm: frozenset[str]) -> dict[str, list[bool]]:
    """Which samples belong to each slice: all, by length of the history, by whether training saw the item."""
    lengths = [len(sample.history) for sample in test]
    found = {"all": [True] * len(test)}
    found |= {f"history={name}": [lo <= n <= hi for n in lengths] for name, (lo, hi) in HISTORY_BUCKETS.items()}
    found["item=warm"] = [sample.item_id in warm for sample in test]
    found["item=cold"] = [sample.item_id not in warm for sample in test]
    return {name: flags for name, flags in found.items() if any(flags)}


def flat(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`sft.recall@10`, `sft.recall@10.lo`, `sft.recall@10.hi` for the slice of all samples."""
    found: dict[str, float] = {}
    for line in lines:
        if line["slice"] == "all":
            name = f"{line['model']}.{line['metric']}"
            ends = {name: line["value"], f"{name}.lo": line["lo"], f"{name}.hi": line["hi"]}
            found |= {key: value for key, value in ends.items() if value is not None}
    return found


def _line(model: str, metric: str, name: str, interval: Interval) -> dict[str, Any]:
    values = (model, metric, name, interval.value, interval.lo, interval.hi, interval.n, None)
    return dict(zip(_METRICS_SCHEMA, values, strict=True))
