"""A job under `spark-submit`, as a cluster starts it: the command of the documentation, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.profile import CHECKOUT, load_profile
from tests.landing_kit import ITEMS, Shop


def test_spark_submit_runs_a_job(tmp_path: Path) -> None:
    state = {"PLUMBLINE__HOME": str(tmp_path / "home"), "PLUMBLINE__LANDING": str(tmp_path / "landing")}
    shop = Shop(load_profile("local", environ=state))
    shop.put("items.csv", ITEMS)
    options = ["--driver-memory", "3g", "--driver-java-options", "-XX:-DontCompileHugeMethods"]
    command = [str(Path(sys.executable).with_name("spark-submit")), *options, "spark_jobs/__main__.py", "items"]

    ended = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **state, "PYSPARK_PYTHON": sys.executable},
        text=True,
        capture_output=True,
    )

    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "items: 1 partitions published" in ended.stdout
    assert {row["item_id"] for row in shop.rows("items")} == {row["item_id"] for row in ITEMS}
