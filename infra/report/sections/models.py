"""The newest evaluation of each system and split: every row of the comparison, by the metrics that its gate shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

from markupsafe import Markup

from infra.report import charts
from infra.report.marts import Marts, Sources

TITLE = "Models"
Row = dict[str, Any]
# Of several evaluations of one day, the one registered last is the newest.
NEWEST_FIRST = "logged_date desc, coalesce(try_cast(version as bigint), 0) desc, run_id desc"
_EVALUATED = "split <> 'training'"  # what a stage says of its own training is no evaluation


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found for one metric: its rows (`value, lo, hi`) by model, all on its own `n` samples."""

    run_id: str
    logged_date: date
    version: str | None
    n: int | None
    by_model: dict[str, Row]


def read(sources: Sources) -> dict[str, Any]:
    """One block per system, stage and split: the headline's chart, models by metric, slices, earlier figures."""
    rows = model_metrics(sources.marts)
    key = ("system", "stage", "split")
    parts = groupby(rows, key=lambda row: {name: row[name] for name in key})
    return {"comparisons": [_block(sources.marts, place, list(own)) for place, own in parts]}


def _block(marts: Marts, place: dict[str, str], rows: list[Row]) -> dict[str, Any]:
    whole = [row for row in rows if row["slice"] == "all"]
    metrics = shown(rows)
    headline = sorted((row for row in whole if row["metric"] == metrics[0]), key=lambda row: -row["value"])
    return {
        **place,
        "origin": ", ".join(sorted({row["origin"] for row in rows})),
        "version": next((row["version"] for row in rows if row["version"]), None),
        "n": max((row["n"] or 0 for row in whole), default=0),
        "headline": metrics[0],
        "chart": Markup(charts.intervals(headline, metrics[0])) if headline else "",  # noqa: S704  (our own SVG)
        "metrics": metrics,
        "rows": headline,
        "cells": {(row["model"], row["metric"]): row for row in whole},
        "slices": [row for row in rows if row["slice"] != "all" and row["metric"] == metrics[0]],
        "history": evaluations(marts, place, metrics[0]),
    }


def shown(rows: list[Row]) -> list[str]:
    """The metrics to show of an evaluation's rows: as the gate file of its system says, the headline first.

    Where no gate file speaks of the system, all that have a figure for every sample, by name.
    """
    places = {row["metric"]: row["shown"] for row in rows if row["slice"] == "all"}
    asked = sorted((place, metric) for metric, place in places.items() if place is not None)
    return [metric for _, metric in asked] or sorted(places)


def model_metrics(marts: Marts) -> list[Row]:
    """The metrics of each system's newest evaluation."""
    return marts.rows(
        f"""select * from fct_model_metrics where {_EVALUATED}
            qualify dense_rank() over (partition by system, stage, split order by {NEWEST_FIRST}) = 1
            order by system, stage, split, slice, metric, value desc"""  # noqa: S608
    )


def evaluations(marts: Marts, place: dict[str, str], metric: str) -> list[Evaluation]:
    """The last ten evaluations of a system, stage and split, newest first."""
    rows = marts.rows(
        f"""select * from fct_model_metrics
            where system = ? and stage = ? and split = ? and slice = 'all' and metric = ?
            qualify dense_rank() over (order by {NEWEST_FIRST}) <= 10
            order by {NEWEST_FIRST}""",  # noqa: S608
        [place["system"], place["stage"], place["split"], metric],
    )
    found: dict[str, Evaluation] = {}
    for row in rows:
        new = Evaluation(row["run_id"], row["logged_date"], row["version"], row["n"], {})
        found.setdefault(row["run_id"], new).by_model[row["model"]] = row
    return list(found.values())
