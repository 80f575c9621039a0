"""`python -m training ladder --runs DIR DIR ... --out FILE`: the table of an evaluation over several seeds.

A run is the folder of a job (see `jobs`); all have the same stages and another seed. A sample's gain is the mean of
its gains over the runs, intervals are 95 % of a bootstrap over users, and each row stands beside its difference to the
row above, paired by sample. The result is Markdown in `FILE`, and the same figures as `FILE` with the ending .json.
`--published` sets what papers report beside it, from a system's `published.yaml`, with how their protocols differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from training.core.errors import DataError, exit_code_of
from training.core.files import write_json, write_text
from training.core.metrics import METRICS, Floats, Interval, gains, intervals, paired_difference
from training.core.tables import read_parquet

_ROOT = Path(__file__).parent
SHOWN = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
COMPARED = ("recall@10", "ndcg@10")
COUNTS = ("coverage@10", "kinds@10")
_WORDS = ("model", "split")
_RANKS = (
    "eval_ranks",
    {**dict.fromkeys((*_WORDS, "user_id", "item_id"), pa.string()), "as_of": pa.date32(), "rank": pa.int32()},
)
_METRICS = (
    "model_metrics",
    {**dict.fromkeys((*_WORDS, "metric", "slice", "origin", "reason"), pa.string()), "value": pa.float64()},
)
Samples = tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Run:
    """One seed's evaluation of a split: the ranks of the truth by model, for the same `samples`, and the counts.

    `choices`: what a row has chosen on validation, by model.
    """

    seed: int
    samples: Samples
    ranks: Mapping[str, Floats]
    counts: Mapping[tuple[str, str], float]
    origin: str
    choices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What somebody reports of a model; `values` by metric, those that are known."""

    model: str
    values: Mapping[str, float]
    source: str
    protocol: str


@dataclass(frozen=True)
class Line:
    """A row of the table. `by_seed`: its NDCG@10 in each run. `above`: itself minus the row above, by metric.

    `choice`: what it has chosen on validation, of each run that chose otherwise.
    """

    model: str
    values: Mapping[str, Interval]
    counts: Mapping[str, float]
    by_seed: tuple[float, ...]
    above: Mapping[str, Interval]
    choice: str = ""


def read_run(folder: Path, split: str) -> Run:
    """The evaluation in the folder of a job. DataError where it is not done or has no row of this split."""
    out = folder / "evaluate"
    if not (out / "result.json").is_file():
        raise DataError("the run is not done", where=str(out), do="run its job again: it goes on where it stopped")
    ranks, lines = (_table(out, name, columns, split) for name, columns in (_RANKS, _METRICS))
    by_model: dict[str, dict[tuple[object, ...], float]] = {}
    for row in ranks:
        sample = (row["user_id"], row["as_of"], row["item_id"])
        by_model.setdefault(row["model"], {})[sample] = float("inf") if row["rank"] is None else float(row["rank"])
    samples = tuple(sorted(next(iter(by_model.values()))))
    counts = {
        (line["model"], line["metric"]): line["value"]
        for line in lines
        if line["slice"] == "all" and line["metric"] in COUNTS
    }
    columns = {model: np.array([found[sample] for sample in samples]) for model, found in by_model.items()}
    choices = {line["model"]: line["reason"] for line in lines if line["metric"] == "choice"}
    seed = json.loads((out / "spec.json").read_text())["seed"]
    return Run(seed, samples, columns, counts, "/".join(sorted({line["origin"] for line in lines})), choices)


def _table(out: Path, name: str, columns: Mapping[str, pa.DataType], split: str) -> list[dict[str, Any]]:
    files = json.loads((out / "result.json").read_text())["tables"][name]
    rows = read_parquet(name, [out / file for file in files], columns).to_pylist()
    found = [row for row in rows if row["split"] == split]
    if not found:
        raise DataError(f"the run has no row of the split {split!r}", where=str(out), do="choose another --split")
    return found


