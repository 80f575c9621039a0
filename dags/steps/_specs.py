"""Writes a stage's `spec.json`: the whole input of a stage, as files and folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from common.folders import make_folder
from common.pipelines import Pipeline, Query, Stage
from dags.steps._folders import Run, write_json
from dags.steps._inputs import newest_snapshot, query_rows, read_files
from dags.steps._publish import content_hash
from infra.errors import DataError
from infra.lake import Lake
from infra.profile import Profile


def write_spec(profile: Profile, pipeline: Pipeline, stage: Stage, run: Run) -> Path:
    """Write the stage's `spec.json` into its folder.

    Raises:
        DataError: a table has no rows up to the run's last day, or the query cannot be run.
    """
    out, lake = run.stage(stage.name), Lake(profile)
    tables = {table: table_ref(lake, table, run) for table in stage.reads.tables}
    if query := stage.reads.query:
        tables[query.table] = _query_ref(lake, pipeline.system, query, run, out)
    spec: dict[str, Any] = {
        "system": pipeline.system,
        "stage": stage.name,
        "module": stage.code,
        "out": str(out),
        "seed": pipeline.seed,
        "tables": tables,
        "artifacts": {name: str(run.stage(name)) for name in stage.reads.artifacts},
        "models": {model: [asdict(one) for one in run.models[model]] for model in stage.reads.models},
        "config": stage.config[profile.training_preset],
    }
    return write_json(out / "spec.json", spec)


def table_ref(lake: Lake, table: str, run: Run) -> dict[str, Any]:
    """The files of a table up to the run's last day, of the pinned snapshot or the newest, as a spec names them.

    Raises:
        DataError: the table has no rows up to that day.
    """
    snapshot = run.pins.get(table) or newest_snapshot(lake, table)
    files = [file.path for file in read_files(lake, table, run.last, snapshot)]
    if not files:
        raise DataError(f"Table {table!r} has no rows up to {run.last}.", do="Run the job that fills it.")
    return {"files": files, "snapshot": snapshot, "origin": lake.contract(table).origin}


def _query_ref(lake: Lake, system: str, query: Query, run: Run, out: Path) -> dict[str, Any]:
    """The rows of a query in a file that is named by what it holds, as the files of a spec's table."""
    rows = query_rows(lake, system, query, run.last, run.pins)
    file = out / f"{query.table}-{content_hash(rows)[:16]}.parquet"
    make_folder(out)
    pq.write_table(rows, file)
    origins = {lake.contract(table).origin for table in query.tables}
    return {"files": [str(file)], "snapshot": None, "origin": "simulated" if "simulated" in origins else "real"}
