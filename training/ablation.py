"""`python -m training ablation --runs DIR DIR ... --out FILE`: the table of an evaluation over several seeds.

A run is the folder of a job (see `jobs`); all have the same stages and another seed. What a sample adds to a metric is
the mean over the runs, intervals are 95 % of a bootstrap over units, and each row stands beside its difference to the
row above, or to the one that `--beside` names, paired by sample. The metrics are those that the system's gate file
shows, by its formulas; without one, all that were measured, as means. The result is Markdown in `FILE`, and the same
figures as `FILE` with the ending .json.
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
import pyarrow.compute as pc

from common.bootstrap import interval
from common.config import read_yaml
from common.folders import make_folder
from common.formulas import Formula, Mean, parse_formula
from training.core.errors import DataError, exit_code_of
from training.core.files import write_json, write_text
from training.core.metrics import Floats, Interval
from training.core.tables import read_parquet

_ROOT = Path(__file__).parent
_GATES = _ROOT.parent / "mlflow" / "gates"
_VALUES = (
    "eval_values",
    {**dict.fromkeys(("model", "split", "unit", "sample", "name"), pa.string()), "value": pa.float64()},
)
_METRICS = (
    "model_metrics",
    {**dict.fromkeys(("model", "split", "metric", "slice", "origin", "reason"), pa.string()), "value": pa.float64()},
)
_DIFFERENCES = 2  # of how many metrics a row shows its difference to the row above
Samples = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shown:
    """What a table shows: `formulas` over values by sample, by metric, and other `figures` of an evaluation."""

    formulas: Mapping[str, Formula]
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One seed's evaluation of a split: terms [samples, terms] by model and metric, for the same `samples`.

    `scored`: the share of the samples that each model has scored. `figures`: what is no formula over samples, by model
    and metric. `choices`: what a row has chosen on validation.
    """

    seed: int
    shown: Shown
    samples: Samples
    terms: Mapping[str, Mapping[str, Floats]]
    scored: Mapping[str, float]
    figures: Mapping[tuple[str, str], float]
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
    """A row of the table. `by_seed`: its first metric in each run. `above`: itself minus the row above, or the one that
    all rows stand beside, by metric.

    `choice`: what it has chosen on validation, of each run that chose otherwise. `scored`: of its samples and runs.
    """

    model: str
    values: Mapping[str, Interval]
    figures: Mapping[str, float]
    by_seed: tuple[float, ...]
    above: Mapping[str, Interval]
    scored: float
    choice: str = ""


def shown_of(system: str, names: Sequence[str], gates: Path = _GATES) -> Shown:
    """What the gate file of a system shows, of the `names` that have values; all of these where it has no gate file."""
    for path in sorted(gates.glob("*.yaml")):
        gate = read_yaml(path)
        if gate["system"] == system:
            asked = list(dict.fromkeys([gate["headline"], *gate.get("show", ())]))
            known = {
                name: parse_formula(declared, f"{path}: metrics.{name}") for name, declared in gate["metrics"].items()
            }
            formulas = {name: known[name] for name in asked if name in known and set(known[name].needs) & set(names)}
            if formulas:
                return Shown(formulas, tuple(name for name in asked if name not in formulas))
    return Shown({name: Mean(name) for name in names})


def read_run(folder: Path, split: str, gates: Path = _GATES) -> Run:
    """The evaluation in the folder of a job. DataError where it is not done or has no row of this split."""
    out = folder / "evaluate"
    if not (out / "result.json").is_file():
        raise DataError("the run is not done", where=str(out), do="run its job again: it goes on where it stopped")
    values, lines = (_table(out, name, columns, split) for name, columns in (_VALUES, _METRICS))
    spec, names = json.loads((out / "spec.json").read_text()), values["name"].unique().to_pylist()
    shown = shown_of(spec["system"], names, gates)
    keys = list(zip(values["unit"].to_pylist(), values["sample"].to_pylist(), strict=True))
    samples: Samples = tuple(sorted(set(keys)))
    place = {sample: n for n, sample in enumerate(samples)}
    by_model: dict[str, dict[str, dict[int, float]]] = {}
    found = zip(keys, *(values[name].to_pylist() for name in ("model", "name", "value")), strict=True)
    for key, model, name, value in found:
        by_model.setdefault(model, {}).setdefault(name, {})[place[key]] = np.nan if value is None else value
    whole = [line for line in lines.to_pylist() if line["slice"] == "all"]
    return Run(
        spec["seed"],
        shown,
        samples,
        {
            model: {name: _terms(formula, given, len(samples)) for name, formula in shown.formulas.items()}
            for model, given in by_model.items()
        },
        {model: _scored(shown, given) / len(samples) for model, given in by_model.items()},
        {(line["model"], line["metric"]): line["value"] for line in whole},
        "/".join(sorted({line["origin"] for line in whole})),
        {line["model"]: line["reason"] for line in whole if line["metric"] == "choice"},
    )


