"""Publishes the best items of every active user by champion and challenger: the table `recommendations` of one day.

As `run_stage`: `run` does it all, `prepare` and `finish` come before and after a pod. All can be repeated: what was
decoded from the same histories by the same version is not decoded again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dags.pipelines import Pipeline, load_pipeline
from dags.steps._active import active_histories
from dags.steps._arguments import of_run
from dags.steps._folders import MODELS, Run, hold, open_night, opened, stages_of, write_json
from dags.steps._publish import content_hash
from dags.steps.run_stage import finish, train
from feature_store.sources import require_committed
from infra import telemetry
from infra.errors import exit_with_reason
from infra.lake import Lake
from infra.launch import EXIT_CODE_FILE
from infra.ledger import Ledger
from infra.profile import Profile, load_profile
from infra.quality import import_ahead
from infra.results import hand_on


def main() -> int:
    """Run one action for the last day of the range; the exit code of a failed stage is the stage's own."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.recommend", description=__doc__)
    parser.add_argument("action", choices=("run", "prepare", "finish"))
    arguments = of_run(parser).parse_args()
    telemetry.apply()
    profile = load_profile()
    pipeline = load_pipeline(arguments.system, profile.training_preset)
    stage, day = pipeline.nightly_stage(), arguments.partition
    run = open_night(profile, pipeline, day)
    if arguments.action == "finish":
        finish(profile, stage, run)
        return 0
    versions = prepare(profile, pipeline, run)
    code = 0
    if arguments.action == "run" and versions:
        import_ahead()  # what judges the lists is imported while they are made
        code = train(profile, pipeline, stage, run)
        if code == 0:
            finish(profile, stage, run)
    return code


def prepare(profile: Profile, pipeline: Pipeline, run: Run) -> dict[str, str]:
    """Write the spec of the decoding; returns what is decoded, version to role.

    Raises:
        DataError: the histories of the day are not committed.
    """
    stage = pipeline.nightly_stage()
    lake, out = Lake(profile), run.stage(stage.name)
    require_committed(Ledger(profile), "histories", run.last, run.last)
    asked = active_histories(lake, run.last, profile.recommend.active_days)
    versions = _versions(profile, pipeline.model) if len(asked) else {}
    _say(f"{len(asked)} users were active in the {profile.recommend.active_days} days up to {run.last}")
    out.mkdir(parents=True, exist_ok=True)
    (out / EXIT_CODE_FILE).unlink(missing_ok=True)
    spec: dict[str, Any] = {
        "system": pipeline.system,
        "stage": stage.name,
        "out": str(out),
        "seed": pipeline.seed,
        "tables": {"histories": _written(asked, out) | _facts(lake, "histories")},
        "artifacts": _models(profile, pipeline, list(versions)),
        "config": {**stage.config[profile.training_preset], "roles": versions},
    }
    hand_on({"spec": str(write_json(out / "spec.json", spec))})
    return versions


def _versions(profile: Profile, model: str) -> dict[str, str]:
    """Version to role of what stands in the registry."""
    from registry.aliases import CHAMPION, standing

    found = standing(profile, model)
    if CHAMPION not in found:
        _say(f"{model} has no champion yet: nobody has promoted a version")
    for role, version in found.items():
        _say(f"{role}: {model} version {version}")
    return {version: role for role, version in found.items()}


def _models(profile: Profile, pipeline: Pipeline, versions: list[str]) -> dict[str, str]:
    from registry.packaging import unpack

    root = stages_of(profile, pipeline)
    with hold(root):
        return {version: str(opened(unpack(profile, pipeline.model, version, root / MODELS))) for version in versions}


def _written(rows: pa.Table, folder: Path) -> dict[str, Any]:
    """The rows in a file that is named by what it holds, as the files of a spec's table."""
    file = folder / f"histories-{content_hash(rows)[:16]}.parquet"
    pq.write_table(rows, file)
    return {"files": [str(file)]}


def _facts(lake: Lake, table: str) -> dict[str, Any]:
    return {"snapshot": lake.snapshot(table), "origin": lake.contract(table).origin}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    exit_with_reason(main)
