"""Publishes the best items of every active user by champion and challenger: the table `recommendations` of one day.

Where there is no champion, the best baseline of the newest evaluation makes the lists in its place. All choose from the
catalogue of the day, its newest delivery up to then: another delivery makes other lists.
As `run_stage`: `run` does it all, `prepare` and `finish` come before and after a pod. All can be repeated: what was
decoded from the same histories and catalogue by the same version is not decoded again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dags.pipelines import Pipeline, load_pipeline
from dags.steps._active import active_histories
from dags.steps._arguments import of_run
from dags.steps._folders import MODELS, Run, hold, open_night, opened, read_run, stages_of, table_ref, write_json
from dags.steps._publish import content_hash
from dags.steps.run_stage import finish, train
from feature_store.sources import require_committed
from infra import telemetry
from infra.errors import DataError, exit_with_reason
from infra.lake import Lake
from infra.launch import EXIT_CODE_FILE
from infra.ledger import Ledger
from infra.profile import Profile, load_profile
from infra.quality import import_ahead
from infra.results import hand_on

BASELINE = "baseline"  # the role, and the folder that an evaluation leaves


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
        audit(run.stage(stage.name))
        finish(profile, stage, run)
        return 0
    versions = prepare(profile, pipeline, run)
    code = 0
    if arguments.action == "run" and versions:
        import_ahead()  # what judges the lists is imported while they are made
        code = train(profile, pipeline, stage, run)
        if code == 0:
            audit(run.stage(stage.name))
            finish(profile, stage, run)
    return code


def audit(out: Path) -> None:
    """Stop lists that hold what the catalogue of the day does not.

    Raises:
        DataError: there is such an item.
    """
    spec, result = (json.loads((out / name).read_text()) for name in ("spec.json", "result.json"))
    if not spec["artifacts"]:
        return
    listed = _items_of(out / file for file in result["tables"]["recommendations"])
    if gone := sorted(listed - _items_of(spec["tables"]["items"]["files"])):
        raise DataError(
            f"{len(gone)} items of the lists are not in the catalogue of the day.",
            where=", ".join(gone[:5]),
            do="The lists of before stay. This is a bug of the stage recommend: report it.",
        )


def prepare(profile: Profile, pipeline: Pipeline, run: Run) -> dict[str, str]:
    """Write the spec of the decoding; returns what is decoded, version to role.

    Raises:
        DataError: the histories of the day are not committed.
    """
    stage = pipeline.nightly_stage()
    lake, out = Lake(profile), run.stage(stage.name)
    require_committed(Ledger(profile), "histories", run.last, run.last)
    asked = active_histories(lake, run.last, profile.recommend.active_days)
    _say(f"{len(asked)} users were active in the {profile.recommend.active_days} days up to {run.last}")
    roles, folders = _makers(profile, pipeline) if len(asked) else ({}, {})
    out.mkdir(parents=True, exist_ok=True)
    (out / EXIT_CODE_FILE).unlink(missing_ok=True)
    spec: dict[str, Any] = {
        "system": pipeline.system,
        "stage": stage.name,
        "out": str(out),
        "seed": pipeline.seed,
        "tables": {
            "histories": _written(asked, out) | _facts(lake, "histories"),
            "items": table_ref(lake, "items", run),
        },
        "artifacts": folders,
        "config": {**stage.config[profile.training_preset], "roles": roles},
    }
    hand_on({"spec": str(write_json(out / "spec.json", spec))})
    return roles


def _makers(profile: Profile, pipeline: Pipeline) -> tuple[dict[str, str], dict[str, str]]:
    """Role and folder of each that makes lists: the versions that stand, a baseline where none is champion."""
    from registry.aliases import CHAMPION, active_versions

    found = active_versions(profile, pipeline.model)
    for role, version in found.items():
        _say(f"{role}: {pipeline.model} version {version}")
    roles = {version: role for role, version in found.items()}
    folders = _models(profile, pipeline, list(roles))
    if CHAMPION not in found:
        baseline = _baseline(profile, pipeline)
        roles |= dict.fromkeys(baseline, BASELINE)
        folders |= baseline
        by = f"the lists are by the baseline {', '.join(baseline)}" if baseline else "no baseline was measured either"
        _say(f"{pipeline.model} has no champion yet, as nobody has promoted a version: {by}")
    return roles, folders


def _baseline(profile: Profile, pipeline: Pipeline) -> dict[str, str]:
    """Name and folder of the best baseline of the newest evaluation; none before the first."""
    root = stages_of(profile, pipeline)
    with hold(root):
        found = list(root.glob(f"*/{pipeline.stages[-1].name}/{BASELINE}/{BASELINE}.json"))
        if not found:
            return {}
        newest = max(found, key=lambda file: (read_run(file.parents[2]).last, file.stat().st_mtime))
        opened(newest.parents[2])
        return {json.loads(newest.read_text())["name"]: str(newest.parent)}


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


def _items_of(files: Iterable[str | Path]) -> set[str]:
    tables = [pq.read_table(file, columns=["item_id"]) for file in files]
    return {item for table in tables for item in table["item_id"].to_pylist()}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    exit_with_reason(main)