def _terms(formula: Formula, given: Mapping[str, Mapping[int, float]], samples: int) -> Floats:
    columns = {name: np.full(samples, formula.absent) for name in formula.needs}
    for name, column in columns.items():
        for place, value in given.get(name, {}).items():
            column[place] = value
    return formula.terms(columns)


def _scored(shown: Shown, given: Mapping[str, Mapping[int, float]]) -> int:
    """How many samples have a row for the first metric, and no null."""
    rows = [given[name] for name in next(iter(shown.formulas.values())).needs if name in given]
    failed = {place for row in rows for place, value in row.items() if np.isnan(value)}
    return len({place for row in rows for place in row} - failed)


def _table(out: Path, name: str, columns: Mapping[str, pa.DataType], split: str) -> pa.Table:
    files = json.loads((out / "result.json").read_text())["tables"][name]
    rows = read_parquet(name, [out / file for file in files], columns)
    found = rows.filter(pc.equal(rows["split"], split))
    if not len(found):
        raise DataError(f"the run has no row of the split {split!r}", where=str(out), do="choose another --split")
    return found


def read_published(name: str, root: Path = _ROOT) -> list[Published]:
    """The rows of a data set in the systems' `published.yaml`; DataError that lists the known sets."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(root.glob("*/published.yaml")):
        found |= read_yaml(path)
    if name not in found:
        raise DataError(f"nothing published is known of {name!r}", do=f"choose one of: {', '.join(sorted(found))}")
    words = ("model", "source", "protocol")
    return [
        Published(row["model"], {key: row[key] for key in row if key not in words}, row["source"], row["protocol"])
        for row in found[name]
    ]


def compare(
    runs: Sequence[Run], rows: Sequence[str] = (), resamples: int = 2000, beside: str | None = None
) -> list[Line]:
    """These `rows` in their order, all in the order of the first run if none are named; `beside`: see `Line.above`.

    DataError where the runs did not measure the same, or not these rows.
    """
    first, shown = runs[0], runs[0].shown
    if unknown := {*rows, *([beside] if beside else [])} - set(first.terms):
        raise DataError(
            f"the runs have no row {min(unknown)!r}", where="--rows", do=f"choose from {', '.join(first.terms)}"
        )
    if len({run.seed for run in runs}) < len(runs):
        raise DataError(
            "two runs have the same seed",
            where=f"seeds {', '.join(str(run.seed) for run in runs)}",
            why="one evaluation would count twice",
            do="name each run once, and give each a seed of its own",
        )
    for run in runs[1:]:
        if (run.samples, list(run.terms)) != (first.samples, list(first.terms)):
            raise DataError(
                "the runs did not measure the same rows and samples",
                where=f"seeds {first.seed} and {run.seed}",
                do="compare runs of one job on one folder of samples",
            )
    units = [unit for unit, _ in first.samples]
    lines: list[Line] = []

    def means(model: str) -> tuple[dict[str, Floats], dict[str, Floats]]:
        stacked = {name: np.stack([run.terms[model][name] for run in runs]) for name in shown.formulas}
        return stacked, {name: terms.mean(axis=0) for name, terms in stacked.items()}

    before = means(beside)[1] if beside else {}
    for model in rows or first.terms:
        by_run, mean = means(model)
        other = {} if model == beside else before

        def measured(name: str, *terms: Floats) -> Interval:
            found = interval(shown.formulas[name], terms, units, seed=first.seed, resamples=resamples)
            return Interval(*found, len(units))

        headline = next(iter(shown.formulas))
        found = {
            name: [run.figures[model, name] for run in runs if (model, name) in run.figures] for name in shown.figures
        }
        lines.append(
            Line(
                model,
                {name: measured(name, terms) for name, terms in mean.items()},
                {name: float(np.mean(figures)) for name, figures in found.items() if figures},
                tuple(shown.formulas[headline].of(by_run[headline].sum(axis=1)).tolist()),
                {name: measured(name, mean[name], terms) for name, terms in other.items()},
                float(np.mean([run.scored[model] for run in runs])),
                "; ".join(sorted({run.choices[model] for run in runs if model in run.choices})),
            )
        )
        before = before if beside else mean
    return lines


def markdown(runs: Sequence[Run], lines: Sequence[Line], split: str, beside: str | None = None) -> str:
    """The table as a page of its own."""
    first, shown = runs[0], runs[0].shown
    seeds, units = ", ".join(str(run.seed) for run in runs), len({unit for unit, _ in first.samples})
    figures = [name for name in shown.figures if name in lines[0].figures]
    compared = list(shown.formulas)[:_DIFFERENCES]
    head = ["model", *shown.formulas, *figures, f"{compared[0]} by seed"]
    head += [f"{name} minus {beside or 'the row above'}" for name in compared]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        name = f"{line.model} ({line.choice})" if line.choice else line.model
        cells = [name, *(_cell(line.values[name]) for name in shown.formulas)]
        cells += [f"{line.figures[name]:.4f}" for name in figures]
        cells.append(", ".join(f"{value:.4f}" for value in dict.fromkeys(line.by_seed)))
        rows.append(cells + [_cell(line.above[name], "+") if line.above else "" for name in compared])
    failed = [f"{line.model} scored {line.scored:.1%} of them" for line in lines if line.scored < 1.0]
    text = (
        f"Split `{split}`, data {first.origin}, {len(first.samples)} test samples of {units} units, seeds {seeds}"
        f"{''.join(f'; {words}, and those it did not count as failed' for words in failed)}."
        " A row is the mean of its seeds, intervals are 95 % of a bootstrap over units; differences are paired by"
        " sample.\n\n"
    )
    return text + _table_of(rows)


def published_markdown(rows: Sequence[Published]) -> str:
    """The table of published figures."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.values))
    head = ["model", *metrics, "source", "protocol"]
    cells = [head, ["---"] * len(head)]
    for row in rows:
        values = [f"{row.values[name]:.4f}" if name in row.values else "" for name in metrics]
        cells.append([row.model, *values, row.source, row.protocol])
    return "\nAs published, under other protocols, not like for like:\n\n" + _table_of(cells)


