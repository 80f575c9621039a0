"""Opens training runs and jobs: what a run reads is pinned once, when its first stage starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path

from common.folders import make_folder
from common.models import ModelVersion
from common.pipelines import Job, Pipeline
from dags.steps._folders import JOBS, PINS, Run, hold, marker_of, opened, read_run, write_json
from dags.steps._inputs import is_state, newest_snapshot, read_files
from dags.steps._models import active
from feature_store.sources import require_committed
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.systems import stages_of


def open_run(profile: Profile, pipeline: Pipeline, run_id: str, last: date) -> Run:
    """The folder of Airflow run `run_id`; the first call, or one after a clean-up, pins and tags the newest snapshots.

    Raises:
        DataError: a table that the pipeline reads was never published.
    """
    root = stages_of(profile, pipeline.system)
    marker = marker_of(root, run_id)
    with hold(root):
        if not marker.is_file():
            write_json(marker, {"folder": _pin(profile, pipeline, root, last).name, "run_id": run_id})
        run = read_run(opened(root / json.loads(marker.read_text())["folder"]))
    for table, snapshot in run.pins.items():
        Lake(profile).tag(table, snapshot, run.tag)
    return run


def close_run(profile: Profile, run: Run) -> None:
    """Give the pinned snapshots free; a registered model keeps its own by tags of its own."""
    for table in run.pins:
        Lake(profile).untag(table, run.tag)


def open_job(profile: Profile, pipeline: Pipeline, job: Job, day: date) -> Run:
    """The folder of a job of `day`, with the models as they stand now; it pins nothing.

    Raises:
        DataError: what its query needs is not committed for the day; a job that follows the clock takes what there is.
    """
    if job.after and job.stage.reads.query:
        lake, ledger = Lake(profile), Ledger(profile)
        query = job.stage.reads.query
        for table in query.tables:
            if table not in query.optional and not is_state(lake, table):
                require_committed(ledger, table, day, day)
    models = active(profile, job.stage.reads.models)
    root = stages_of(profile, pipeline.system)
    folder = root / JOBS / job.name / f"{job.name}-{day}"
    with hold(root):
        make_folder(folder)
        return Run(opened(folder), day, {}, models)


def _pin(profile: Profile, pipeline: Pipeline, root: Path, last: date) -> Path:
    lake, ledger = Lake(profile), Ledger(profile)
    filled = sorted(pipeline.tables() - {table for table in pipeline.optional_tables() if lake.snapshot(table) is None})
    pins = {table: pin for table in filled if (pin := newest_snapshot(lake, ledger, table)) is not None}
    files = {table: read_files(lake, table, last, pin) for table, pin in pins.items()}
    models = active(profile, sorted(pipeline.foreign_models()))
    newest = max((file.partition for found in files.values() for file in found), default=last)
    paths = {table: [file.path for file in found] for table, found in files.items()}
    folder = root / f"{newest}-{_digest(profile, pipeline, paths, models)}"
    versions = {model: [asdict(one) for one in found] for model, found in models.items()}
    write_json(folder / PINS, {"last": newest.isoformat(), "pins": pins, "models": versions}, keep=True)
    return folder


def _digest(
    profile: Profile,
    pipeline: Pipeline,
    paths: Mapping[str, list[str]],
    models: Mapping[str, tuple[ModelVersion, ...]],
) -> str:
    versions = {model: [(one.version, one.role) for one in found] for model, found in models.items()}
    text = json.dumps([paths, versions, pipeline.made_by(), profile.training_preset], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
