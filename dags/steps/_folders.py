"""Where a training run lives, and what it reads: pinned once, when its first stage starts.

`<home>/stages/<system>/<run>/<stage>`. `<run>` is the newest day of the input and a hash of its files and the configs:
a run on the same data finds its finished stages again. An Airflow run keeps to its folder, whatever is published.
Beside the runs lie `nightly-<day>`, the decoding of a night, and `models/v<version>`, what was unpacked for it. A step
that opens a folder says so by the folder's time of change: `clean_stages` lets alone what was opened of late.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from dags.pipelines import Pipeline, Stage
from dags.steps._inputs import newest_snapshot, read_files
from infra.errors import DataError
from infra.lake import DataFile, Lake
from infra.profile import Profile

MODELS = "models"
NIGHT = "nightly-"
PINS = "pins.json"


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


def stages_of(profile: Profile, pipeline: Pipeline) -> Path:
    """The folder of all stages of a system."""
    return profile.home / "stages" / pipeline.system


@contextmanager
def hold(root: Path, *, alone: bool = False) -> Iterator[None]:
    """Keep others from choosing what to remove below `root` while a folder is opened; `alone`: choose oneself."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def open_run(profile: Profile, pipeline: Pipeline, run_id: str, last: date) -> Run:
    """The folder of Airflow run `run_id`; the first call, or one after a clean-up, pins and tags the newest snapshots.

    Raises:
        DataError: a table that the pipeline reads was never published.
    """
    root = stages_of(profile, pipeline)
    marker = marker_of(root, run_id)
    with hold(root):
        if not marker.is_file():
            folder = _pin(profile, pipeline, root, last)
            write_json(marker, {"folder": folder.name, "run_id": run_id})
        run = read_run(opened(root / json.loads(marker.read_text())["folder"]))
    for table, snapshot in run.pins.items():
        Lake(profile).tag(table, snapshot, run.tag)
    return run


def open_night(profile: Profile, pipeline: Pipeline, day: date) -> Run:
    """The folder of the recommendations of `day`; it pins nothing."""
    root = stages_of(profile, pipeline)
    folder = root / f"{NIGHT}{day}"
    with hold(root):
        folder.mkdir(exist_ok=True)
        return Run(opened(folder), day, {})


def opened(folder: Path) -> Path:
    """Say that `folder` is used from now on; while `hold` is on."""
    os.utime(folder)
    return folder


def marker_of(root: Path, run_id: str) -> Path:
    """The file that says which folder is that of an Airflow run."""
    return root / "runs" / f"{hashlib.sha256(run_id.encode()).hexdigest()[:16]}.json"


def remove_markers(folder: Path) -> None:
    """Forget which Airflow runs worked in a folder: those that come back begin anew."""
    for marker in (folder.parent / "runs").glob("*.json"):
        if json.loads(marker.read_text())["folder"] == folder.name:
            marker.unlink()


def _pin(profile: Profile, pipeline: Pipeline, root: Path, last: date) -> Path:
    lake = Lake(profile)
    pins = {table: newest_snapshot(lake, table) for table in sorted(pipeline.tables())}
    files = {table: read_files(lake, table, last, pin) for table, pin in pins.items()}
    newest = max((file.partition for found in files.values() for file in found), default=last)
    folder = root / f"{newest}-{_digest(profile, pipeline, files)}"
    write_json(folder / PINS, {"last": newest.isoformat(), "pins": pins}, keep=True)
    return folder


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
        "tables": {table: table_ref(Lake(profile), table, run) for table in stage.reads.tables},
        "artifacts": {name: str(run.stage(name)) for name in stage.reads.artifacts},
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


def _digest(profile: Profile, pipeline: Pipeline, files: Mapping[str, Sequence[DataFile]]) -> str:
    paths = {table: [file.path for file in found] for table, found in files.items()}
    declared = pipeline.model_dump(mode="json", by_alias=True)
    text = json.dumps([paths, declared, profile.training_preset], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_run(folder: Path) -> Run:
    """The run whose folder it is."""
    values = json.loads((folder / PINS).read_text())
    return Run(folder, date.fromisoformat(values["last"]), values["pins"])


def write_json(path: Path, value: Mapping[str, Any], keep: bool = False) -> Path:
    """Write `value`, whole or not at all; with `keep` what is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (keep and path.is_file()):
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(value, indent=1))
        draft.replace(path)
    return path
