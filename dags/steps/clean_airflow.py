"""Deletes Airflow's own history that is older than a quarter; on a cluster that is the Airflow chart's affair."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from infra.airflow_env import airflow_environment
from infra.errors import EXIT_TRANSIENT, exit_with_reason
from infra.profile import Profile, load_profile

KEEP = timedelta(days=90)


def main() -> int:
    """Run `airflow db clean`; a locked database is tried again later."""
    profile = load_profile()
    if profile.launcher.kind != "local":
        sys.stdout.write("Left to the Airflow chart's own clean-up job.\n")
        return 0
    command = clean_command(datetime.now(UTC))
    done = subprocess.run(command, env=clean_environment(profile), check=False)
    return 0 if done.returncode == 0 else EXIT_TRANSIENT


def clean_command(now: datetime) -> list[str]:
    """`airflow db clean` for everything older than `KEEP`."""
    before = (now - KEEP).isoformat(timespec="seconds")
    options = ["--clean-before-timestamp", before, "--skip-archive", "--yes"]
    return [sys.executable, "-m", "airflow", "db", "clean", *options]


def clean_environment(profile: Profile) -> dict[str, str]:
    """A task's own environment names no database, on purpose; this command is the one that may open it."""
    inherited = {name: value for name, value in os.environ.items() if "SQL_ALCHEMY_CONN" not in name}
    return {**inherited, **airflow_environment(profile)}


if __name__ == "__main__":
    exit_with_reason(main)
