"""Where training runs and jobs live, and who may remove what.

`<home>/stages/<system>/<run>/<stage>`: `<run>` is the newest day of the input and a hash of its files and of the
declaration, so that a run on the same data finds its finished stages again. Beside the runs lie
`jobs/<job>/<job>-<day>`, what a job has made for a day, and `models/<model>/v<version>`, what was unpacked for it. A
step that opens a folder says so by the folder's time of change: `clean_stages` lets alone what was opened of late.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from common.folders import make_folder
from common.models import ModelVersion

JOBS = "jobs"
MODELS = "models"
PINS = "pins.json"
REGISTERED = "registered"  # in a run: a file for each model that was registered, or left out


@dataclass(frozen=True)
class Run:
    """One training run, or a day of a job: its folder, the newest day of its data, and all that it reads of elsewhere.

    `pins`: the snapshot of every table; none for a job, which reads the newest. `models`: the versions of each
    registered model.
    """

    folder: Path
    last: date
    pins: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, tuple[ModelVersion, ...]] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """The lake's tag that keeps the pinned snapshots while the run is open."""
        return f"run-{self.folder.name}"

    def stage(self, name: str) -> Path:
        """The folder of one stage."""
        return self.folder / name


@contextmanager
def hold(root: Path, *, alone: bool = False) -> Iterator[None]:
    """Keep others from choosing what to remove below `root` while a folder is opened; `alone`: choose oneself."""
    make_folder(root)
    with (root / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


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


def read_run(folder: Path) -> Run:
    """The training run whose folder it is."""
    values = json.loads((folder / PINS).read_text())
    read = values.get("models", {})  # runs of before models could be read have pinned none
    models = {model: tuple(ModelVersion(**one) for one in versions) for model, versions in read.items()}
    return Run(folder, date.fromisoformat(values["last"]), values["pins"], models)


def write_json(path: Path, value: Mapping[str, object], keep: bool = False) -> Path:
    """Write `value`, whole or not at all; with `keep` what is there already stays."""
    make_folder(path.parent)
    if not (keep and path.is_file()):
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(value, indent=1))
        draft.replace(path)
    return path
