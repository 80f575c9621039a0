"""One Spark session for the whole tier: starting a JVM costs more than most of these tests."""

from __future__ import annotations

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake
from infra.ledger import Ledger
from infra.partitions import run_key
from infra.profile import Profile
from spark_jobs.engine.commit import Batch, JobReport, commit

MakeFrame = Callable[[str, Iterable[Mapping[str, Any]]], DataFrame]


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    # py4j says at the very end that it closes its connection, when pytest has closed what the root logger writes to.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = (
        SparkSession.builder.master("local[2]")
        .appName("plumbline-tests")
        .config("spark.driver.memory", "1g")
        # Each join by broadcast and each aggregation takes a page; the default is up to 64 MB, for tables of six rows.
        .config("spark.buffer.pageSize", "1m")
        .config("spark.sql.ui.retainedExecutions", "10")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.sql.catalogImplementation", "in-memory")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def make_frame(spark: SparkSession) -> MakeFrame:
    """Rows of a table as a frame with its contract's schema. What a row leaves out is null, but for the obvious parts
    of an event: its date follows from its time, and its type is `view`."""

    def make(table: str, rows: Iterable[Mapping[str, Any]]) -> DataFrame:
        full = [_event(row) for row in rows] if table == "events" else list(rows)
        return spark.createDataFrame(pa.Table.from_pylist(full, schema=arrow_schema(load_contract(table))))

    return make


@pytest.fixture
def publish_events(profile: Profile, make_frame: MakeFrame) -> Callable[[Iterable[Mapping[str, Any]]], JobReport]:
    """Publish rows to the table `events` of the test's own lake; days without a row keep what they had."""

    def publish(rows: Iterable[Mapping[str, Any]]) -> JobReport:
        frame = make_frame("events", rows)
        by_day: dict[date, list[str]] = defaultdict(list)
        for row in frame.toArrow().to_pylist():
            by_day[row["event_date"]].append(repr(row))
        keys = {day: run_key("events", day, content, {}, 1) for day, content in by_day.items()}
        batch = Batch(load_contract("events"), frame, keys, dict.fromkeys(keys, ()), "test", 0, 0.0)
        report = commit(batch, Lake(profile), Ledger(profile))
        assert not report.stopped, report.lines()
        return report

    return publish


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"event_date": row["event_time"].date(), "event_type": "view", **row}
