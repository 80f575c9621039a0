"""What a training stage is: a spec in, a folder out.

A stage is a module `training.<system>.stages.<stage>` with `main(spec) -> StageResult`. The folder `spec.out` gets the
stage's own files, `config.yaml` (resolved), `metrics.jsonl`, and last of all `result.json`: its presence is what
makes the stage done, and a stage that is done with the same spec is not run again. Its checkpoints go then.

A stage that is left out is done too: `gate.json` has the reason, and so does `left_out` of its result where it hands
nothing on. Whoever asks for its artifact is then left out as well; what does not need it goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import yaml

from common.config import parse_config
from common.folders import make_folder
from common.models import ModelVersion
from common.pipelines import stage_module
from training.core import tables
from training.core.errors import DataError, LeftOut
from training.core.files import write_json, write_text
from training.core.preemption import preemptible
from training.core.tables import EmptyTable, parquet_batches

T = TypeVar("T")

CHECKPOINTS = "checkpoints"
"""The folder, in any folder that a training writes, of all that it needs to go on, and nobody needs afterwards."""
GATE_FILE = "gate.json"
"""Whether a stage is `accepted`, and the `reason` where it was left out; written by stages that can be."""


@dataclass(frozen=True)
class TableRef:
    """The data files of one table at one snapshot; `origin` is `real` or `simulated`."""

    files: tuple[str, ...]
    snapshot: int | None = None
    origin: str = "real"


@dataclass(frozen=True)
class StageSpec:
    """The whole input of a stage run: `spec.json`. `module` is the stage's code; without one, the stage's own name.

    `models`: the versions of each registered model that the stage reads, none where nothing is registered.
    """

    system: str
    stage: str
    out: str
    seed: int
    tables: Mapping[str, TableRef] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    module: str | None = None
    models: Mapping[str, tuple[ModelVersion, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> StageSpec:
        """Read a spec file; unknown keys, missing keys and values of another type are DataErrors."""
        try:
            values = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(
                "the spec cannot be read", where=str(path), why=str(error), do="give a spec.json that a stage was given"
            ) from error
        return parse_config(cls, values, str(path))

    @property
    def hash(self) -> str:
        """sha256 of everything but the place of the output: a result may be moved and is still the same result.

        What made the artifacts is in it: after a stage that was run with another config, those that read it run again.
        """
        values = dataclasses.asdict(self)
        del values["out"]
        values["made_by"] = {name: _made_by(Path(folder)) for name, folder in self.artifacts.items()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def code(self) -> str:
        """The module in the system's folder `stages` that it runs."""
        return self.module or self.stage

    @property
    def out_dir(self) -> Path:
        """The folder that the stage writes."""
        return Path(self.out)

    def artifact(self, name: str) -> Path:
        """The folder of an earlier stage.

        Raises DataError if the spec does not name it or it is not there, LeftOut where its stage was left out.
        """
        if name not in self.artifacts:
            raise DataError(
                f"the spec names no artifact {name!r}",
                where=f"{self.system}.{self.stage}",
                why=f"it names {', '.join(sorted(self.artifacts)) or 'none'}",
                do="name a stage of the artifacts in the config, or add it to what the stage `reads` in pipeline.yaml",
            )
        folder = Path(self.artifacts[name])
        if not folder.is_dir():
            raise DataError(f"the artifact {name!r} is not there", where=str(folder), do="run its stage first")
        if self.left_out(name):
            raise LeftOut(f"it needs {name}, which was left out", do=f"see why {name} was left out")
        return folder

    def left_out(self, name: str) -> str:
        """Why the stage of an artifact was left out; empty where it was not."""
        return str(_result(Path(self.artifacts[name])).get("left_out", "")) if name in self.artifacts else ""


@dataclass(frozen=True)
class StageResult:
    """What a stage reports: final metrics, its output tables (name -> paths below `out`), where it resumed from.

    `left_out`: why it made nothing; empty where it ran.
    """

    metrics: Mapping[str, float]
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resumed_from: int | None = None
    left_out: str = ""


def known_module(system: str, code: str) -> str:
    """The import name of a stage's module, which is there; it is not imported: torch costs seconds.

    Raises:
        DataError: it is not there.
    """
    name = stage_module(system, code)
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        # A folder on the way is not there; what such a folder itself fails to import is a bug.
        if not name.startswith(f"{error.name}."):
            raise
        found = None
    if found is None:
        raise DataError(
            f"there is no stage {system}.{code}",
            where=f"{name.replace('.', '/')}.py",
            do="write it, or see training/*/pipeline.yaml for the stages",
        )
    return name


