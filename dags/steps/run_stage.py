"""Runs one training stage: resolves its tables to files, launches it, logs it, publishes what it wrote.

`run` does it all; where a pod does the training, `prepare` comes before it and `finish` after it. All can be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dags.pipelines import Pipeline, Stage, load_pipeline
from dags.steps._arguments import of_run
from dags.steps._folders import Run, open_run, write_spec
from dags.steps._publish import publish_rows
from infra.errors import exit_with_reason
from infra.launch import EXIT_CODE_FILE, build_command, launch, local_gpus
from infra.profile import Profile, load_profile
from infra.results import hand_on


def main() -> int:
    """Run one action on one stage; the exit code of a failed stage is the stage's own."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.run_stage", description=__doc__)
    parser.add_argument("action", choices=("run", "prepare", "finish"))
    parser.add_argument("--stage", required=True)
    arguments = of_run(parser).parse_args()
    profile = load_profile()
    pipeline = load_pipeline(arguments.system, profile.training_preset)
    stage = pipeline.stage(arguments.stage)
    run = open_run(profile, pipeline, arguments.run_id, arguments.partition)
    code = 0
    if arguments.action in ("run", "prepare"):
        (run.stage(stage.name) / EXIT_CODE_FILE).unlink(missing_ok=True)
        hand_on({"spec": str(write_spec(profile, pipeline, stage, run))})
    if arguments.action == "run":
        code = train(profile, pipeline, stage, run)
    if arguments.action in ("run", "finish") and code == 0:
        finish(profile, stage, run)
    return code


def train(profile: Profile, pipeline: Pipeline, stage: Stage, run: Run) -> int:
    """Launch the stage on this machine, with no more GPUs than it asks for.

    The store of runs is opened meanwhile: importing MLflow takes a core for seconds, and the stage begins with imports
    on another. What is wrong with the store is said when the stage is logged.
    """
    out = run.stage(stage.name)
    gpus = min(stage.gpu.count, local_gpus())
    command = build_command(f"{pipeline.system}.{stage.name}", out / "spec.json", profile, gpus)
    with ThreadPoolExecutor(1) as meanwhile:
        meanwhile.submit(_open_store, profile, pipeline.system)
        return launch(command, out, _say, gpus)


def _open_store(profile: Profile, system: str) -> None:
    from registry.store import connect, experiment

    experiment(connect(profile), profile, system)


def finish(profile: Profile, stage: Stage, run: Run) -> None:
    """Log the finished stage and publish its tables; a stage that was left out has none."""
    from registry.runs import log_stage

    out = run.stage(stage.name)
    _say(f"logged as run {log_stage(profile, out, out)}")
    result = json.loads((out / "result.json").read_text())
    tables = result["tables"]
    for table in () if result.get("left_out") else stage.writes.tables:
        rows = of_day(pq.read_table([out / file for file in tables[table]]), run.last)
        changed = publish_rows(profile, table, rows, inputs=(_name(run, stage),))
        _say(f"{table}: {len(rows)} rows, {len(changed)} partitions changed")


def of_day(rows: pa.Table, day: date) -> pa.Table:
    """The rows with their partition: a stage knows no days, its tables are of the last day of its run."""
    return rows.append_column("run_date", pa.array([day] * len(rows), pa.date32()))


def _name(run: Run, stage: Stage) -> str:
    return f"{run.folder.parent.name}/{run.folder.name}/{stage.name}"


def _say(line: str | Path) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    exit_with_reason(main)
