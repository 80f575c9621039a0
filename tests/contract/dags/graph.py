"""The whole graph as plain data, for the snapshot. `python tests/contract/dags/graph.py` records it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).resolve().parents[2] / "snapshots" / "dags.json"


def describe(dags: dict[str, Any]) -> dict[str, Any]:
    """Every DAG: schedule, policies, and of each task its command, pool, limits, edges and asset."""
    return {dag_id: _dag(dag) for dag_id, dag in sorted(dags.items())}


def _dag(dag: Any) -> dict[str, Any]:
    return {
        "schedule": _schedule(dag.timetable),
        "tags": sorted(dag.tags),
        "deadline_minutes": dag.deadline[0].interval.total_seconds() / 60,
        "max_active_runs": dag.max_active_runs,
        "tasks": {task.task_id: _task(task) for task in dag.tasks},
    }


def _schedule(timetable: Any) -> str:
    if condition := getattr(timetable, "asset_condition", None):
        both = " & " if type(condition).__name__ == "AssetAll" else " | "
        return both.join(asset.name for asset in getattr(condition, "objects", [condition]))
    return f"every {timetable.delta}" if hasattr(timetable, "delta") else f"cron {timetable.expression}"


def _task(task: Any) -> dict[str, Any]:
    limit = task.execution_timeout
    return {
        "operator": type(task).__name__,
        "arguments": list(getattr(task, "arguments", [])),
        "pool": task.pool,
        "retries": task.retries,
        "limit_minutes": limit.total_seconds() / 60 if limit else None,
        "owner": task.owner,
        "after": sorted(task.upstream_task_ids),
        "outlets": sorted(asset.name for asset in task.outlets),
    }


def as_text(described: dict[str, Any]) -> str:
    """The snapshot's text."""
    return json.dumps(described, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    from airflow.dag_processing.dagbag import DagBag

    SNAPSHOT.parent.mkdir(exist_ok=True)
    folder = SNAPSHOT.parents[2] / "dags"
    SNAPSHOT.write_text(as_text(describe(DagBag(folder, safe_mode=False).dags)))