def run_stage(spec: StageSpec, main: Callable[[StageSpec], StageResult]) -> bool:
    """Run `main` unless `spec.out` already holds the result of this very spec; True if it ran.

    SIGTERM raises `Preempted` (exit code 75); a training loop first saves a checkpoint.
    """
    if _made_by(spec.out_dir) == spec.hash:
        _remove_checkpoints(spec.out_dir)  # a kill may have come between the result and this
        return False
    make_folder(spec.out_dir)
    started = time.monotonic()
    with preemptible():
        result = _run_or_leave_out(spec, main)
    if is_main_process():
        seconds = round(time.monotonic() - started, 3)
        write_json(
            spec.out_dir / "result.json", {**dataclasses.asdict(result), "seconds": seconds, "spec_hash": spec.hash}
        )
        _remove_checkpoints(spec.out_dir)
    return True


def _remove_checkpoints(out: Path) -> None:
    for folder in list(out.rglob(CHECKPOINTS)):
        shutil.rmtree(folder, ignore_errors=True)


def _run_or_leave_out(spec: StageSpec, main: Callable[[StageSpec], StageResult]) -> StageResult:
    # Imported only if it has to run: torch costs seconds, and a finished stage needs none.
    from training.core.reproducible import reproducible

    reproducible()
    try:
        return main(spec)
    except LeftOut as refusal:
        if is_main_process():
            sys.stdout.write(f"{spec.stage} is left out: {refusal.reason}\n")
            write_json(spec.out_dir / GATE_FILE, {"accepted": False, "reason": refusal.reason})
        return StageResult({"accepted": 0.0}, left_out=refusal.reason)


def _made_by(folder: Path) -> str | None:
    """The hash of the spec whose result is in the folder; None where there is none."""
    made_by: str | None = _result(folder).get("spec_hash")
    return made_by


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def is_main_process() -> bool:
    """True in the one process of a launch that writes files."""
    return os.environ.get("RANK", "0") == "0"


def resolve_config(spec: StageSpec, cls: type[T]) -> T:
    """The stage's config as its frozen dataclass; the resolved values go to `config.yaml`."""
    config = parse_config(cls, spec.config, f"{spec.system}.{spec.stage}")
    if is_main_process():
        values = json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[call-overload]
        write_text(spec.out_dir / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    return config


def read_table(spec: StageSpec, name: str, columns: Mapping[str, pa.DataType], later: Collection[str] = ()) -> pa.Table:
    """Read `columns` (name -> Arrow type) of one of the spec's tables; see `read_batches`."""
    return pa.concat_tables(read_batches(spec, name, columns, later))


def read_query(spec: StageSpec, name: str, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """As `read_table`, of what the stage's query has found. Raises LeftOut for no row: there is nothing to do."""
    try:
        return read_table(spec, name, columns)
    except EmptyTable as error:
        raise LeftOut(f"the query {name} has found no row", do="nothing: it is asked again in the next run") from error


def read_batches(
    spec: StageSpec, name: str, columns: Mapping[str, pa.DataType], later: Collection[str] = ()
) -> Iterator[pa.Table]:
    """The same rows some thousands at a time; see `tables.parquet_batches` for `later` and for the errors."""
    return parquet_batches(name, _files(spec, name), columns, later)


def column_types(spec: StageSpec, name: str) -> dict[str, pa.DataType]:
    """The columns of one of the spec's tables; see `tables.column_types`."""
    return tables.column_types(name, _files(spec, name))


def _files(spec: StageSpec, name: str) -> list[Path]:
    if name not in spec.tables:
        raise DataError(
            f"the spec names no table {name!r}",
            where=f"{spec.system}.{spec.stage}",
            why=f"it names {', '.join(sorted(spec.tables)) or 'none'}",
            do="add it to what the stage `reads` in pipeline.yaml",
        )
    return [Path(file) for file in spec.tables[name].files]


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, each with its step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, step: int, **values: float) -> None:
        """Add one line; nothing in processes that do not write."""
        if is_main_process():
            with self._path.open("a") as stream:
                stream.write(json.dumps({"step": step, **values}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`: a resumed run logs those steps again."""
        if is_main_process() and self._path.exists():
            lines = self._path.read_text().splitlines(keepends=True)
            write_text(self._path, "".join(line for line in lines if json.loads(line)["step"] <= step))
