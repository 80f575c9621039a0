"""Brings what lives in other systems into the lake, for dbt: task instances, model metrics, stage gates, promotions.

A task may not open Airflow's database, and the marts read nothing but the lake; so this step asks the REST API, MLflow
and the ledger of promotions, and publishes tables. Repeating it changes only what has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dags.steps._publish import publish_rows
from infra import telemetry
from infra.airflow_client import AirflowClient, Json
from infra.contracts import arrow_schema, load_contract
from infra.errors import exit_with_reason
from infra.profile import Profile, load_profile

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Row = dict[str, Any]
FINAL = {"success", "failed", "skipped", "upstream_failed", "removed"}
WINDOW = timedelta(days=3)


def main() -> int:
    """Export all four."""
    telemetry.apply()
    profile, today = load_profile(), datetime.now(UTC).date()
    client = AirflowClient.of(profile)
    _export(profile, "ops_task_instances", list(task_rows(client, today - WINDOW)))
    _export(profile, "ops_model_metrics", list(metric_rows(profile)))
    _export(profile, "stage_gates", list(gate_rows(profile)))
    _export(profile, "ops_promotions", list(promotion_rows(profile)))
    return 0


def task_rows(client: AirflowClient, first: date) -> Iterator[Row]:
    """One row per finished try of the runs that were queued on or after `first` (UTC)."""
    since = datetime(first.year, first.month, first.day, tzinfo=UTC)
    for run in client.runs(since=since):
        queued = _moment(run["queued_at"] or run["run_after"])
        if queued is None or queued < since:
            continue
        for task in client.task_instances(run["dag_id"], run["dag_run_id"]):
            tries = [task]
            if task["try_number"] > 1:  # else the task is its own only try: asking for the others costs a call each
                tries = client.tries(task["dag_id"], task["dag_run_id"], task["task_id"])
            for attempt in tries:
                if attempt["state"] in FINAL:
                    yield _task_row(run, queued, attempt)


def _task_row(run: Json, run_queued: datetime, attempt: Json) -> Row:
    queued, started, ended = (_moment(attempt.get(name)) for name in ("queued_when", "start_date", "end_date"))
    return {
        "run_date": run_queued.date(),
        "dag_id": run["dag_id"],
        "run_id": run["dag_run_id"],
        "task_id": attempt["task_id"],
        "try_number": max(1, attempt["try_number"]),
        "state": attempt["state"],
        "partition_key": run.get("partition_key"),
        "queued_at": queued,
        "started_at": started,
        "ended_at": ended,
        "queue_seconds": _seconds(queued, started),
        "run_seconds": _seconds(started, ended),
    }


def metric_rows(profile: Profile) -> Iterator[Row]:
    """The comparison table of every evaluation run, and the final metrics of every other stage run."""
    from registry.gate_file import shown_metrics
    from registry.runs import metric_name, tag
    from registry.store import connect

    client = connect(profile)
    versions = {version.run_id: str(version.version) for version in client.search_model_versions(max_results=1000)}
    for run in _stage_runs(client):
        tags = run.data.tags
        shown = shown_metrics(tags[tag("system")])
        common = {
            "logged_date": datetime.fromtimestamp(run.info.start_time / 1000, UTC).date(),
            "run_id": run.info.run_id,
            "system": tags[tag("system")],
            "stage": tags[tag("stage")],
            "version": versions.get(run.info.run_id),
            "origin": tags[tag("origin")],
        }
        compared = comparison(client, run.info.run_id)
        final = [final_metric(tags[tag("stage")], metric_name(key), value) for key, value in run.data.metrics.items()]
        for row in compared or final:
            yield {**row, **common, "shown": shown.index(row["metric"]) if row["metric"] in shown else None}


def gate_rows(profile: Profile) -> Iterator[Row]:
    """What the gate of every stage run that held one has decided."""
    from registry.stage_gates import stage_gates
    from registry.store import connect

    client = connect(profile)
    for gate in stage_gates(client, _stage_runs(client)):
        yield {**asdict(gate), "logged_date": gate.finished_at.date()}


def _stage_runs(client: MlflowClient) -> list[Run]:
    from registry.runs import tag

    places = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run for run in client.search_runs(places, max_results=1000) if tag("stage") in run.data.tags]


def comparison(client: MlflowClient, run_id: str) -> list[Row]:
    """The rows of an evaluation's `model_metrics` table; none where the stage made no such table."""
    from registry.runs import COMPARISON

    wanted = ("model", "metric", "slice", "split", "value", "lo", "hi", "n", "scored", "reason")
    with TemporaryDirectory() as scratch:
        files = [client.download_artifacts(run_id, f.path, scratch) for f in client.list_artifacts(run_id, COMPARISON)]
        return [{key: row.get(key) for key in wanted} for file in files for row in pq.read_table(file).to_pylist()]


def final_metric(stage: str, name: str, value: float) -> Row:
    """A metric of a training stage, which has no slice, no interval and no users."""
    nothing: Row = {"lo": None, "hi": None, "n": None, "scored": None, "reason": None}
    return {"model": stage, "metric": name, "slice": "all", "split": "training", "value": value, **nothing}


def promotion_rows(profile: Profile) -> Iterator[Row]:
    """Every decision."""
    from registry.promotions import Promotions

    for made in Promotions(profile).history():
        yield {
            "decided_date": made.at.astimezone(UTC).date(),
            "decision_id": made.id,
            "at": made.at,
            "who": made.who,
            "model": made.model,
            "from_version": made.from_version,
            "to_version": made.to_version,
            "decision": made.decision,
            "override": made.override,
            "reason": made.reason,
            "gate_passed": made.report.passed if made.report else None,
            "market": made.report.market if made.report else None,
        }


def _export(profile: Profile, table: str, rows: list[Row]) -> None:
    changed = publish_rows(profile, table, pa.Table.from_pylist(rows, schema=arrow_schema(load_contract(table))))
    sys.stdout.write(f"{table}: {len(rows)} rows, {len(changed)} partitions changed\n")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


if __name__ == "__main__":
    exit_with_reason(main)
