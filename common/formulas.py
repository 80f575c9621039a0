"""Metrics as formulas over sums by unit: what one sample adds to the sums, and the metric of the summed terms.

The gate files declare them, and evaluations and the table over seeds compute by the same ones.

A sample that was submitted and not scored has NaN for its value. It stays in the denominator: by default it adds
nothing to a numerator (`failed` says what it counts as instead), and it is a miss of its class in macro-F1. So a system
that answers less often does not look better for it. `absent` is the value under a name that a sample has no row for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.config import parse_config
from common.errors import DataError

Floats = NDArray[np.float64]
Values = Mapping[str, Floats]


@dataclass(frozen=True)
class Mean:
    """`{mean: recall@10}`: the values of one name over the samples submitted; a sample without a value has failed."""

    mean: str
    failed: float | None = None
    absent: ClassVar[float] = np.nan

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of `eval_values` that it reads."""
        return (self.mean,)

    def terms(self, values: Values) -> Floats:
        """What each sample adds to the sums: names -> [samples], to [samples, 2]."""
        given = values[self.mean]
        return np.stack([np.nan_to_num(given, nan=self.failed or 0.0), np.ones(len(given))], axis=1)

    def of(self, sums: Floats) -> Floats:
        """The metric of sums: [..., 2] -> [...]."""
        return _share(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class Ratio:
    """`{sum: n_auc, over: n}`: one sum over another: GAUC = sum of n * auc over sum of n, or a rate by what was shown.

    `over` is what was submitted: it is to be there for a sample that failed too, with a null beside it under `sum`. A
    sample without either adds nothing; that one is for the gate on the share of scored samples.
    """

    sum: str
    over: str
    failed: float | None = None
    absent: ClassVar[float] = np.nan

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of `eval_values` that it reads."""
        return (self.sum, self.over)

    def terms(self, values: Values) -> Floats:
        """What each sample adds to the sums: names -> [samples], to [samples, 2]; `failed` is by unit of `over`."""
        above, below = values[self.sum], np.nan_to_num(values[self.over])
        return np.stack([np.where(np.isnan(above), (self.failed or 0.0) * below, above), below], axis=1)

    def of(self, sums: Floats) -> Floats:
        """The metric of sums: [..., 2] -> [...]."""
        return _share(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class MacroF1:
    """`{macro_f1: [exact, substitute]}`: the mean F1 of the classes, from `tp.<class>`, `fp.<class>`, `fn.<class>`.

    F1 = 2 tp / (2 tp + fp + fn). A sample has rows for what is not 0 alone. One that failed has a null under the `fn`
    of its true class: a miss. Classes that nobody named or predicted are left out of the mean (as scikit-learn does),
    in each resample anew: the metric is not linear in the sums, so it is computed on the resampled sums themselves.
    """

    macro_f1: tuple[str, ...]
    failed: ClassVar[float] = 1.0
    absent: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if len(self.macro_f1) < 2:
            raise DataError("macro_f1 is a mean over classes, and fewer than two are named", do="name each class")

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of `eval_values` that it reads."""
        return tuple(f"{kind}.{name}" for kind in ("tp", "fp", "fn") for name in self.macro_f1)

    def terms(self, values: Values) -> Floats:
        """What each sample adds to the sums: names -> [samples], to [samples, 3 * classes]; tp, then fp, then fn."""
        misses = {name: self.failed if name.startswith("fn.") else 0.0 for name in self.needs}
        return np.stack([np.nan_to_num(values[name], nan=missed) for name, missed in misses.items()], axis=1)

    def of(self, sums: Floats) -> Floats:
        """The metric of sums: [..., 3 * classes] -> [...]."""
        tp, fp, fn = np.split(sums, 3, axis=-1)
        whole = 2.0 * tp + fp + fn
        by_class = np.divide(2.0 * tp, whole, out=np.zeros_like(whole), where=whole > 0)
        return _share(by_class.sum(axis=-1), (whole > 0).sum(axis=-1).astype(float))


Formula = Mean | Ratio | MacroF1
_KINDS: dict[str, type[Formula]] = {"mean": Mean, "sum": Ratio, "macro_f1": MacroF1}


def parse_formula(declared: Mapping[str, Any], where: str = "formula") -> Formula:
    """`{mean: name}`, `{sum: name, over: name}` or `{macro_f1: [classes]}`. DataError for any other."""
    kinds = [kind for key, kind in _KINDS.items() if key in declared]
    if len(kinds) != 1:
        do = "say {mean: name}, {sum: name, over: name} or {macro_f1: [classes]}"
        raise DataError(f"{dict(declared)} is no formula", where=where, do=do)
    return parse_config(kinds[0], declared, where)


def _share(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    found: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
    return found
