"""What the demo ends with: rows per table, metrics beside the baselines, the champion, the time per step."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.dbt import marts_path
from infra.demo.watch import Chain
from infra.lake import Lake
from infra.profile import Profile
from infra.report.marts import Marts
from infra.report.sections.models import model_metrics, shown
from infra.report.sections.promotions import promotions
from infra.report.sections.quality import table_quality
from infra.report.sections.recommendations import recommendations
from infra.report.sections.stage_gates import stage_gates


def collect(profile: Profile, chain: Chain, started: float, seconds: float) -> dict[str, Any]:
    """All figures of the run, from the marts and the scheduler; Airflow took `started` of the `seconds` to start."""
    marts = Marts(marts_path(profile), profile.home / "lake" / "lake.duckdb")
    try:
        tables = table_quality(marts, Lake(profile).contracts)
        metrics = [row for row in model_metrics(marts) if row["slice"] == "all"]
        gates, decisions, nights = stage_gates(marts), promotions(marts), recommendations(marts)
    finally:
        marts.close()
    now, hints = datetime.now(UTC), profile.home / "report" / "hints.html"
    return {
        "made_at": now.isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(seconds, 1),
        "seconds_to_start": round(started, 1),
        "reused": all(table.last_commit < chain.since for table in tables if table.table == "events"),
        "decisions": {row["model"]: row for row in reversed(decisions)},
        "tables": {
            t.table: {
                "rows": t.rows_out,
                "quarantined": t.rows_quarantined,
                "partitions": t.partitions,
                "data": t.origin,
            }
            for t in tables
        },
        "metrics": [{k: row[k] for k in _METRIC_FIELDS} for row in metrics],
        "stage_gates": [{k: gate[k] for k in _GATE_FIELDS} for gate in gates],
        "lists": [
            {"by": night["model_version"], "role": night["role"], "users": night["users"], "day": night["run_date"]}
            for night in nights
            if night["run_date"] == nights[0]["run_date"]
        ],
        "champions": _champions(decisions),
        "tasks": [
            {
                "dag": task.dag,
                "task": task.task,
                "state": task.state,
                "waited": round(task.waited, 1),
                "seconds": round(task.seconds(now), 1),
            }
            for tasks in chain.tasks.values()
            for task in tasks
        ],
        "reports": {
            "report": str(profile.home / "report" / "index.html"),
            "data_docs": str(profile.home / "report" / "data_docs" / "index.html"),
            "dbt_docs": str(profile.home / "report" / "dbt" / "index.html"),
            **({"hints": str(hints)} if hints.is_file() else {}),
        },
    }


_PUBLISHES = "recommend"
"""The task whose lists the demo tells of; a shop without it has none to tell of."""
_METRIC_FIELDS = (
    "system", "stage", "model", "metric", "slice", "split", "value", "lo", "hi", "n", "scored", "origin", "shown",
)  # fmt: skip
_GATE_FIELDS = (
    "system", "run", "stage", "accepted", "reason", "note", "metric", "start", "before", "after", "lower", "origin",
)  # fmt: skip


def write(summary: dict[str, Any], folder: Path) -> Path:
    """Write `summary.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=1, default=str) + "\n")
    return path


def show(summary: dict[str, Any], path: Path, console: Console) -> None:
    """Print the tables that a person reads at the end."""
    console.print()
    console.print(_rows(summary))
    places = {(row["system"], row["split"]): None for row in summary["metrics"]}
    for system, split in sorted(places, key=lambda place: (place[0], place[1] != "time")):  # time decides: first
        console.print(_metrics(summary, system, split))
    if summary["stage_gates"]:
        console.print(_stage_gates(summary["stage_gates"]))
    console.print(_times(summary))
    for line in _standing(summary):
        console.print(line, markup=False, soft_wrap=True)
    if summary["lists"] or any(task["task"] == _PUBLISHES for task in summary["tasks"]):
        console.print(_lists(summary), markup=False, soft_wrap=True)
    if summary["reused"]:
        console.print("reused: every landed row was committed before, so nothing was ingested again")
    for name, page in summary["reports"].items():
        console.print(f"{name:<10}{page}", markup=False, soft_wrap=True)
    console.print(f"{'figures':<10}{path}", markup=False, soft_wrap=True)


def _champions(decisions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each model that has one; `decisions` with the newest first, and a rejection leaves what stands."""
    standing = {row["model"]: row for row in reversed(decisions) if row["decision"] != "reject"}
    return {model: {"version": row["to_version"], "who": row["who"]} for model, row in sorted(standing.items())}


def _standing(summary: Mapping[str, Any]) -> list[str]:
    """A line for each model that was decided on."""
    lines = []
    for model, last in sorted(summary["decisions"].items()):
        if champion := summary["champions"].get(model):
            lines.append(f"champion: {model} version {champion['version']} (promoted by {champion['who']})")
        else:
            said = f"last decision: {last['decision']} by {last['who']}, {last['reason']}"
            lines.append(f"champion: none yet of {model}; {said}")
    return lines or ["champion: none yet"]


def _lists(summary: dict[str, Any]) -> str:
    """Who made the nightly lists, as the page says it."""
    made = [
        f"{one['users']:,} users by {'' if one['role'] == 'baseline' else 'version '}{one['by']} ({one['role']})"
        for one in summary["lists"]
    ]
    why = "none yet: no version was promoted, and no baseline was measured"
    return f"lists: {', '.join(made)}, histories up to {summary['lists'][0]['day']}" if made else f"lists: {why}"


def _rows(summary: dict[str, Any]) -> Table:
    table = Table(title="Tables", title_justify="left")
    for name in ("table", "data", "partitions", "rows", "quarantined"):
        table.add_column(name, justify="left" if name in ("table", "data") else "right")
    for name, row in summary["tables"].items():
        table.add_row(name, row["data"], f"{row['partitions']:,}", f"{row['rows']:,}", f"{row['quarantined']:,}")
    return table


_SPLITS = {"time": "global time split", "leave_one_out": "leave-one-out as in papers"}


def _metrics(summary: dict[str, Any], system: str, split: str) -> Table:
    """The rows of one evaluation by the metrics that its gate file shows, best by the headline first."""
    rows = [row for row in summary["metrics"] if (row["system"], row["split"]) == (system, split)]
    origins = ", ".join(sorted({row["origin"] for row in rows}))
    title = f"{system}, {_SPLITS.get(split, split)} ({origins}; 95 % intervals)"
    table = Table(title=title, title_justify="left")
    metrics = shown(rows)
    for name in ("model", *metrics):
        table.add_column(name, justify="left" if name == "model" else "right")
    cells = {(row["model"], row["metric"]): row for row in rows}
    headline = {row["model"]: float(row["value"]) for row in rows if row["metric"] == metrics[0]}
    for model in sorted({row["model"] for row in rows}, key=lambda name: -headline.get(name, 0.0)):
        table.add_row(model, *(_cell(cells.get((model, metric))) for metric in metrics))
    return table


def _stage_gates(gates: list[dict[str, Any]]) -> Table:
    origins = ", ".join(sorted({one["origin"] for one in gates}))
    title = f"Stages with a gate on validation samples, and what was left out ({origins})"
    table = Table(title=title, title_justify="left")
    for name in ("stage", "metric", "before", "after", "outcome"):
        table.add_column(name, justify="right" if name in ("before", "after") else "left")
    for one in gates:
        outcome = "accepted" if one["accepted"] else f"left out: {one['reason']}"
        figures = [f"{one[name]:.4f}" if one[name] is not None else "" for name in ("before", "after")]
        table.add_row(one["stage"], one["metric"] or "", *figures, "\n".join(filter(None, (outcome, one["note"]))))
    return table


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    interval = f"\n{row['lo']:.3f}-{row['hi']:.3f}" if row["lo"] is not None else ""
    failed = row["scored"] is not None and row["n"] is not None and row["scored"] < row["n"]
    return f"{row['value']:.4f}{interval}" + (f"\n{row['scored']:,} of {row['n']:,} scored" if failed else "")


def _times(summary: dict[str, Any]) -> Table:
    table = Table(title=f"Time ({summary['seconds']:.0f} s in all, {summary['machine']})", title_justify="left")
    for name in ("DAG", "tasks", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    by_dag: dict[str, list[dict[str, Any]]] = {}
    for task in summary["tasks"]:
        by_dag.setdefault(task["dag"], []).append(task)
    table.add_row("(start)", "database, scheduler, API server, DAGs", f"{summary['seconds_to_start']:.0f}")
    for dag, tasks in by_dag.items():
        detail = ", ".join(f"{task['task']} {task['seconds']:.0f}" for task in tasks)
        table.add_row(dag, detail, f"{sum(task['seconds'] for task in tasks):.0f}")
    return table
