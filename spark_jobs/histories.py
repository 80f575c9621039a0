"""Histories: for each user with an event on a day, the user's last events strictly before that day, oldest first.

Many shops (and public data sets) know only the day of an event, so events of one day have no order and are never
history of each other. The rows are slices of a user's events, of which each day adds so many at most, so the cost is
linear in events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.user_days import USER, cut, in_one_row

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
    length = config["length"]
    users = in_one_row(events, USER, length, keep="last", also=("rating", "event_date"))
    days = cut(users, "events[at].event_date <> events[at - 1].event_date")
    dated = days.withColumn("event_date", F.get("events", F.col("first"))["event_date"])
    asked = dated.where(on_days("event_date", partitions))
    end = F.col("first") if up_to else F.col("end")
    start = F.greatest(end - length, F.lit(0))
    last = asked.select("user_id", "event_date", F.slice("events", start + 1, end - start).alias("past"))
    return last.select("user_id", "event_date", _not_before("past", F.date_sub("event_date", config["lookback_days"])))


def _not_before(past: str, oldest: Column) -> Column:
    """The events of that day and later; few have any others, which the first one says."""
    others = F.get(past, F.lit(0))["event_date"] < oldest
    return (
        F.when(others, F.filter(past, lambda event: event["event_date"] >= oldest)).otherwise(F.col(past)).alias(past)
    )


JOB = Job(
    "histories",
    version=1,
    inputs=(Input("events", lookback_days=CONFIG["lookback_days"]),),
    config=CONFIG,
    build=build,
)
