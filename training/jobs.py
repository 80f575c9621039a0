"""`python -m training bench --job NAME --samples DIR --out DIR`: the stages of a pipeline in order, on one machine.

For a machine that has the code and a folder of sample tables (`<table>.parquet`) and nothing else: no lake, no Spark,
no scheduler. The rows of a stage's query may be one of the files, under its name (`bids.parquet`). A job is
`training/<system>/jobs/<name>.yaml`: the system, the preset, and what differs from it by stage; or the job that it is
`like`, and what differs from that. Each run ends after `--minutes`, with exit code 75 and a
checkpoint if it is not done: run it again and it goes on. The results are `<out>/<stage>/result.json` and
`metrics.jsonl`, and `<out>/job.json` over all.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from common.config import parse_config, read_yaml
from common.folders import make_folder
from common.models import ModelVersion
from common.pipelines import SYSTEMS, Preset, Stage, read_pipeline, stage_module
from training.core.errors import DataError, exit_code_of
from training.core.files import write_json
from training.core.preemption import preemptible
from training.core.stage import StageSpec, TableRef, run_stage


@dataclass(frozen=True)
class Job:
    """`config`: by stage, over the preset's. A stage that the preset leaves out but `config` names runs with it alone.

    `stages`: those to run, in the pipeline's order; empty: all.
    """

    system: str
    preset: Preset = "bench"
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: tuple[str, ...] = ()


def load_job(name: str, root: Path = SYSTEMS) -> Job:
    """Read a job by its name; DataError that lists the known ones."""
    known = {path.stem: path for path in sorted(root.glob("*/jobs/*.yaml"))}
    return parse_config(Job, _read_job(name, known), str(known.get(name)))


def _read_job(name: str, known: Mapping[str, Path]) -> dict[str, Any]:
    if name not in known:
        raise DataError(f"there is no job {name}", do=f"choose one of: {', '.join(known) or '(none)'}")
    values = read_yaml(known[name])
    like = values.pop("like", None)
    return values if like is None else merged(_read_job(like, known), values, nulls=True)


def stage_specs(
    job: Job, samples: Path, out: Path, seed: int, root: Path = SYSTEMS, models: Mapping[str, Path] | None = None
) -> list[StageSpec]:
    """The spec of every stage of the job, in order; `models`: folders of what other systems have made, by name.

    Raises:
        DataError: a stage, a table or a model that is not there.
    """
    given = models or {}
    if absent := [str(folder) for folder in given.values() if not folder.is_dir()]:
        raise DataError("there is no such model folder", where=absent[0], do="name the `model/` that a job has left")
    stages = read_pipeline(job.system, root).under(job.preset, also=job.config).stages
    names = [stage.name for stage in stages]
    unknown = (set(job.config) | set(job.stages)) - set(names)
    if unknown:
        raise DataError(f"the job names unknown stages: {', '.join(sorted(unknown))}", do=f"use {', '.join(names)}")
    chosen = [stage for stage in stages if not job.stages or stage.name in job.stages]
    ran = {stage.name for stage in chosen}
    return [_spec(job, stage, ran, samples, out, seed, given) for stage in chosen]


def _spec(
    job: Job, stage: Stage, ran: Set[str], samples: Path, out: Path, seed: int, models: Mapping[str, Path]
) -> StageSpec:
    """`ran`: the stages of the job. What another stage would have made is not there, as in a preset without it."""
    files = {table: samples / f"{table}.parquet" for table in stage.reads.tables}
    missing = sorted(str(file) for file in files.values() if not file.is_file())
    if missing:
        raise DataError("a sample table is missing", where=missing[0], do="copy the whole folder of sample tables")
    if (query := stage.reads.query) and (rows := samples / f"{query.table}.parquet").is_file():
        files[query.table] = rows
    return StageSpec(
        job.system,
        stage.name,
        str(out / stage.name),
        seed,
        module=stage.code,
        tables={table: TableRef((str(file),), origin=_origin(file)) for table, file in files.items()},
        artifacts={name: str(out / name) for name in stage.reads.artifacts if name in ran},
        models={
            name: (ModelVersion("given", "challenger", str(models[name])),)
            for name in stage.reads.models
            if name in models
        },
        config=merged(stage.config[job.preset], job.config.get(stage.name, {})),
    )


def _origin(file: Path) -> str:
    """What the file says of itself (`training.next_item.public_sets`); those that say nothing are real."""
    try:
        metadata: Mapping[bytes, bytes] = pq.read_schema(file).metadata or {}
    except pa.ArrowInvalid as error:
        do = "copy the whole folder of sample tables again"
        raise DataError("a sample table cannot be read", where=str(file), why=str(error), do=do) from error
    return metadata.get(b"origin", b"real").decode()


def merged(base: Mapping[str, Any], over: Mapping[str, Any], nulls: bool = False) -> dict[str, Any]:
    """`base` with the values of `over`, mappings within merged the same way; null takes a value out.

    `nulls` keeps those of `over`, for what the result itself is set over.
    """
    both = {
        key: merged(below if isinstance(below := base.get(key), Mapping) else {}, value, nulls)
        for key, value in over.items()
        if isinstance(value, Mapping)
    }
    taken_out = set() if nulls else {key for key, value in over.items() if value is None}
    return {key: value for key, value in {**base, **over, **both}.items() if key not in taken_out}


def run(specs: Sequence[StageSpec], out: Path) -> None:
    """Run the stages that are not done; `job.json` grows with each. DataError before the first for what cannot run."""
    for spec in specs:
        parse_config(_module(spec).Config, spec.config, f"{spec.system}.{spec.stage}")
        _refuse_other_seed(spec)
    done: dict[str, Any] = {"machine": machine(), "stages": {}}
    for number, spec in enumerate(specs, start=1):
        started = time.monotonic()
        sys.stdout.write(f"[{number}/{len(specs)}] {spec.stage}\n")
        sys.stdout.flush()
        make_folder(spec.out_dir)
        write_json(spec.out_dir / "spec.json", asdict(spec))
        ran = run_stage(spec, _module(spec).main)
        seconds = time.monotonic() - started
        sys.stdout.write(f"    {f'{seconds:.0f} s' if ran else 'done before'}\n")
        done["stages"][spec.stage] = json.loads((spec.out_dir / "result.json").read_text())
        write_json(out / "job.json", done)


def _module(spec: StageSpec) -> Any:
    return importlib.import_module(stage_module(spec.system, spec.code))


def _refuse_other_seed(spec: StageSpec) -> None:
    file = spec.out_dir / "spec.json"
    before = json.loads(file.read_text())["seed"] if file.is_file() else spec.seed
    if before != spec.seed:
        raise DataError(
            f"the folder holds a run of seed {before}, and this one has seed {spec.seed}",
            where=str(spec.out_dir),
            why="what it holds would be lost",
            do="give each seed a folder of its own with --out",
        )


def machine() -> str:
    """The device that the stages run on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    # As if the machine were taken away: the stage saves a checkpoint and ends. Said past `sys.stderr`, as what this
    # interrupts may be in the middle of writing to it.
    os.write(2, b"the time of this run is up (--minutes); the same command goes on\n")
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Run a job; 75 where its time is up and another run goes on with it."""
    parser = argparse.ArgumentParser(prog="python -m training bench", description=__doc__)
    parser.add_argument("--job", required=True)
    parser.add_argument("--samples", type=Path, required=True, help="folder of <table>.parquet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--minutes", type=float, default=9.0, help="how long this run may take; 0: to the end")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        type=_model,
        metavar="NAME=FOLDER",
        help="a model that a stage reads: the `model/` that a job of its system has left; without it there is none",
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    try:
        return exit_code_of(lambda: _run_job(options))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _model(written: str) -> tuple[str, Path]:
    name, _, folder = written.partition("=")
    if not (name and folder):
        raise argparse.ArgumentTypeError(f"{written!r} is not NAME=FOLDER")
    return name, Path(folder)


def _run_job(options: argparse.Namespace) -> None:
    job, models = load_job(options.job), dict(options.model)
    with preemptible():
        run(stage_specs(job, options.samples, options.out, options.seed, models=models), options.out)
