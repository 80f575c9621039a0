"""Whatever the order, range and repetition of its runs, a job's table is what one pure pass over all events gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake
from infra.profile import Profile
from spark_jobs import histories, item_stats, next_item_samples, sessions, user_stats
from spark_jobs.engine.job import Job, run

JOBS = (sessions.JOB, histories.JOB, user_stats.JOB, item_stats.JOB, next_item_samples.JOB)
DAYS = [date(2018, 1, 1) + timedelta(n) for n in range(4)]
Rows = list[dict[str, Any]]


def event(user: str, item: str, day: int, hour: int) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_time": datetime(2018, 1, day, hour, tzinfo=UTC), "rating": 4.5}


# The third day has no event of anybody: an empty partition is a result too.
EVENTS = [event("heavy", "abcd"[n % 4], 1 + 3 * (n % 2), n) for n in range(24)] + [
    event("ann", "a", 1, 23),
    event("ann", "b", 2, 0),
    event("ben", "a", 4, 12),
]
LATE = event("ann", "c", 2, 9)


def published(profile: Profile, job: Job) -> Rows:
    schema = arrow_schema(load_contract(job.table))
    tables = [pq.read_table(file.path).select(schema.names).cast(schema) for file in Lake(profile).files(job.table)]
    return in_order(pa.concat_tables(tables).to_pylist())


def in_one_pass(spark: SparkSession, make_frame: Any, profile: Profile, events: Rows) -> dict[str, Rows]:
    frames = {"events": make_frame("events", events)}
    rows = {}
    for job in JOBS:
        frames[job.table] = job.build(spark, frames, DAYS, job.resolved_config(profile))
        rows[job.table] = in_order(frames[job.table].toArrow().to_pylist())
    return rows


def in_order(rows: Rows) -> Rows:
    return sorted(rows, key=str)


def run_all(profile: Profile, first: date, last: date) -> dict[str, set[date]]:
    """The partitions that each job published."""
    return {job.table: {write.partition for write in run(job, first, last, profile).published} for job in JOBS}


def test_order_and_repetition_do_not_matter_and_a_late_event_redoes_only_what_reads_its_day(
    spark: SparkSession, make_frame: Any, profile: Profile, publish_events: Callable[[Rows], Any]
) -> None:
    publish_events(EVENTS)
    last_day_first = run_all(profile, DAYS[3], DAYS[3])
    rest = run_all(profile, DAYS[0], DAYS[3])
    again = run_all(profile, DAYS[0], DAYS[3])
    expected = in_one_pass(spark, make_frame, profile, EVENTS)

    assert all(days == {DAYS[3]} for days in last_day_first.values())
    assert all(days == set(DAYS[:3]) for days in rest.values())
    assert not any(again.values())
    assert {job.table: published(profile, job) for job in JOBS} == expected

    publish_events([e for e in EVENTS if e["event_time"].day == 2] + [LATE])
    redone = run_all(profile, DAYS[0], DAYS[3])
    expected = in_one_pass(spark, make_frame, profile, [*EVENTS, LATE])

    assert redone["sessions"] == {DAYS[1]}
    assert all(days == set(DAYS[1:]) for table, days in redone.items() if table != "sessions")
    assert {job.table: published(profile, job) for job in JOBS} == expected
