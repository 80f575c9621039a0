"""A Spark job whose JVM is killed, or whose memory does not suffice, through the command line: code 75 and words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from infra.errors import EXIT_TRANSIENT
from infra.profile import CHECKOUT, load_profile
from tests.landing_kit import ITEMS, Shop, many_good_events

# A job of our own, whose query the test gives.
QUERY = """
import sys
from infra.errors import exit_with_reason
from infra.profile import load_profile
from spark_jobs.engine.spark import explained, spark_session
def main():
    profile = load_profile()
    with explained(profile):
        spark_session(profile).sql(sys.argv[1]).collect()
    return 0
exit_with_reason(main)
"""


def start(*argv: str, state: Mapping[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, **state, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    command = [sys.executable, *argv]
    return subprocess.Popen(command, cwd=CHECKOUT, env=environment, text=True, stdout=pipe, stderr=subprocess.STDOUT)


def test_a_job_whose_jvm_is_killed_may_be_retried_says_why_and_its_retry_ends_the_same(tmp_path: Path) -> None:
    state = {"PLUMBLINE__HOME": str(tmp_path / "home"), "PLUMBLINE__LANDING": str(tmp_path / "landing")}
    shop = Shop(load_profile("local", environ=state))
    shop.put("items.csv", ITEMS)
    shop.put("events.csv", many_good_events())
    job = start("-m", "spark_jobs", "items", "events", state=state)
    assert job.stdout is not None
    for line in job.stdout:
        if "events: building" in line:  # Spark is in the middle of a partition, and has published another table
            (jvm,) = [child for child in psutil.Process(job.pid).children() if child.name() == "java"]
            jvm.kill()
            break
    said = job.stdout.read()

    assert job.wait() == EXIT_TRANSIENT, said
    assert "error: Spark's JVM was killed by the system, most likely out of memory." in said
    (held,) = re.findall(r"signal 9 \(SIGKILL\); it held (\d+\.\d) GiB at its peak", said)
    assert float(held) > 0.1
    assert "spark.driver.memory (now 3g) in infra/profiles/local.yaml" in said
    assert "Traceback" not in said
    assert shop.rows("events") == []
    again = start("-m", "spark_jobs", "items", "events", state=state)
    assert "items: nothing new" in again.communicate()[0]
    assert (again.returncode, len(shop.rows("events"))) == (0, 30)


@pytest.mark.parametrize(
    "query",
    [
        "select length(repeat('x', 2000000000))",  # in the driver, whose JVM lives on
        "select collect_list(repeat(cast(id as string), 30000)) from range(20000)",  # in a task, which ends its JVM
    ],
)
def test_a_jvm_whose_memory_does_not_suffice_is_no_bug(tmp_path: Path, query: str) -> None:
    small = {"PLUMBLINE__HOME": str(tmp_path), "PLUMBLINE__SPARK__CONF__SPARK.DRIVER.MEMORY": "512m"}
    job = start("-c", QUERY, query, state=small)
    said, _ = job.communicate()
    assert job.returncode == EXIT_TRANSIENT, said
    assert "error: Spark's JVM ran out of memory." in said
    assert "spark.driver.memory (now 512m) in infra/profiles/local.yaml" in said
