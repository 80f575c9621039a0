"""Daily statistics of one entity (user or item), shared by the tables `user_stats` and `item_stats`.

Counters are sums over bounded range frames of days. Different partners in a sliding window are counted without a set:
an event day of a pair counts from that day until the pair's next day, or until it leaves the window, so the number is
a running sum of +1 and -1. Every step is linear in events. Ratings are summed as decimals, whose sum has no order, so a
table is the same to the last bit however its rows were spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from spark_jobs.engine.job import on_days

LONGEST_DAYS = 365
COUNTED_DAYS = (7, 30, LONGEST_DAYS)


def daily_stats(events: DataFrame, entity: str, partner: str, partitions: Sequence[date]) -> DataFrame:
    """One row per `entity` (a column, such as `user_id`) and asked day with an event; `partner` is what it met.

    `events` must reach back `LONGEST_DAYS` - 1 days before the first asked day.
    """
    by_day = Window.partitionBy(entity).orderBy("day")
    year = _last(by_day, LONGEST_DAYS)
    active_day = F.when(F.col("n") > 0, F.col("day"))
    partners = F.sum("change").over(by_day.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    mean = F.sum("rating_sum").over(year).cast("double") / F.nullif(F.sum("rated").over(year), F.lit(0))
    rows = _daily(events, entity, partner).select(
        F.date_from_unix_date("day").alias("stat_date"),
        entity,
        F.date_from_unix_date(F.col("day") + 1).cast("timestamp").alias("available_at"),
        *(F.sum("n").over(_last(by_day, days)).alias(f"events_{days}d") for days in COUNTED_DAYS),
        mean.alias("mean_rating_365d"),
        partners.alias(f"distinct_{partner.removesuffix('_id')}s_365d"),
        (F.col("day") - F.min(active_day).over(year)).alias("days_since_first_365d"),
        F.col("last").alias("last_event_time"),
        "n",
    )
    return rows.where((F.col("n") > 0) & on_days("stat_date", partitions)).drop("n")


def _daily(events: DataFrame, entity: str, partner: str) -> DataFrame:
    """Per entity and day: events `n`, `rating_sum` and `rated`, the `last` event time, and the `change` of partners.

    Days on which a partner only leaves the window are among them, with `n` = 0.
    """
    pair_days = events.groupBy(entity, partner, F.unix_date("event_date").alias("day")).agg(
        F.count(F.lit(1)).alias("n"),
        F.sum(F.col("rating").cast("decimal(9,6)")).alias("rating_sum"),
        F.count("rating").alias("rated"),
        F.max("event_time").alias("last"),
    )
    again = F.lead("day").over(Window.partitionBy(entity, partner).orderBy("day"))
    left = pair_days.withColumn("until", F.least(again, F.col("day") + LONGEST_DAYS))
    met = F.struct("day", "n", "rating_sum", "rated", "last", F.lit(1).alias("change"))
    none = (F.lit(None).alias("rating_sum"), F.lit(0).alias("rated"), F.lit(None).alias("last"))
    gone = F.struct(F.col("until").alias("day"), F.lit(0).alias("n"), *none, F.lit(-1).alias("change"))
    return (
        left.select(entity, F.inline(F.array(met, gone)))
        .groupBy(entity, "day")
        .agg(*(F.sum(c).alias(c) for c in ("n", "rating_sum", "rated", "change")), F.max("last").alias("last"))
    )


def _last(by_day: WindowSpec, days: int) -> WindowSpec:
    return by_day.rangeBetween(1 - days, Window.currentRow)
