"""Each folder `spark_cases/<job>/<case>` is a test: input tables as YAML, and the rows that must come out.

`expect.yaml` names the partitions, the settings that differ from the job's, and the rows, of which only the written
columns are compared. Where a job has a `peer.sql`, DuckDB must give the whole rows of the job on the same input.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from pyspark.sql import SparkSession

from infra.contracts import load_contract
from infra.profile import load_profile

CASES = Path(__file__).parent / "spark_cases"
FOLDERS = sorted(path.parent for path in CASES.glob("*/*/expect.yaml"))
WITH_PEER = [folder for folder in FOLDERS if (folder.parent / "peer.sql").exists()]


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


class Case:
    def __init__(self, folder: Path, spark: SparkSession, make_frame: Any) -> None:
        expected = yaml.safe_load((folder / "expect.yaml").read_text())
        job = import_module(f"spark_jobs.{folder.parent.name}").JOB
        self.partitions = expected["partitions"]
        self.config = {**job.resolved_config(load_profile("local", environ={})), **expected.get("config", {})}
        self.expected = [{name: _utc(value) for name, value in row.items()} for row in expected["rows"]]
        self.frames = {
            path.stem: make_frame(path.stem, yaml.safe_load(path.read_text()))
            for path in folder.glob("*.yaml")
            if path.stem != "expect"
        }
        self.contract = load_contract(job.table)
        self.built = job.build(spark, self.frames, self.partitions, self.config)


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=str)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_job_builds_the_expected_rows(folder: Path, spark: SparkSession, make_frame: Any) -> None:
    case = Case(folder, spark, make_frame)
    written = list(case.expected[0])

    built = case.built.toArrow().to_pylist()

    assert tuple(case.built.columns) == case.contract.names
    assert in_order([{name: row[name] for name in written} for row in built]) == in_order(case.expected)


@pytest.mark.parametrize("folder", WITH_PEER, ids=name_of)
def test_duckdb_builds_the_same_rows(folder: Path, spark: SparkSession, make_frame: Any) -> None:
    case = Case(folder, spark, make_frame)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("events", case.frames["events"].toArrow())

    query = (folder.parent / "peer.sql").read_text()
    peer = connection.sql(query, params={**case.config, "partitions": case.partitions}).to_arrow_table()

    assert in_order(peer.to_pylist()) == in_order(case.built.toArrow().to_pylist())
