"""From the lists of every row to the tables of a comparison: means with intervals by slice, values by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.core.metrics import METRICS, Floats, Interval, coverage, gains, intervals, paired_difference
from training.next_item.recommender import Choice
from training.next_item.samples import NextItem, Split

HISTORY_BUCKETS = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6+": (6, 10**9)}
COVERAGE_AT = 10
COMPARED = "ndcg@10"
VALUES_SCHEMA = pa.schema(
    {
        "model": pa.string(),
        "split": pa.string(),
        "unit": pa.string(),
        "sample": pa.string(),
        "slices": pa.list_(pa.string()),
        "name": pa.string(),
        "value": pa.float64(),
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
    "scored": pa.int64(),
    "reason": pa.string(),
}


@dataclass(frozen=True)
class Row:
    """One model's lists for the test samples, and the ranks of the truth in them (`inf`: absent).

    A sample with an empty list was not scored: its truth has no rank, so it gains nothing and stays in every mean.
    `choice`: what the row has chosen on validation.
    """

    model: str
    lists: list[list[str]]
    ranks: Floats
    choice: Choice | None = None

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which samples have a list: [samples]."""
        return np.array([bool(ranked) for ranked in self.lists], dtype=bool)


@dataclass(frozen=True)
class Comparison:
    """Rows fitted on the same training part of a `split` and measured on the same `test` samples.

    `warm` are the items that training saw, `catalogue` counts all, `kinds` are the categories of those that have one.
    """

    split: Split
    rows: Sequence[Row]
    test: Sequence[NextItem]
    warm: frozenset[str]
    catalogue: int
    kinds: Mapping[str, str]
    seed: int
    resamples: int

    def lines(self) -> list[dict[str, Any]]:
        """One line per model, metric and slice, with its interval; coverage and kinds are counts and have none.

        `categories@10` is the mean number of different categories among the first 10 of a list.
        The `reason` of `choice` says what the row has chosen on validation; its value is the NDCG@10 there.
        """
        users = np.array([sample.user_id for sample in self.test])
        values = np.concatenate([gains(row.ranks) for row in self.rows], axis=1)
        columns = [(row.model, metric) for row in self.rows for metric in METRICS]
        lines = []
        for name, chosen in slices(self.test, self.warm).items():
            found = intervals(values[chosen], users[chosen].tolist(), seed=self.seed, resamples=self.resamples)
            scored = {row.model: int(row.scored[chosen].sum()) for row in self.rows}
            lines += [
                _line(*column, name, interval, scored[column[0]])
                for column, interval in zip(columns, found, strict=True)
            ]
        for row in self.rows:
            lines += [self._count(row, name, value) for name, value in self._counts(row).items()]
            if row.choice:
                lines.append({**self._count(row, "choice", row.choice.ndcg), "reason": row.choice.words})
        return lines

    def _counts(self, row: Row) -> dict[str, float]:
        found = {f"coverage@{COVERAGE_AT}": coverage(row.lists, self.catalogue, COVERAGE_AT)}
        if self.kinds:
            counts = [
                len({self.kinds[item] for item in ranked[:COVERAGE_AT] if item in self.kinds}) for ranked in row.lists
            ]
            found[f"categories@{COVERAGE_AT}"] = float(np.mean(counts))
        return found

    def _count(self, row: Row, name: str, value: float) -> dict[str, Any]:
        line = _line(row.model, name, "all", Interval(value, value, value, len(self.test)), int(row.scored.sum()))
        return {**line, "lo": None, "hi": None}

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

    def values_table(self, names: Sequence[str]) -> pa.Table:
        """One line per model, sample and name; the unit is the user. Null: the model has no list for the sample.

        Every sample is in the slice `all`, which is not written.
        """
        flags = {name: chosen for name, chosen in slices(self.test, self.warm).items() if name != "all"}
        asked = {
            "unit": [sample.user_id for sample in self.test],
            "sample": [f"{sample.as_of} {sample.item_id}" for sample in self.test],
            "slices": [[name for name, chosen in flags.items() if chosen[n]] for n in range(len(self.test))],
        }
        columns = {name: pa.array(column, VALUES_SCHEMA.field(name).type) for name, column in asked.items()}
        found = [VALUES_SCHEMA.empty_table()]
        for row in self.rows:
            gained = gains(row.ranks)
            for name in names:
                values = pa.array(gained[:, METRICS.index(name)], mask=~row.scored)
                words = {"model": row.model, "split": self.split, "name": name}
                alike = {word: pa.array([text] * len(values), pa.string()) for word, text in words.items()}
                found.append(pa.table({**columns, **alike, "value": values}).select(VALUES_SCHEMA.names))
        return pa.concat_tables(found)

    def metrics_table(self, lines: Sequence[Mapping[str, Any]], origin: str) -> pa.Table:
        """`lines`, with where they come from."""
        return metrics_table(lines, origin, self.split, max(sample.as_of for sample in self.test))


def metrics_table(lines: Sequence[Mapping[str, Any]], origin: str, split: str, as_of: date | None) -> pa.Table:
    """The table `model_metrics`; `as_of` is the day of the newest test sample."""
    table = pa.Table.from_pylist(list(lines), schema=pa.schema(_METRICS_SCHEMA))
    constants = (("origin", origin, pa.string()), ("split", split, pa.string()), ("as_of", as_of, pa.date32()))
    for name, value, kind in constants:
        table = table.append_column(name, pa.array([value] * len(table), kind))
    return table


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


def _line(model: str, metric: str, name: str, interval: Interval, scored: int) -> dict[str, Any]:
    values = (model, metric, name, interval.value, interval.lo, interval.hi, interval.n, scored, None)
    return dict(zip(_METRICS_SCHEMA, values, strict=True))
