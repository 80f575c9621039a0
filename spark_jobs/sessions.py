"""Sessions: the events of one user without a pause longer than the gap, cut at UTC midnight.

One sort per user-day does all the work, so the cost is linear in events and the heaviest task is one user's one day.
Two caps bound what a bot can do: the lists of a session hold its first `max_session_events`, and events of a user-day
beyond `max_user_day_events` join no session. Neither loses a count: see `n_truncated` and `n_over_day_cap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job, on_days

CONFIG: Mapping[str, Any] = {"gap_minutes": 30, "max_session_events": 50, "max_user_day_events": 10_000}


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Sessions of the asked days; `frames` holds `events`. A pause of exactly the gap does not end a session."""
    events = frames["events"].where(on_days("event_date", partitions))
    return _one_row_per_session(_placed(events, config), config["max_session_events"])


def _placed(events: DataFrame, config: Mapping[str, Any]) -> DataFrame:
    """Events with `kept` (within the day cap), `started_at` of their session and their `position` in it, from 0.

    Events beyond the day cap never start a session, so they fall to the last one of their user-day.
    """
    in_order = Window.partitionBy("user_id", "event_date").orderBy("event_time", "item_id", "event_type")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    pause = F.unix_micros("event_time") - F.lag(F.unix_micros("event_time")).over(in_order)
    gap = config["gap_minutes"] * 60_000_000
    return (
        events.withColumn("rank", F.row_number().over(in_order))
        .withColumn("kept", F.col("rank") <= config["max_user_day_events"])
        .withColumn("starts", F.col("kept") & (F.coalesce(pause, F.lit(gap + 1)) > gap))
        .withColumn("started_at", F.max(F.when(F.col("starts"), F.col("event_time"))).over(so_far))
        .withColumn("position", F.col("rank") - F.max(F.when(F.col("starts"), F.col("rank"))).over(so_far))
    )


def _one_row_per_session(placed: DataFrame, cap: int) -> DataFrame:
    listed = F.when(F.col("kept") & (F.col("position") < cap), F.struct("position", "item_id", "event_type"))
    sessions = placed.groupBy("user_id", "event_date", "started_at").agg(
        F.max(F.when(F.col("kept"), F.col("event_time"))).alias("ended_at"),
        F.count_if("kept").alias("n_events"),
        F.count_if(~F.col("kept")).alias("n_over_day_cap"),
        F.array_sort(F.collect_list(listed)).alias("listed"),
    )
    # 128 bits of SHA-256 over user and first event time: the same in every run, engine and range of partitions.
    session_id = F.substring(F.sha2(F.concat_ws("|", "user_id", F.unix_micros("started_at")), 256), 1, 32)
    n_truncated = F.col("n_events") - F.size("listed")
    return sessions.select(
        F.col("event_date").alias("session_date"),
        session_id.alias("session_id"),
        "user_id",
        "started_at",
        "ended_at",
        "n_events",
        F.col("listed.item_id").alias("item_ids"),
        F.col("listed.event_type").alias("event_types"),
        (n_truncated > 0).alias("truncated"),
        n_truncated.alias("n_truncated"),
        "n_over_day_cap",
    )


JOB = Job("sessions", version=1, inputs=(Input("events"),), config=CONFIG, build=build)