def _table_of(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4f} [{interval.lo:{sign}.4f}, {interval.hi:{sign}.4f}]"


def main(arguments: Sequence[str]) -> int:
    """Write the table; 65 where the runs cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m training ablation", description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of a job, one per seed")
    parser.add_argument("--split", default="time", choices=("time", "leave_one_out"))
    parser.add_argument("--rows", nargs="+", default=(), help="the rows in their order; all of them without it")
    parser.add_argument("--beside", metavar="ROW", help="the row that each one's difference is to; else the one above")
    parser.add_argument("--published", help="a data set of which papers report figures")
    parser.add_argument("--out", type=Path, required=True, help="a .md file")
    options = parser.parse_args(arguments)
    return exit_code_of(lambda: _write(options))


def _write(options: argparse.Namespace) -> None:
    runs = [read_run(folder, options.split) for folder in options.runs]
    lines = compare(runs, options.rows, beside=options.beside)
    published = published_markdown(read_published(options.published)) if options.published else ""
    make_folder(options.out.parent)
    write_text(options.out, markdown(runs, lines, options.split, options.beside) + published)
    write_json(options.out.with_suffix(".json"), {"seeds": [r.seed for r in runs], "rows": [asdict(x) for x in lines]})
    sys.stdout.write(f"{options.out}\n")
