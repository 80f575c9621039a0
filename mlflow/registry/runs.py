"""Every training stage as an MLflow run: params, metrics over steps, inputs by snapshot, code, artifacts.

A stage run is known by the hash of its spec and its folder: logging it again finds the run, and a run whose logging was
killed is completed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common.config import read_yaml
from common.pipelines import stage_module
from infra.errors import DataError
from infra.launch import CHECKPOINTS
from infra.profile import Profile, code_commit
from registry.store import connect, experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

COMPARISON = "model_metrics"  # the table of an evaluation that is shown when its folder is long gone
_TAG = "plumbline."
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_SMALL_BYTES = 5_000_000
_LARGE_KINDS = (".safetensors", ".parquet", ".pt")


@dataclass(frozen=True)
class StageRun:
    """A finished stage as it lies on disk: its spec, its folder, its result, its resolved config."""

    spec: Mapping[str, Any]
    out: Path
    result: Mapping[str, Any]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, spec_dir: Path, out_dir: Path) -> StageRun:
        """Read `spec.json` of `spec_dir` and the results in `out_dir`.

        Raises:
            DataError: a file is missing, so the stage has not finished.
        """
        config = out_dir / "config.yaml"
        return cls(
            spec=json.loads(_text(spec_dir / "spec.json")),
            out=out_dir,
            result=json.loads(_text(out_dir / "result.json")),
            config=(read_yaml(config) if config.is_file() else None) or {},
        )

    @property
    def name(self) -> str:
        """`<stage> <run>`: the experiment already says which system."""
        return f"{self.spec['stage']} {self.out.resolve().parent.name}"

    @property
    def ended(self) -> int:
        """When the stage wrote its result (ms): not when it was logged."""
        return int((self.out / "result.json").stat().st_mtime * 1000)

    @property
    def started(self) -> int:
        """When the stage was started, or started for the last time (ms)."""
        return self.ended - int(float(self.result["seconds"]) * 1000)

    @property
    def spec_hash(self) -> str:
        """The hash that the stage itself wrote; of the spec's text where it did not."""
        text = json.dumps(self.spec, sort_keys=True)
        return str(self.result.get("spec_hash") or hashlib.sha256(text.encode()).hexdigest())

    @property
    def origin(self) -> str:
        """`simulated` as soon as one table is, of its own or of a stage that it goes on from; else `real`."""
        return "simulated" if _simulated(self.spec) else "real"

    @property
    def tables(self) -> Mapping[str, Mapping[str, Any]]:
        """The tables that it read: name to `{files, snapshot, origin}`."""
        return dict(self.spec.get("tables", {}))


def _simulated(spec: Mapping[str, Any]) -> bool:
    if any(ref["origin"] == "simulated" for ref in spec.get("tables", {}).values()):
        return True
    before = (Path(folder, "spec.json") for folder in spec.get("artifacts", {}).values())
    return any(_simulated(json.loads(file.read_text())) for file in before if file.is_file())


def log_stage(profile: Profile, spec_dir: Path, out_dir: Path) -> str:
    """Log one finished stage; returns the run's id. Safe to call again.

    Raises:
        DataError: the stage has not finished.
    """
    from mlflow.entities import RunStatus

    stage = StageRun.read(spec_dir, out_dir)
    client = connect(profile)
    place = experiment(client, profile, stage.spec["system"])
    run = _at(client, place, stage.out)
    if run is None or run.data.tags[tag("spec_hash")] != stage.spec_hash:
        tags = _tags(stage, code_commit(profile))
        run = client.create_run(place, start_time=stage.started, run_name=stage.name, tags=tags)
    elif run.info.status == RunStatus.to_string(RunStatus.FINISHED):
        return str(run.info.run_id)
    _fill(client, run.info.run_id, stage)
    client.set_terminated(run.info.run_id, end_time=stage.ended)
    return str(run.info.run_id)


def snapshots(client: MlflowClient, run_id: str) -> dict[str, set[int]]:
    """Table to the snapshots that this run, and the runs that made its artifacts, have read."""
    found: dict[str, set[int]] = {}
    for run in lineage(client, run_id):
        for name, value in run.data.tags.items():
            if name.startswith(tag("snapshot.")):
                found.setdefault(name.removeprefix(tag("snapshot.")), set()).add(int(value))
    return found


def lineage(client: MlflowClient, run_id: str) -> list[Run]:
    """The run, and before it, recursively, the logged runs whose folders it names as artifacts; each once."""
    found: dict[str, Run] = {}

    def gather(run: Run) -> None:
        # A stage is named by many later ones: without a look at what is known, paths are followed, and they multiply.
        if run.info.run_id in found:
            return
        for name, folder in sorted(run.data.tags.items()):
            if name.startswith(tag("artifact.")) and (earlier := _at(client, run.info.experiment_id, Path(folder))):
                gather(earlier)
        found[run.info.run_id] = run

    gather(client.get_run(run_id))
    return list(found.values())


