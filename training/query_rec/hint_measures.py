"""How chances of clicks are measured: order (AUC, GAUC), log loss, and whether they are what happens (ECE).

AUC: that a hint that was clicked has a higher chance than one that was not, ties half. GAUC: the mean of the users' own
AUC, each by the number of their hints; who clicked nothing or all has none (arXiv 1706.06978, section 6.2). ECE: the
mean gap between chance and share of clicks over bins of as many hints each (Naeini et al. 2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.bootstrap import interval
from common.formulas import Ratio
from training.core.metrics import Interval
from training.query_rec.calibration import Doubles
from training.query_rec.hashed_text import Ints
from training.query_rec.hint_examples import Examples

Mask = NDArray[np.bool_]
BINS = 15
FORMULAS = {
    "log_loss": Ratio("log_loss", "places"),
    "auc": Ratio("above", "clicks"),
    "gauc": Ratio("user_auc", "user_places"),
}
"""The gate's metrics, over what `by_request` says of each request."""
_NAMES = ("log_loss", "places", "above", "clicks", "user_auc", "user_places")


@dataclass(frozen=True)
class Bootstrap:
    """Of whole users."""

    seed: int
    resamples: int


@dataclass(frozen=True, eq=False)
class Requests:
    """The requests of some hints: which each hint is of [n], and the user of each [requests]."""

    of: Ints
    ids: Sequence[str]
    users: Sequence[str]

    @classmethod
    def among(cls, held: Examples) -> Requests:
        """Those of these hints."""
        ids, first, of = np.unique(held.requests.astype(str), return_index=True, return_inverse=True)
        return cls(of, ids.tolist(), held.users[first].tolist())

    def sums(self, values: Doubles) -> Doubles:
        """[n] to [requests]."""
        return np.bincount(self.of, values, minlength=len(self.ids)).astype(np.float64)


def by_request(chances: Doubles, held: Examples, requests: Requests) -> Mapping[str, Doubles]:
    """What each request adds to each sum of `FORMULAS`: names to [requests].

    Of a request of somebody without an AUC of their own `user_auc` and `user_places` are 0.
    """
    sure = np.clip(np.where(held.clicked, chances, 1.0 - chances), 1e-12, 1.0)
    own = _own_auc(chances, held)
    known = ~np.isnan(own)
    columns = {
        "log_loss": -np.log(sure),
        "places": np.ones(len(held)),
        "above": np.where(held.clicked, _share_below(chances, held.clicked), 0.0),
        "clicks": held.clicked.astype(np.float64),
        "user_auc": np.where(known, own, 0.0),
        "user_places": known.astype(np.float64),
    }
    return {name: requests.sums(values) for name, values in columns.items()}


def measured(sums: Mapping[str, Doubles], requests: Requests, by: Bootstrap) -> dict[str, Interval]:
    """The metrics of `FORMULAS`, with intervals over users; the AUC's is of the users who clicked."""
    found = {}
    for name, formula in FORMULAS.items():
        terms = formula.terms(sums)
        value = interval(formula, [terms], requests.users, seed=by.seed, resamples=by.resamples)
        found[name] = Interval(*value, len(requests.ids))
    return found


def difference(
    one: Mapping[str, Doubles], other: Mapping[str, Doubles], name: str, requests: Requests, by: Bootstrap
) -> Interval:
    """One row's metric minus another's, paired by user."""
    formula = FORMULAS[name]
    value = interval(
        formula, [formula.terms(one), formula.terms(other)], requests.users, seed=by.seed, resamples=by.resamples
    )
    return Interval(*value, len(requests.ids))


def auc(chances: Doubles, clicked: Mask) -> float:
    """Of hints [n] and what was clicked of them [n]; NaN where nothing or all was."""
    return (
        float(_share_below(chances, clicked)[clicked].mean()) if clicked.any() and not clicked.all() else float("nan")
    )


def calibration_error(chances: Doubles, clicked: Mask) -> float:
    """ECE [n] to 0 to 1."""
    order = np.argsort(chances, kind="stable")
    parts = np.array_split(order, min(BINS, max(len(order), 1)))
    gaps = [abs(float(chances[part].mean() - clicked[part].mean())) * len(part) for part in parts if len(part)]
    return float(sum(gaps) / max(len(order), 1))


def slices(held: Examples, seen: Mask) -> dict[str, Mask]:
    """Parts of the hints, by place, by how much the person did before, and by whether training has `seen` the query."""
    did, place = held.questions.numbers_of("behaviours"), held.questions.place
    found = {f"place={number}": place == number for number in np.unique(place).tolist()}
    edges = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "21+": (21, np.inf)}
    found |= {f"behaviours={name}": (did >= lo) & (did <= hi) for name, (lo, hi) in edges.items()}
    found |= {"query=seen": seen, "query=new": ~seen}
    return {name: chosen for name, chosen in found.items() if chosen.any()}


def values_table(model: str, sums: Mapping[str, Doubles], requests: Requests, schema: pa.Schema) -> pa.Table:
    """`eval_values` of a row: what each request adds to each sum."""
    size = len(requests.ids)
    alike: dict[str, Any] = {"model": [model] * size, "split": ["time"] * size, "slices": [[]] * size}
    tables = []
    for name in _NAMES:
        columns = {**alike, "unit": requests.users, "sample": requests.ids, "name": [name] * size, "value": sums[name]}
        tables.append(pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}))
    return pa.concat_tables(tables)


def _share_below(chances: Doubles, clicked: Mask) -> Doubles:
    """Of those that were not clicked the share with a lower chance than each hint's, ties half: [n]."""
    others = np.sort(chances[~clicked])
    below = np.searchsorted(others, chances, "left") + np.searchsorted(others, chances, "right")
    return np.asarray(below / 2.0 / max(len(others), 1))


def _own_auc(chances: Doubles, held: Examples) -> Doubles:
    """The AUC of each hint's user [n]; NaN of who clicked nothing or all."""
    _, of = np.unique(held.users.astype(str), return_inverse=True)
    order = np.argsort(of, kind="stable")
    found = np.full(len(of), np.nan)
    for rows in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
        found[rows] = auc(chances[rows], held.clicked[rows])
    return found
