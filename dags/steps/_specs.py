"""Writes a stage's `spec.json`: the whole input of a stage, as files and folders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.feature_names import USER, entity_of
from common.folders import make_folder
from common.pipelines import Pipeline, Query, Stage
from dags.steps._folders import Run, write_json
from dags.steps._inputs import newest_snapshot, query_rows, read_files
from dags.steps._publish import content_hash
from infra.contracts import arrow_schema
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile

SIGNATURE = "signature.json"
"""What a model's folder says of what goes in and comes out, in MLflow's JSON."""


def write_spec(profile: Profile, pipeline: Pipeline, stage: Stage, run: Run) -> Path:
    """Write the stage's `spec.json` into its folder.

    Raises:
        DataError: a table was never published, or the query cannot be run.
    """
    out, lake, ledger = run.stage(stage.name), Lake(profile), Ledger(profile)
    outside = pipeline.tables() if run.pins else set[str]()  # a job pins nothing
    tables = {table: table_ref(lake, ledger, table, run, out, table in outside) for table in stage.reads.tables}
    if query := stage.reads.query:
        rows = query_rows(lake, pipeline.system, query, run.last, run.pins)
        if query.features and (taken := _features_taken(run, stage)):
            from feature_store.user_features import with_user_features  # seconds, for those who ask

            rows = with_user_features(profile, rows, run.last, taken)
        tables[query.table] = _rows_ref(lake, query, rows, out)
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


def table_ref(lake: Lake, ledger: Ledger, table: str, run: Run, out: Path, pinned: bool) -> dict[str, Any]:
    """The files of a table up to the run's last day, of the `pinned` snapshot or the newest, as a spec names them.

    A day without rows has no file. A table that has none at all, as a shop's pairs where nobody gave few stars, is an
    empty file in the folder `out`: what is to come of that, the stage knows.

    Raises:
        DataError: nothing was ever published to the table.
    """
    # What a run pins and has not had no row when it began; what its own stages write it reads as it is now.
    snapshot = run.pins.get(table) if pinned else newest_snapshot(lake, ledger, table)
    files = [] if snapshot is None else [file.path for file in read_files(lake, table, run.last, snapshot)]
    if not files:
        make_folder(out)
        files = [str(out / f"{table}-empty.parquet")]
        pq.write_table(arrow_schema(lake.contract(table)).empty_table(), files[0])
    return {"files": files, "snapshot": snapshot, "origin": lake.contract(table).origin}


def _features_taken(run: Run, stage: Stage) -> list[str]:
    """What the models that the stage reads take of the feature store: inputs of their signatures, by full name."""
    folders = [Path(one.folder) for model in stage.reads.models for one in run.models[model]]
    inputs = [one["name"] for folder in folders for one in json.loads((folder / SIGNATURE).read_text())["inputs"]]
    return sorted({name for name in inputs if entity_of(name) == USER})


def _rows_ref(lake: Lake, query: Query, rows: pa.Table, out: Path) -> dict[str, Any]:
    """The rows of a query in a file that is named by what it holds, as the files of a spec's table."""
    file = out / f"{query.table}-{content_hash(rows)[:16]}.parquet"
    make_folder(out)
    pq.write_table(rows, file)
    origins = {lake.contract(table).origin for table in query.tables}
    return {"files": [str(file)], "snapshot": None, "origin": "simulated" if "simulated" in origins else "real"}
