"""Where a training run lives, and what it reads: pinned once, when its first stage starts.

`<home>/stages/<system>/<run>/<stage>`. `<run>` is the newest day of the input and a hash of its files and the configs:
a run on the same data finds its finished stages again. An Airflow run keeps to its folder, whatever is published.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from dags.pipelines import Pipeline, Stage
from infra.errors import DataError
from infra.lake import DataFile, Lake
from infra.profile import Profile

STATE_TABLE_PARTITION = "snapshot_date"  # each partition of such a table holds its whole state: the newest one counts


@dataclass(frozen=True)
class Run:
    """One training run: its folder, the newest day of its data, and the snapshot of every table that it reads."""

    folder: Path
    last: date
    pins: Mapping[str, int]

    @property
    def tag(self) -> str:
        """The lake's tag that keeps the pinned snapshots while the run is open."""
        return f"run-{self.folder.name}"

    def stage(self, name: str) -> Path:
        """The folder of one stage."""
        return self.folder / name


def open_run(profile: Profile, pipeline: Pipeline, run_id: str, last: date) -> Run:
    """The folder of Airflow run `run_id`; the first call pins and tags the newest snapshots.

    Raises:
        DataError: a table that the pipeline reads was never published.
    """
    root = profile.home / "stages" / pipeline.system
    marker = root / "runs" / f"{hashlib.sha256(run_id.encode()).hexdigest()[:16]}.json"
    if not marker.is_file():
        lake = Lake(profile)
        pins = {table: _newest(lake, table) for table in sorted(pipeline.tables())}
        files = {table: read_files(lake, table, last, pin) for table, pin in pins.items()}
        newest = max((file.partition for found in files.values() for file in found), default=last)
        folder = root / f"{newest}-{_digest(profile, pipeline, files)}"
        write_json(folder / "pins.json", {"last": newest.isoformat(), "pins": pins}, keep=True)
        write_json(marker, {"folder": folder.name, "run_id": run_id})
    run = _read(root / json.loads(marker.read_text())["folder"])
    for table, snapshot in run.pins.items():
        Lake(profile).tag(table, snapshot, run.tag)
    return run


def close_run(profile: Profile, run: Run) -> None:
    """Give the pinned snapshots free; a registered model keeps its own by tags of its own."""
    for table in run.pins:
        Lake(profile).untag(table, run.tag)


def write_spec(profile: Profile, pipeline: Pipeline, stage: Stage, run: Run) -> Path:
    """Write the stage's `spec.json` into its folder."""
    out = run.stage(stage.name)
    spec: dict[str, Any] = {
        "system": pipeline.system,
        "stage": stage.name,
        "module": stage.module or stage.name,
        "out": str(out),
        "seed": pipeline.seed,
        "tables": {table: _table(Lake(profile), table, run) for table in stage.reads.tables},
        "artifacts": {name: str(run.stage(name)) for name in stage.reads.artifacts},
        "config": stage.config[profile.training_preset],
    }
    return write_json(out / "spec.json", spec)


def read_files(lake: Lake, table: str, last: date, snapshot: int) -> list[DataFile]:
    """The files of `table` up to `last`; where each partition holds the whole state, the newest partition's."""
    files = lake.files(table, last=last, snapshot=snapshot)
    if files and lake.contract(table).partition == STATE_TABLE_PARTITION:
        files = [file for file in files if file.partition == files[-1].partition]
    return files


def _table(lake: Lake, table: str, run: Run) -> dict[str, Any]:
    snapshot = run.pins.get(table) or _newest(lake, table)
    files = [file.path for file in read_files(lake, table, run.last, snapshot)]
    if not files:
        raise DataError(f"Table {table!r} has no rows up to {run.last}.", do="Run the job that fills it.")
    return {"files": files, "snapshot": snapshot, "origin": lake.contract(table).origin}


def _newest(lake: Lake, table: str) -> int:
    snapshot = lake.snapshot(table)
    if snapshot is None:
        raise DataError(f"Nothing was ever published to {table!r}.", do="Run the DAG that fills it.")
    return snapshot


def _digest(profile: Profile, pipeline: Pipeline, files: Mapping[str, Sequence[DataFile]]) -> str:
    paths = {table: [file.path for file in found] for table, found in files.items()}
    declared = pipeline.model_dump(mode="json", by_alias=True)
    text = json.dumps([paths, declared, profile.training_preset], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(folder: Path) -> Run:
    values = json.loads((folder / "pins.json").read_text())
    return Run(folder, date.fromisoformat(values["last"]), values["pins"])


def write_json(path: Path, value: Mapping[str, Any], keep: bool = False) -> Path:
    """Write `value`, whole or not at all; with `keep` what is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (keep and path.is_file()):
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(value, indent=1))
        draft.replace(path)
    return path
