"""Daily user statistics: one row per user and day of activity, usable from the next midnight on (`available_at`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_jobs.engine.job import Input, Job
from spark_jobs.stats import LONGEST_DAYS, daily_stats


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Statistics of the users active on the asked days; `frames` holds `events`."""
    return daily_stats(frames["events"], "user_id", "item_id", partitions)


JOB = Job(
    "user_stats",
    version=1,
    inputs=(Input("events", lookback_days=LONGEST_DAYS - 1),),
    config={},
    build=build,
)
