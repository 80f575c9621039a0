"""Metrics that are no mean over samples, as formulas over sums by unit, and their bootstrap intervals.

The same formulas, and the same meaning of a sample that was not scored, as the gate files have (`metrics` of
`mlflow/gates/<model>.yaml`): a test holds the two equal. A value is NaN where a sample was submitted and not scored;
`absent` is the value under a name that a sample has no row for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from training.core.config import parse_config
from training.core.metrics import Floats, Interval, resampled

Values = Mapping[str, Floats]


@dataclass(frozen=True)
class Mean:
    """The values of one name over the samples submitted; one that was not scored counts as `failed` (None: 0)."""

    mean: str
    failed: float | None = None
    absent: ClassVar[float] = np.nan

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that it reads."""
        return (self.mean,)

    def terms(self, values: Values) -> Floats:
        """names -> [samples], to [samples, 2]."""
        given = values[self.mean]
        return np.stack([np.nan_to_num(given, nan=self.failed or 0.0), np.ones(len(given))], axis=1)

    def of(self, sums: Floats) -> Floats:
        """[..., 2] -> [...]."""
        return _share(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class Ratio:
    """One sum over another: GAUC = sum of n * auc over sum of n. `over` is there for a sample that failed too."""

    sum: str
    over: str
    failed: float | None = None
    absent: ClassVar[float] = np.nan

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that it reads."""
        return (self.sum, self.over)

    def terms(self, values: Values) -> Floats:
        """names -> [samples], to [samples, 2]; `failed` is by unit of `over`."""
        above, below = values[self.sum], np.nan_to_num(values[self.over])
        return np.stack([np.where(np.isnan(above), (self.failed or 0.0) * below, above), below], axis=1)

    def of(self, sums: Floats) -> Floats:
        """[..., 2] -> [...]."""
        return _share(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class MacroF1:
    """The mean F1 = 2 tp / (2 tp + fp + fn) of the classes that were named or predicted, as in scikit-learn."""

    macro_f1: tuple[str, ...]
    absent: ClassVar[float] = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that it reads."""
        return tuple(f"{kind}.{name}" for kind in ("tp", "fp", "fn") for name in self.macro_f1)

    def terms(self, values: Values) -> Floats:
        """names -> [samples], to [samples, 3 * classes]; a sample that failed is a miss of its class."""
        columns = [np.nan_to_num(values[name], nan=float(name.startswith("fn."))) for name in self.needs]
        return np.stack(columns, axis=1)

    def of(self, sums: Floats) -> Floats:
        """[..., 3 * classes] -> [...]."""
        tp, fp, fn = np.split(sums, 3, axis=-1)
        whole = 2.0 * tp + fp + fn
        by_class = np.divide(2.0 * tp, whole, out=np.zeros_like(whole), where=whole > 0)
        return _share(by_class.sum(axis=-1), (whole > 0).sum(axis=-1).astype(float))


Formula = Mean | Ratio | MacroF1
_KINDS: dict[str, type[Formula]] = {"mean": Mean, "sum": Ratio, "macro_f1": MacroF1}


def parse_formula(declared: Mapping[str, Any], where: str) -> Formula:
    """`{mean: name}`, `{sum: name, over: name}` or `{macro_f1: [classes]}`. DataError for any other."""
    kind = next((kind for key, kind in _KINDS.items() if key in declared), Mean)
    return parse_config(kind, declared, where)


def formula_interval(
    formula: Formula, terms: Sequence[Floats], units: Sequence[str], *, seed: int, resamples: int = 1000
) -> Interval:
    """The metric of the first terms [samples, terms], minus that of the second where there are two, on one order of
    samples; 95 % of a bootstrap over units, the formula applied to each resample's sums."""

    def metric(sums: Sequence[Floats]) -> Floats:
        found = [formula.of(one) for one in sums]
        return found[0] - found[1] if len(found) > 1 else found[0]

    if not len(units):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    lo, hi = np.nanquantile(metric(resampled(terms, units, seed=seed, resamples=resamples)), [0.025, 0.975])
    return Interval(float(metric([one.sum(axis=0) for one in terms])), float(lo), float(hi), len(units))


def _share(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    found: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
    return found
