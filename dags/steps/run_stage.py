"""Runs one stage: of a training run (`--stage`), or a job of the system (`--job`).

`run` does it all: resolves what it reads to files, launches it, logs it, publishes what it wrote. Where a pod does the
work, `prepare` comes before it and `finish` after it. All can be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.pipelines import Pipeline, Stage, load_pipeline
from dags.steps._arguments import of_run as add_run
from dags.steps._folders import JOBS, Run, hold
from dags.steps._publish import publish_rows
from dags.steps._runs import open_job, open_run
from dags.steps._specs import write_spec
from infra import telemetry
from infra.contracts import Contract, load_contract
from infra.errors import exit_with_reason
from infra.launch import EXIT_CODE_FILE, build_command, launch, local_gpus
from infra.profile import Profile, load_profile
from infra.results import hand_on


def main() -> int:
    """Run one action on one stage; the exit code of a failed stage is the stage's own."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.run_stage", description=__doc__)
    parser.add_argument("action", choices=("run", "prepare", "finish"))
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--stage", help="of the training run")
    which.add_argument("--job", help="of the system")
    arguments = add_run(parser).parse_args()
    telemetry.apply()
    profile = load_profile()
    pipeline = load_pipeline(arguments.system, profile.training_preset)
    if not arguments.job:
        stage = pipeline.stage(arguments.stage)
        run = open_run(profile, pipeline, arguments.run_id, arguments.partition)
        return act(arguments.action, profile, pipeline, stage, run)
    job = pipeline.job(arguments.job)
    # The job's own DAG and a promotion may both ask for the same day: the later one finds what the first has made.
    with hold(profile.home / "stages" / JOBS / job.name, alone=True):
        return act(
            arguments.action, profile, pipeline, job.stage, open_job(profile, pipeline, job, arguments.partition)
        )


def act(action: str, profile: Profile, pipeline: Pipeline, stage: Stage, run: Run) -> int:
    """Do `run`, `prepare` or `finish` of an opened stage; returns the exit code."""
    code = 0
    if action in ("run", "prepare"):
        (run.stage(stage.name) / EXIT_CODE_FILE).unlink(missing_ok=True)
        hand_on({"spec": str(write_spec(profile, pipeline, stage, run))})
    if action == "run":
        code = train(profile, pipeline, stage, run)
    if action in ("run", "finish") and code == 0:
        finish(profile, pipeline.system, stage, run)
    return code


def train(profile: Profile, pipeline: Pipeline, stage: Stage, run: Run) -> int:
    """Launch the stage on this machine, with no more GPUs than it asks for.

    What logs and checks its results is imported meanwhile: that takes a core for seconds, and the stage begins with
    imports on another. What is wrong with the store of runs is said when the stage is logged.
    """
    out = run.stage(stage.name)
    gpus = min(stage.gpu.count, local_gpus())
    command = build_command(f"{pipeline.system}.{stage.name}", out / "spec.json", profile, gpus)
    with ThreadPoolExecutor(1) as meanwhile:
        meanwhile.submit(_import_ahead, profile, pipeline.system, bool(stage.writes.tables))
        return launch(command, out, _say, gpus)


def _import_ahead(profile: Profile, system: str, publishes: bool) -> None:
    from infra.quality import import_ahead
    from registry.store import connect, experiment

    experiment(connect(profile), profile, system)
    if publishes:
        import_ahead().join()


def finish(profile: Profile, system: str, stage: Stage, run: Run) -> None:
    """Log the finished stage and publish its tables; a stage that was left out has none."""
    from registry.runs import log_stage

    out = run.stage(stage.name)
    _say(f"logged as run {log_stage(profile, out, out)}")
    result = json.loads((out / "result.json").read_text())
    for table in () if result.get("left_out") else stage.writes.tables:
        contract = load_contract(table)
        writer = {"system": system, "stage": stage.name}
        writer = {name: value for name, value in writer.items() if name in contract.key}
        rows = of_run(pq.read_table([out / file for file in result["tables"][table]]), contract, run.last, writer)
        changed = publish_rows(profile, table, rows, (f"{system}/{run.folder.name}/{stage.name}",), writer)
        _say(f"{table}: {len(rows)} rows, {len(changed)} partitions changed")


def of_run(rows: pa.Table, contract: Contract, day: date, writer: Mapping[str, str]) -> pa.Table:
    """The rows with what a stage does not know of itself: their partition, and the writer's columns.

    Rows that name no day are of the last day of the run.
    """
    constants = {name: pa.scalar(value) for name, value in writer.items()}
    constants[contract.partition] = pa.scalar(day, pa.date32())
    for name in constants.keys() - set(rows.schema.names):
        rows = rows.append_column(name, pa.repeat(constants[name], len(rows)))
    return rows


def _say(line: str | Path) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    exit_with_reason(main)
