"""Histories: for each user with an event on a day, the user's last events strictly before that day, oldest first.

Many shops (and public data sets) know only the day of an event, so events of one day have no order and are never
history of each other. The rows are built from user-days: a bounded frame over a user's days, never a growing list,
so the cost is linear in events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.user_days import user_days

CONFIG: Mapping[str, Any] = {"length": 50, "lookback_days": 730}


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Histories as of 00:00 UTC of the asked days; `frames` holds `events` back to `lookback_days` before the first."""
    asked = last_events(frames["events"], partitions, config, up_to=-1)
    return asked.select(
        F.col("event_date").alias("history_date"),
        "user_id",
        F.col("event_date").cast("timestamp").alias("as_of"),
        F.col("past.item_id").alias("item_ids"),
        F.col("past.rating").alias("ratings"),
        F.col("past.event_date").alias("event_dates"),
        F.size("past").alias("history_len"),
    )


def last_events(
    events: DataFrame, partitions: Sequence[date], config: Mapping[str, Any], *, up_to: Literal[-1, 0]
) -> DataFrame:
    """`user_id`, `event_date` and `past` of each user with an event on an asked day, `past` oldest first.

    `past` holds the last `config["length"]` events of `config["lookback_days"]`; `up_to` -1 ends before the day, 0 with
    it.
    """
    length, lookback = config["length"], config["lookback_days"]
    # All of a user in one place: the windows over days then need neither a shuffle nor a sort of their own.
    days = user_days(events.repartition("user_id"), length, keep="last", also=("rating", "event_date"))
    # Each user-day holds at least one event: `length` of them hold at least the last `length` events.
    before = Window.partitionBy("user_key", "user_id").orderBy("event_date").rowsBetween(up_to + 1 - length, up_to)
    past = days.withColumn("past", F.flatten(F.collect_list("day_events").over(before)))
    asked = past.where(on_days("event_date", partitions))
    oldest = F.date_sub("event_date", lookback)
    recent = asked.withColumn("past", F.filter("past", lambda event: event["event_date"] >= oldest))
    last = F.slice("past", F.greatest(F.size("past") - length, F.lit(0)) + 1, length)
    return recent.select("user_id", "event_date", last.alias("past"))


JOB = Job(
    "histories",
    version=1,
    inputs=(Input("events", lookback_days=CONFIG["lookback_days"]),),
    config=CONFIG,
    build=build,
)
