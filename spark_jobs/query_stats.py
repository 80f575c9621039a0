"""Daily statistics of queries: one row per query and day on which something was done with it, usable from the next
midnight on (`available_at`).

`shown`: in the search box, as a hint. `clicked`: searched for by such a hint; `typed`: by hand. `bought`: purchases of
whoever searched for it within `bought_minutes` before, and for nothing else since (last touch, INFERRED); each counts
on the day of the purchase. Users are those who searched. Queries are the same as `common.query_text` says; one of no
words is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job
from spark_jobs.query_text import normal
from spark_jobs.stats import COUNTED_DAYS, LONGEST_DAYS, windows

CONFIG: Mapping[str, Any] = {"bought_minutes": 30}
COUNTERS = ("shown", "clicked", "typed", "bought")


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Statistics of the queries that the asked days know; `frames` holds `events`, and `searches` and `hint_exposures`
    (empty where there are none)."""
    searches = frames["searches"].select(
        "user_id", F.col("search_time").alias("time"), "source", normal(F.col("query")).alias("query")
    )
    shown = frames["hint_exposures"].select(
        F.lit(None).cast("string").alias("user_id"),
        F.col("exposure_time").alias("time"),
        normal(F.col("query")).alias("query"),
        *_counted(shown=F.lit(1)),
    )
    by_hint = F.col("source") == "hint"
    searched = searches.select(
        "user_id", "time", "query", *_counted(clicked=by_hint.cast("int"), typed=(~by_hint).cast("int"))
    )
    rows = shown.unionByName(searched).unionByName(_bought(searches, frames["events"], config["bought_minutes"]))
    counted = windows(rows.where("query <> ''"), "query", "user_id", COUNTERS, partitions)
    return counted.select(
        "stat_date",
        "query",
        "available_at",
        *(f"{name}_{days}d" for name in COUNTERS for days in COUNTED_DAYS),
        F.col("partners_365d").alias("distinct_users_365d"),
        "days_since_first_365d",
        "last_event_time",
    )


def _bought(searches: DataFrame, events: DataFrame, minutes: int) -> DataFrame:
    """A row for each purchase behind a search; its person is counted with the search already."""
    asked = searches.select("user_id", "time", F.struct("time", "query").alias("search"))
    takes = events.where(F.col("event_type") == "purchase").select("user_id", F.col("event_time").alias("time"))
    # Of one moment the search comes first: nulls sort last.
    so_far = (
        Window.partitionBy("user_id")
        .orderBy("time", F.col("search").asc_nulls_last())
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    either = asked.unionByName(takes, allowMissingColumns=True)
    behind = either.withColumn("last", F.last("search", ignorenulls=True).over(so_far)).where(F.col("search").isNull())
    fresh = F.col("last.time") >= F.col("time") - F.make_interval(mins=F.lit(minutes))
    return behind.where(fresh).select(
        F.lit(None).cast("string").alias("user_id"),
        "time",
        F.col("last.query").alias("query"),
        *_counted(bought=F.lit(1)),
    )


def _counted(**values: Column) -> list[Column]:
    return [values.get(name, F.lit(0)).alias(name) for name in COUNTERS]


JOB = Job(
    "query_stats",
    version=1,
    inputs=(
        Input("events", lookback_days=LONGEST_DAYS - 1),
        Input("searches", lookback_days=LONGEST_DAYS, optional=True),  # what was bought may follow over midnight
        Input("hint_exposures", lookback_days=LONGEST_DAYS - 1, optional=True),
    ),
    config=CONFIG,
    build=build,
)
