"""The evaluation's values (`eval_values`), and what follows from them: metrics, pairs, bootstrap intervals by unit.

One row is one quantity of one sample of one model: `model, split, unit, sample, slices, name, value`. `unit` (a user, a
query, a session) is what the bootstrap draws, `sample` names an example within it, `slices` lists the slices that it is
in. A null value: the sample was submitted, and the model did not score it. A sample counts as submitted to every model
that has rows of the split as soon as one of them has a row for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from common.bootstrap import Interval, interval
from common.formulas import Floats, Formula
from infra.errors import DataError

SAMPLE = ["unit", "sample"]
_WORDS = ["model", "split", "name", *SAMPLE]
_COLUMNS = [*_WORDS, "slices", "value"]
_NOTHING = pa.table({name: pa.array([], pa.list_(pa.string()) if name == "slices" else None) for name in _COLUMNS})
_BETWEEN = "\x1f"  # the separator of units in ASCII: no name of a slice holds it
_AT_ONCE = 2**19


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: resamples, confidence level and seed."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 17


@dataclass(frozen=True)
class Measured:
    """One model under one formula: the samples submitted to it, their `slices`, their terms [samples, terms].

    `scored`: which of them the model scored.
    """

    formula: Formula
    samples: pd.MultiIndex
    slices: NDArray[np.object_]
    terms: Floats
    scored: NDArray[np.bool_]

    def __len__(self) -> int:
        """How many samples were submitted."""
        return len(self.samples)

    @property
    def units(self) -> int:
        """Of how many units."""
        return len(self.samples.unique("unit"))

    @property
    def value(self) -> float:
        """The metric over all samples submitted."""
        return float(self.formula.of(self.terms.sum(axis=0)))

    def at(self, places: NDArray[np.int_] | NDArray[np.bool_]) -> Measured:
        """Only the samples at these places."""
        return Measured(
            self.formula, self.samples[places], self.slices[places], self.terms[places], self.scored[places]
        )

    def within(self, name: str) -> Measured:
        """Only the samples of a slice; every sample is in `all`."""
        return self if name == "all" else self.at(np.array([name in names for names in self.slices], dtype=bool))


@dataclass(frozen=True)
class Pairs:
    """Two models on the samples that were submitted to both, in one order, and how many were submitted to one alone."""

    a: Measured
    b: Measured
    only_a: int
    only_b: int

    @property
    def shared(self) -> float:
        """Share of all samples that were submitted to both models."""
        total = len(self.a) + self.only_a + self.only_b
        return len(self.a) / total if total else 0.0

    def within(self, name: str) -> Pairs:
        """Only the shared samples that side a has in a slice."""
        chosen = np.array([name == "all" or name in names for names in self.a.slices], dtype=bool)
        return Pairs(self.a.at(chosen), self.b.at(chosen), self.only_a, self.only_b)


def read_values(files: Sequence[Path]) -> pd.DataFrame:
    """Read `eval_values` files; no files are no rows. Words and slices are categories: a large shop has many rows.

    Raises:
        DataError: a column is missing, a value is infinite, or a sample has two values for one name from one model.
    """
    where = ", ".join(str(file) for file in files)
    parts = [part for file in files for part in _parts(file)]
    table = pa.concat_tables(parts or [_compact(_NOTHING)]).unify_dictionaries().combine_chunks()
    frame = table.drop_columns("slices").to_pandas()
    joined = table["slices"].combine_chunks()
    slices = [tuple(each.split(_BETWEEN)) if each else () for each in joined.dictionary.to_pylist()]
    categories = pd.Index(slices, tupleize_cols=False)
    frame["slices"] = pd.Categorical.from_codes(joined.indices.to_numpy(), categories)
    if np.isinf(frame["value"]).any():
        raise DataError("A value is infinite.", where=where, why="A sample that was not scored has a null.")
    if twice := int(frame.duplicated(_WORDS).sum()):
        why = "A sample has one value for each name, model and split: another row would count it twice."
        raise DataError(f"{twice} samples have a second value under one name.", where=where, why=why)
    return frame[_COLUMNS]


def _parts(file: Path) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    missing = [name for name in _COLUMNS if name not in parquet.schema_arrow.names]
    if missing:
        raise DataError(f"The values lack the column {missing[0]!r}.", where=str(file), do="Evaluate the model again.")
    for batch in parquet.iter_batches(_AT_ONCE, columns=_COLUMNS):
        yield _compact(pa.Table.from_batches([batch]))


def _compact(rows: pa.Table) -> pa.Table:
    """Each word once, and each set of slices, joined to one word."""
    joined = pc.binary_join(rows["slices"].cast(pa.list_(pa.string())), _BETWEEN)
    words = {name: rows[name].cast(pa.string()) for name in _WORDS} | {"slices": joined}
    found = {name: column.dictionary_encode() for name, column in words.items()}
    return pa.table(found | {"value": rows["value"].cast(pa.float64())})


def models_of(values: pd.DataFrame, split: str) -> list[str]:
    """The models with rows of a split, by name."""
    return sorted(values.loc[values["split"] == split, "model"].unique())


def measures(values: pd.DataFrame, model: str, split: str, formula: Formula) -> bool:
    """Whether the model has a row of the split under a name that the formula needs."""
    return bool(((values["model"] == model) & (values["split"] == split) & values["name"].isin(formula.needs)).any())


def measure(values: pd.DataFrame, model: str, split: str, formula: Formula) -> Measured:
    """What the rows of one model and split say under a formula, over all samples that were submitted in that split.

    Raises:
        DataError: the model has no rows there, or none under the names that the formula needs.
    """
    rows = values[(values["split"] == split) & values["name"].isin(formula.needs)]
    own = rows[rows["model"] == model]
    if own.empty:
        held = sorted(values[["model", "split", "name"]].drop_duplicates().astype(str).agg(" / ".join, axis=1))
        raise DataError(
            f"The values hold no rows of model {model!r} in split {split!r} under {', '.join(formula.needs)}.",
            why=f"They hold (model / split / name): {', '.join(held)}.",
            do="Ask for what was measured, or have the evaluation measure it.",
        )
    first = rows.drop_duplicates(SAMPLE)
    samples = pd.MultiIndex.from_frame(first[SAMPLE].astype(object))
    place = samples.get_indexer(pd.MultiIndex.from_frame(own[SAMPLE].astype(object)))
    given = {name: np.full(len(samples), formula.absent) for name in formula.needs}
    of_name = own["name"].to_numpy()
    for name, column in given.items():
        chosen = of_name == name
        column[place[chosen]] = own["value"].to_numpy()[chosen]
    scored = np.zeros(len(samples), dtype=bool)
    scored[place] = True
    scored[place[own["value"].isna().to_numpy()]] = False
    slices = np.empty(len(samples), dtype=object)
    slices[:] = first["slices"].tolist()
    return Measured(formula, samples, slices, formula.terms(given), scored)


def pair(a: Measured, b: Measured) -> Pairs:
    """Match the samples of two models by unit and sample."""
    place = b.samples.get_indexer(a.samples)
    met = place >= 0
    return Pairs(a.at(met), b.at(place[met]), int((~met).sum()), len(b) - int(met.sum()))


def level(measured: Measured, bootstrap: Bootstrap) -> Interval:
    """The metric of one model with its interval."""
    return _interval([measured], bootstrap)


def difference(pairs: Pairs, bootstrap: Bootstrap) -> Interval:
    """The metric of model a minus that of model b on the shared samples, with its paired interval."""
    return _interval([pairs.a, pairs.b], bootstrap)


def _interval(sides: Sequence[Measured], by: Bootstrap) -> Interval:
    units, terms = sides[0].samples.get_level_values("unit"), [one.terms for one in sides]
    return interval(sides[0].formula, terms, units, seed=by.seed, resamples=by.resamples, level=by.confidence)
