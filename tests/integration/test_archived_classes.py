"""The archive of Spark's classes from the set-up: a JVM maps it, and one that is of something else does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.profile import CHECKOUT
from spark_jobs.engine import spark

# What the JVM of a session has mapped, and that it answers.
QUERY = """
import sys
from pathlib import Path
from infra.profile import load_profile
from spark_jobs.engine import spark
spark._CLASSES = Path(sys.argv[1])
session = spark.spark_session(load_profile())
jvm = session.sparkContext._gateway.proc.pid
print("mapped" if sys.argv[1] in Path(f"/proc/{jvm}/maps").read_text() else "not mapped", session.range(7).count())
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped"
)


def asked(archive: Path, home: Path) -> str:
    state = {**os.environ, "PLUMBLINE__HOME": str(home)}
    command = [sys.executable, "-c", QUERY, str(archive)]
    return subprocess.run(command, cwd=CHECKOUT, env=state, check=True, text=True, stdout=subprocess.PIPE).stdout


@pytest.mark.skipif(not spark._CLASSES.exists(), reason="the set-up has left the archive out")
def test_a_jobs_jvm_maps_the_archive_of_its_environment(tmp_path: Path) -> None:
    archive = spark._CLASSES.resolve()

    assert asked(archive, tmp_path) == "mapped 7\n"


def test_an_archive_of_something_else_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "classes"
    archive.write_text("of no Java at all")

    assert asked(archive, tmp_path) == "not mapped 7\n"
