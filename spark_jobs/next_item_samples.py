"""Next-item samples: each event is a target, its user's history as of that day's midnight is the input.

The table holds nothing that depends on later data: its split is global in time, by two cut dates. The leave-one-out
split of the papers does depend on later data (which target is a user's last changes every day), so it is no column but
a view: `FIRST_OF_DAY` and `LEAVE_ONE_OUT` are SQL expressions for Spark and DuckDB, `leave_one_out` applies them to a
frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import histories
from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.leakage import require_no_leak
from spark_jobs.splits import part_of

CONFIG: Mapping[str, Any] = {"history_length": 20}

FIRST_OF_DAY = "row_number() OVER (PARTITION BY user_id, sample_date, item_id ORDER BY event_time, event_type) = 1"
LEAVE_ONE_OUT = """CASE row_number() OVER (PARTITION BY user_id ORDER BY event_time DESC, item_id DESC, event_type DESC)
  WHEN 1 THEN 'test' WHEN 2 THEN 'valid' ELSE 'train' END"""


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Samples of the asked days; `frames` holds `events` and `histories`, `config` also the profile's `samples`.

    An event without its row in `histories` keeps null lists and so breaks the contract: nothing is dropped in silence.
    """
    targets = frames["events"].where(on_days("event_date", partitions))
    past = frames["histories"].select(
        "user_id",
        F.col("history_date").alias("event_date"),
        _newest("item_ids", config["history_length"]).alias("history_item_ids"),
        _newest("ratings", config["history_length"]).alias("history_ratings"),
        F.array_max("event_dates").alias("history_last_date"),
    )
    return targets.join(past, ["user_id", "event_date"], "left").select(
        F.col("event_date").alias("sample_date"),
        "user_id",
        "item_id",
        F.col("event_date").cast("timestamp").alias("as_of"),
        "event_time",
        "event_type",
        "rating",
        _feedback().alias("feedback"),
        "history_item_ids",
        "history_ratings",
        F.size("history_item_ids").alias("history_len"),
        "history_last_date",
        part_of(F.col("event_date"), config).alias("split_time"),
    )


def audit(samples: DataFrame, frames: Mapping[str, DataFrame]) -> None:
    """Refuse to publish samples that know their own day or later; see `spark_jobs.leakage`."""
    require_no_leak("next_item_samples", samples, frames["events"])


def leave_one_out(samples: DataFrame) -> DataFrame:
    """`samples` with `split_leave_one_out`: a user's last target is `test`, the one before `valid`, the rest `train`.

    The papers' split. Targets of one time are ordered by item id. An item that was looked at and bought on one day is
    one target, at its first event: else one part would hold the answer of the other. In DuckDB: `SELECT *,
    <LEAVE_ONE_OUT> AS ...` of the rows that `QUALIFY <FIRST_OF_DAY>`.
    """
    once = samples.withColumn("first", F.expr(FIRST_OF_DAY)).where("first").drop("first")
    return once.withColumn("split_leave_one_out", F.expr(LEAVE_ONE_OUT))


def _newest(column: str, length: int) -> Column:
    return F.slice(column, F.greatest(F.size(column) - length, F.lit(0)) + 1, length)


def _feedback() -> Column:
    rating = F.col("rating")
    return (
        F.when(rating.isNull(), "unknown").when(rating < 3, "disliked").when(rating < 5, "neutral").otherwise("liked")
    )


# The audit counts a user's earlier events itself, so the events reach as far back as the histories do.
JOB = Job(
    "next_item_samples",
    version=1,
    inputs=(Input("events", lookback_days=histories.CONFIG["lookback_days"]), Input("histories")),
    config=CONFIG,
    build=build,
    audit=audit,
    settings="samples",
)