def tag(name: str) -> str:
    """How our tag `name` is called in MLflow."""
    return _TAG + name


def metric_key(name: str) -> str:
    """MLflow allows no `@` in a metric's name: `recall@10` is `recall_at_10` there."""
    return name.replace("@", "_at_")


def metric_name(key: str) -> str:
    """The inverse of `metric_key`."""
    return key.replace("_at_", "@")


def _tags(stage: StageRun, commit: str) -> dict[str, str]:
    spec = stage.spec
    own = {
        "system": spec["system"],
        "stage": spec["stage"],
        "seed": spec["seed"],
        "origin": stage.origin,
        "code_commit": commit,
        "spec_hash": stage.spec_hash,
        "out": stage.out.resolve(),
        "out_hash": _path_hash(stage.out),
        **{f"snapshot.{t}": ref["snapshot"] for t, ref in stage.tables.items() if ref.get("snapshot") is not None},
        **{f"artifact.{name}": Path(folder).resolve() for name, folder in spec.get("artifacts", {}).items()},
    }
    source = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": stage_module(spec["system"], spec.get("module") or spec["stage"]),
        "mlflow.source.git.commit": commit,
    }
    return {**source, **{tag(name): str(value) for name, value in own.items()}}


def _at(client: MlflowClient, place: str, folder: Path) -> Run | None:
    """The newest run of that stage folder."""
    wanted = f"tags.`{tag('out_hash')}` = '{_path_hash(folder)}'"
    runs = client.search_runs([place], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    return runs[0] if runs else None


def _path_hash(folder: Path) -> str:
    """A path may hold quotes, which the store's search language cannot escape; its hash does not."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()


def _fill(client: MlflowClient, run_id: str, stage: StageRun) -> None:
    from mlflow.entities import Metric, Param

    params = [Param(key, str(value)) for key, value in _flat({"seed": stage.spec["seed"], **stage.config})]
    for batch in _batches(params, _PARAMS_PER_CALL):
        client.log_batch(run_id, params=batch)
    # One time for all: logging again then repeats the same points instead of adding new ones.
    points = [Metric(metric_key(key), float(value), stage.ended, step) for step, key, value in _points(stage)]
    for batch in _batches(points, _METRICS_PER_CALL):
        client.log_batch(run_id, metrics=batch)
    client.log_inputs(run_id, datasets=[_dataset(table, ref) for table, ref in stage.tables.items()])
    client.log_dict(run_id, dict(stage.spec), "spec.json")
    client.log_dict(run_id, _manifest(stage.out), "files.json")
    for file in _small_files(stage.out):
        parent = file.parent.relative_to(stage.out).as_posix()
        client.log_artifact(run_id, str(file), None if parent == "." else parent)
    for name in stage.result.get("tables", {}).get(COMPARISON, ()):
        client.log_artifact(run_id, str(stage.out / name), COMPARISON)


def _points(stage: StageRun) -> Iterator[tuple[int, str, float]]:
    last = 0
    path = stage.out / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else []:
        values = json.loads(line)
        last = int(values.pop("step"))
        yield from ((last, key, value) for key, value in values.items())
    final = {**stage.result["metrics"], "seconds": stage.result["seconds"]}
    yield from ((last, key, value) for key, value in final.items())


def _dataset(table: str, ref: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"table": table, "snapshot": ref.get("snapshot"), "files": len(ref["files"])}
    digest = hashlib.sha256("\n".join(sorted(ref["files"])).encode()).hexdigest()[:16]
    dataset = Dataset(table, digest, source_type="iceberg", source=json.dumps(source))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training"), InputTag("origin", ref["origin"])])


def _manifest(out: Path) -> dict[str, Any]:
    """Every file of the folder; large ones (weights, tables) stay where they are and are known by this line alone."""
    files = {
        file.relative_to(out).as_posix(): {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        for file in _files(out)
    }
    return {"folder": str(out.resolve()), "files": files}


def file_hash(path: Path) -> str:
    """Sha256 of a file's bytes (hex)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _small_files(out: Path) -> list[Path]:
    """What is worth a look in MLflow; the parts of a model are of use only together, with their weights."""
    files = (f for f in _files(out) if f.relative_to(out).parts[0] != "model")
    return [f for f in files if f.suffix not in _LARGE_KINDS and f.stat().st_size <= _SMALL_BYTES]


def _files(out: Path) -> list[Path]:
    """All files but the training state, and what a killed write has left: neither is of use once the stage is done."""
    inside = (Path(folder) / name for folder, _, names in os.walk(out) for name in names)
    return sorted(
        file
        for file in inside
        if not any(part == CHECKPOINTS or part.startswith(".") for part in file.relative_to(out).parts)
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path.name} is not there.", where=str(path.parent), why="The stage has not finished.")
    return path.read_text()