def read_published(name: str, root: Path = _ROOT) -> list[Published]:
    """The rows of a data set in the systems' `published.yaml`; DataError that lists the known sets."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(root.glob("*/published.yaml")):
        found |= yaml.safe_load(path.read_text())
    if name not in found:
        raise DataError(f"nothing published is known of {name!r}", do=f"choose one of: {', '.join(sorted(found))}")
    return [
        Published(row["model"], {key: row[key] for key in COMPARED if key in row}, row["source"], row["protocol"])
        for row in found[name]
    ]


def compare(runs: Sequence[Run], rows: Sequence[str] = (), resamples: int = 2000) -> list[Line]:
    """These `rows` in their order, all in the order of the first run if none are named.

    DataError where the runs did not measure the same, or not these rows.
    """
    first = runs[0]
    if unknown := set(rows) - set(first.ranks):
        raise DataError(
            f"the runs have no row {min(unknown)!r}", where="--rows", do=f"choose from {', '.join(first.ranks)}"
        )
    if len({run.seed for run in runs}) < len(runs):
        raise DataError(
            "two runs have the same seed",
            where=f"seeds {', '.join(str(run.seed) for run in runs)}",
            why="one evaluation would count twice",
            do="name each run once, and give each a seed of its own",
        )
    for run in runs[1:]:
        if (run.samples, list(run.ranks)) != (first.samples, list(first.ranks)):
            raise DataError(
                "the runs did not measure the same rows and samples",
                where=f"seeds {first.seed} and {run.seed}",
                do="compare runs of one job on one folder of samples",
            )
    users, drawn = [str(sample[0]) for sample in first.samples], {"seed": first.seed, "resamples": resamples}
    lines: list[Line] = []
    before: Floats | None = None
    for model in rows or first.ranks:
        by_run = np.stack([gains(run.ranks[model]) for run in runs])
        mean = by_run.mean(axis=0)
        values = dict(zip(METRICS, intervals(mean, users, **drawn), strict=True))
        pairs = [] if before is None else paired_difference(mean, before, users, **drawn)
        counts = {name: [run.counts[model, name] for run in runs if (model, name) in run.counts] for name in COUNTS}
        lines.append(
            Line(
                model,
                values,
                {name: float(np.mean(found)) for name, found in counts.items() if found},
                tuple(by_run[:, :, METRICS.index("ndcg@10")].mean(axis=1).tolist()),
                dict(zip(METRICS, pairs, strict=True)) if pairs else {},
                "; ".join(sorted({run.choices[model] for run in runs if model in run.choices})),
            )
        )
        before = mean
    return lines


def markdown(runs: Sequence[Run], lines: Sequence[Line], split: str) -> str:
    """The table as a page of its own."""
    first = runs[0]
    seeds, users = ", ".join(str(run.seed) for run in runs), len({sample[0] for sample in first.samples})
    head = ["model", *SHOWN, *(name for name in COUNTS if name in lines[0].counts), "NDCG@10 by seed"]
    head += [f"{name} minus the row above" for name in COMPARED]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        name = f"{line.model} ({line.choice})" if line.choice else line.model
        cells = [name, *(_cell(line.values[name]) for name in SHOWN)]
        cells += [f"{line.counts[name]:.4f}" for name in COUNTS if name in lines[0].counts]
        cells.append(", ".join(f"{value:.4f}" for value in dict.fromkeys(line.by_seed)))
        rows.append(cells + [_cell(line.above[name], "+") if line.above else "" for name in COMPARED])
    text = (
        f"Split `{split}`, data {first.origin}, {len(first.samples)} test samples of {users} users, seeds {seeds}."
        " A row is the mean of its seeds, intervals are 95 % of a bootstrap over users; differences are paired by"
        " sample.\n\n"
    )
    return text + _table_of(rows)


def published_markdown(rows: Sequence[Published]) -> str:
    """The table of published figures."""
    head = ["model", *COMPARED, "source", "protocol"]
    cells = [head, ["---"] * len(head)]
    for row in rows:
        values = [f"{row.values[name]:.4f}" if name in row.values else "" for name in COMPARED]
        cells.append([row.model, *values, row.source, row.protocol])
    return "\nAs published, under other protocols, not like for like:\n\n" + _table_of(cells)


def _table_of(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4f} [{interval.lo:{sign}.4f}, {interval.hi:{sign}.4f}]"


def main(arguments: Sequence[str]) -> int:
    """Write the table; 65 where the runs cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m training ladder", description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of a job, one per seed")
    parser.add_argument("--split", default="time", choices=("time", "leave_one_out"))
    parser.add_argument("--rows", nargs="+", default=(), help="the rows in their order; all of them without it")
    parser.add_argument("--published", help="a data set of which papers report figures")
    parser.add_argument("--out", type=Path, required=True, help="a .md file")
    options = parser.parse_args(arguments)
    return exit_code_of(lambda: _write(options))


def _write(options: argparse.Namespace) -> None:
    runs = [read_run(folder, options.split) for folder in options.runs]
    lines = compare(runs, options.rows)
    beside = published_markdown(read_published(options.published)) if options.published else ""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, markdown(runs, lines, options.split) + beside)
    write_json(options.out.with_suffix(".json"), {"seeds": [r.seed for r in runs], "rows": [asdict(x) for x in lines]})
    sys.stdout.write(f"{options.out}\n")
