"""Sessions: the events of one user without a pause longer than the gap, cut at UTC midnight.

Sessions are slices of user-days, so the cost is linear in events and the heaviest task is one user's one day.
Two caps bound what a bot can do: the lists of a session hold its first `max_session_events`, and events of a user-day
beyond `max_user_day_events` join no session. Neither loses a count: see `n_truncated` and `n_over_day_cap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.user_days import USER_DAY, cut, in_one_row

CONFIG: Mapping[str, Any] = {"gap_minutes": 30, "max_session_events": 50, "max_user_day_events": 10_000}


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Sessions of the asked days; `frames` holds `events`. A pause of exactly the gap does not end a session."""
    events = frames["events"].where(on_days("event_date", partitions))
    days = in_one_row(events, USER_DAY, config["max_user_day_events"], keep="first")
    pause = "unix_micros(events[at].event_time) - unix_micros(events[at - 1].event_time)"
    sessions = cut(days, f"{pause} > {config['gap_minutes'] * 60_000_000}")
    return _one_row_per_session(sessions, config["max_session_events"])


def _one_row_per_session(sessions: DataFrame, cap: int) -> DataFrame:
    """Events beyond the day cap start no session: they are told of the last one of their user-day."""
    started_at, ended_at = (F.get("events", at)["event_time"] for at in (F.col("first"), F.col("end") - 1))
    n_events = (F.col("end") - F.col("first")).cast("long")
    n_truncated = F.greatest(n_events - cap, F.lit(0))
    listed = F.slice("events", F.col("first") + 1, F.least(n_events, F.lit(cap)).cast("int"))
    is_last = F.col("end") == F.size("events")
    # 128 bits of SHA-256 over user and first event time: the same in every run, engine and range of partitions.
    session_id = F.substring(F.sha2(F.concat_ws("|", "user_id", F.unix_micros(started_at)), 256), 1, 32)
    return sessions.select(
        F.col("event_date").alias("session_date"),
        session_id.alias("session_id"),
        "user_id",
        started_at.alias("started_at"),
        ended_at.alias("ended_at"),
        n_events.alias("n_events"),
        listed["item_id"].alias("item_ids"),
        listed["event_type"].alias("event_types"),
        (n_truncated > 0).alias("truncated"),
        n_truncated.alias("n_truncated"),
        F.when(is_last, F.col("n_over")).otherwise(0).alias("n_over_day_cap"),
    )


JOB = Job("sessions", version=1, inputs=(Input("events"),), config=CONFIG, build=build)
