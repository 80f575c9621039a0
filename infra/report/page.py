"""Assembles `build/report/index.html` from the marts."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from infra.contracts import UNDATED, Contract
from infra.dbt import marts_path
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.report import charts, queries

_HERE = Path(__file__).resolve().parent
_HEADLINE = "recall@10"


def write_report(profile: Profile, lake_views: Path) -> Path:
    """Render the page from the newest marts; it is renamed into place, so a reader never sees half of it."""
    folder = profile.home / "report"
    folder.mkdir(parents=True, exist_ok=True)
    marts = queries.Marts(marts_path(profile), lake_views)
    try:
        context = _context(marts, folder, Lake(profile).contracts, Ledger(profile))
        html = _environment().get_template("template.html.j2").render(context)
    finally:
        marts.close()
    page, draft = folder / "index.html", folder / "index.html.new"
    draft.write_text(html, encoding="utf-8")
    draft.replace(page)
    return page


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["day"] = lambda value: "no date" if value == UNDATED else value.isoformat()
    environment.filters["moment"] = lambda value: value.strftime("%Y-%m-%d %H:%M UTC") if value else "-"
    return environment


def _context(marts: queries.Marts, folder: Path, contracts: dict[str, Contract], ledger: Ledger) -> dict[str, Any]:
    tables = queries.table_quality(marts, contracts)
    landing, metrics = queries.task_landing(marts), queries.model_metrics(marts)
    return {
        "made_at": datetime.now(UTC),
        "tables": [(table, Markup(charts.rows_per_day(table.days)) if len(table.days) > 1 else "") for table in tables],  # noqa: S704
        "totals": _totals(tables),
        "origins": sorted({table.origin for table in tables}),
        "catalogue": queries.catalogue(marts),
        "catalogue_origin": contracts["items"].origin,
        "failures": queries.failing_partitions(marts, contracts, folder / "quarantine"),
        "left_out": ledger.landings.left_out(),
        "overdue": [(table, day, files) for table in contracts for day, files in sorted(ledger.overdue(table).items())],
        "comparisons": _comparisons(
            [row for row in metrics if row["split"] != queries.TRAINING], queries.evaluations(marts, _HEADLINE)
        ),
        "rungs": queries.rungs(metrics),
        "recommendations": queries.recommendations(marts),
        "recommendations_origin": contracts["recommendations"].origin,
        "promotions": queries.promotions(marts),
        "landing_chart": Markup(charts.landing(landing)) if landing else "",  # noqa: S704  (our own SVG)
        "links": [(name, href) for name, href in _LINKS if (folder / href).is_file()],
    }


_LINKS = (
    ("Data Docs: every expectation, by run", "data_docs/index.html"),
    ("dbt docs: marts, columns, lineage", "dbt/index.html"),
)


def _totals(tables: list[queries.TableQuality]) -> dict[str, int]:
    return {
        "tables": len(tables),
        "partitions": sum(table.partitions for table in tables),
        "rows_out": sum(table.rows_out for table in tables),
        "rows_quarantined": sum(table.rows_quarantined for table in tables),
        "unbalanced": sum(table.unbalanced for table in tables),
    }


def _comparisons(
    rows: list[dict[str, Any]], history: dict[tuple[str, str], list[queries.Evaluation]]
) -> list[dict[str, Any]]:
    """One block per system and split: the headline chart, models by metric over all users, slices, earlier figures."""
    blocks = []
    for (system, split), group in groupby(rows, key=lambda row: (row["system"], row["split"])):
        members = list(group)
        whole = [row for row in members if row["slice"] == "all"]
        headline = [row for row in whole if row["metric"] == _HEADLINE]
        blocks.append(
            {
                "system": system,
                "split": split,
                "origin": ", ".join(sorted({row["origin"] for row in members})),
                "version": next((row["version"] for row in members if row["version"]), None),
                "n": max((row["n"] or 0 for row in whole), default=0),
                "chart": Markup(charts.intervals(headline, "Recall@10")) if headline else "",  # noqa: S704
                "table": _pivot(whole, [row["model"] for row in sorted(headline, key=lambda r: -r["value"])]),
                "slices": [row for row in members if row["slice"] != "all" and row["metric"] == _HEADLINE],
                "history": history.get((system, split), []),
            }
        )
    return blocks


def _pivot(rows: list[dict[str, Any]], models: list[str]) -> dict[str, Any]:
    metrics = [name for name in _METRICS if any(row["metric"] == name for row in rows)]
    cells = {(row["model"], row["metric"]): row for row in rows}
    return {"metrics": metrics, "models": models, "cells": cells}


_METRICS = ("recall@1", "recall@3", "recall@5", "recall@10", "ndcg@3", "ndcg@5", "ndcg@10", "mrr", "coverage@10")
