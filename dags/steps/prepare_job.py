"""Before a job of every so many minutes: Spark builds the tables that it asks for, where there is something to do.

What there is not to do is handed on, and the tasks that follow are skipped: before a model that it reads has a champion
(Spark is not started then), and where its query has no row and the online store knows all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import date

from common.pipelines import Job, load_pipeline
from dags.steps._arguments import of_run
from dags.steps._inputs import query_rows
from infra import telemetry
from infra.errors import exit_with_reason
from infra.lake import Lake
from infra.profile import CHECKOUT, Profile, load_profile
from infra.results import NOTHING, hand_on
from registry.promotions import Promotions


def main() -> int:
    """Build what the job's query is asked of; the exit code is that of what failed."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.prepare_job", description=__doc__)
    parser.add_argument("--job", required=True, help="of the system")
    arguments = of_run(parser).parse_args()
    telemetry.apply()
    profile = load_profile()
    job = load_pipeline(arguments.system, profile.training_preset).job(arguments.job)
    if lacking := without_champion(profile, job):
        return _nothing(f"no version of {' and '.join(lacking)} has been promoted yet")
    for table in job.builds:
        # In a process of its own: rooms do not import each other, and a JVM is not kept beside a stage.
        if code := subprocess.call([sys.executable, "-m", "spark_jobs", table], cwd=CHECKOUT):
            return code
    if not has_work(profile, arguments.system, job, arguments.partition):
        return _nothing("nobody has done anything since that calls for it")
    return 0


def without_champion(profile: Profile, job: Job) -> list[str]:
    """The models of the job that have no champion. The ledger is asked: MLflow, whose aliases follow it, takes seconds
    to import."""
    ledger = Promotions(profile)
    return [model for model in job.stage.reads.models if ledger.champion(model) is None]


def has_work(profile: Profile, system: str, job: Job, day: date) -> bool:
    """Whether its query has rows, or the online store was not told of all that it has written."""
    query = job.stage.reads.query
    if query is None or len(query_rows(Lake(profile), system, query, day, {})):
        return True
    if not job.online:
        return False
    from feature_store.push import pending, pushed_view

    return any(pending(profile, pushed_view(name)) for name in job.online)


def _nothing(reason: str) -> int:
    sys.stdout.write(f"nothing to do: {reason}\n")
    hand_on({NOTHING: reason})
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
