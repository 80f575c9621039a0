"""`market simulate` as a process, killed at a moment: no half log, and the next run writes the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.errors import DataError
from infra.profile import CHECKOUT, load_profile
from spark_jobs.engine.spark import spark_session
from spark_jobs.market import simulate as simulation
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate
from spark_jobs.market.written import Written
from tests.unit.spark_jobs.market.kit import items, parameters, with_desk

MOMENTS = ("half a file", "between two files", "before it is renamed")
_WHOLE = 30  # files before the kill


def ordered(folder: Path, seed: int = 7) -> Order:
    return Order(4_000, seed, date(2026, 1, 1), 10, folder)


def run(spark: SparkSession, order: Order) -> None:
    simulate(spark, Shop.of(items(), parameters(), order.seed), parameters(), order, with_desk().desk)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Victim(Written):
    """Of what a worker writes: kills the command, in the middle of a file or between two, once enough are there."""

    def table(self, name: str, numbers: pa.Table) -> pa.Table:
        """As ever, until then."""
        if len(list(Path(os.environ["VICTIM_FOLDER"]).parent.rglob("*.parquet"))) >= _WHOLE:
            if os.environ["VICTIM_MOMENT"] == "between two files":
                _kill()
            pq.write_table = _half
        return super().table(name, numbers)


def _half(rows: pa.Table, path: Path, **_: Any) -> None:
    path.write_bytes(b"PAR1 and no more")
    _kill()


def _kill(*_: Any) -> None:
    os.kill(int(os.environ["VICTIM"]), signal.SIGKILL)
    time.sleep(60)  # until Spark has noticed that nobody waits for it


def main(folder: Path, moment: str) -> None:
    """The process that is killed."""
    os.environ |= {"VICTIM": str(os.getpid()), "VICTIM_FOLDER": str(folder), "VICTIM_MOMENT": moment}
    spark = spark_session(load_profile())
    if moment == "before it is renamed":
        Path.rename = _kill  # type: ignore[method-assign]
    else:
        # By the name that workers import it by: this module is `__main__` here.
        from tests.integration.test_market_kills import Victim as Named

        simulation.Written = Named  # type: ignore[misc]
    run(spark, ordered(folder))


def killed(folder: Path, moment: str) -> None:
    home = {"PLUMBLINE__HOME": str(folder.parent / "home"), "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'mlflow'}"}
    command = [sys.executable, "-m", "tests.integration.test_market_kills", str(folder), moment]
    done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **home}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def undisturbed(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "log"
    run(spark, ordered(folder))
    return contents(folder)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_leaves_no_half_log_and_the_next_one_the_same_bytes(
    spark: SparkSession, undisturbed: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    folder = tmp_path / "log"
    killed(folder, moment)
    (begun,) = tmp_path.glob(".log.begun")
    left = list(begun.rglob("*.parquet"))
    assert not folder.exists() and len(left) >= _WHOLE
    if moment == "half a file":
        assert any(file.read_bytes() == b"PAR1 and no more" for file in left)
    with pytest.raises(DataError, match="by another order") as refused:
        run(spark, ordered(folder, seed=8))
    assert "seed: 7 there, 8 now" in refused.value.why and not folder.exists()
    run(spark, ordered(folder))
    assert contents(folder) == undisturbed
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"log"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
