"""Whether simple rows (popularity, co-visits and so on) stand in the same order on a market's log as on a real one.

Their scores come from the training room, as the `.json` that `python -m training ablation` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from scipy.stats import kendalltau

from infra.errors import DataError

SIMPLE = ("popularity", "personal", "forward", "backward", "both", "text")
"""Rows that count; what is trained has seeds and sizes of its own."""


@dataclass(frozen=True)
class Interval:
    """A row's score with its interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Order:
    """How alike two orders of the same rows are. `levels`: what a row scores on the market over what it does at the
    shop, above 1 where the market flatters. Kendall's `tau` over all pairs; of the `apart` pairs whose intervals
    the real shop holds apart, how many the market puts the same way (`alike`), and the `turned` that it puts the other
    way with intervals apart."""

    levels: Mapping[str, float]
    tau: float
    apart: int
    alike: int
    turned: tuple[tuple[str, str], ...]


def rows_of(file: Path) -> dict[str, dict[str, Interval]]:
    """Metric, row and its score: the simple rows of a table of the training room.

    Raises:
        DataError: the file is none.
    """
    try:
        rows = {row["model"]: row["values"] for row in json.loads(file.read_text())["rows"]}
        found: dict[str, dict[str, Interval]] = {}
        for name in SIMPLE:
            for metric, value in rows.get(name, {}).items():
                found.setdefault(metric, {})[name] = Interval(value["value"], value["lo"], value["hi"])
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "The table of rows cannot be read.",
            where=str(file),
            why=f"{type(error).__name__}: {error}",
            do="Name the `.json` that `python -m training ablation` writes.",
        ) from error


def order_of(market: Mapping[str, Interval], real: Mapping[str, Interval]) -> Order:
    """Of the rows that both have.

    Raises:
        DataError: these are fewer than two.
    """
    names = [name for name in real if name in market]
    if len(names) < 2:
        raise DataError(
            "There is no order to compare.",
            why=f"{len(names)} row(s) stand in both tables.",
            do="Name two tables of the same job: the `.json` that `python -m training ablation` writes.",
        )
    tau = kendalltau([market[name].value for name in names], [real[name].value for name in names]).statistic
    pairs = [(one, two) if real[one].value > real[two].value else (two, one) for one, two in combinations(names, 2)]
    apart = [(best, worst) for best, worst in pairs if real[best].lo > real[worst].hi]
    alike = sum(market[best].value > market[worst].value for best, worst in apart)
    turned = tuple((best, worst) for best, worst in apart if market[best].hi < market[worst].lo)
    levels = {name: market[name].value / real[name].value for name in names if real[name].value}
    return Order(levels, float(tau), len(apart), alike, turned)
