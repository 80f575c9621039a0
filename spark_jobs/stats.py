"""Daily statistics of one entity (user, item or query), shared by the tables `user_stats`, `item_stats`, `query_stats`.

Counters are sums over bounded range frames of days. Different partners in a sliding window are counted without a set:
a day of a pair counts from that day until the pair's next day, or until it leaves the window, so the number is a
running sum of +1 and -1. Every step is linear in rows. Ratings are summed as decimals, whose sum has no order, so a
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
    rows = events.select(
        entity,
        partner,
        F.col("event_time").alias("time"),
        F.lit(1).alias("events"),
        F.col("rating").cast("decimal(9,6)").alias("rating_sum"),
        F.col("rating").isNotNull().cast("int").alias("rated"),
    )
    counted = windows(rows, entity, partner, ("events", "rating_sum", "rated"), partitions)
    mean = F.col(f"rating_sum_{LONGEST_DAYS}d").cast("double") / F.nullif(f"rated_{LONGEST_DAYS}d", F.lit(0))
    return counted.select(
        "stat_date",
        entity,
        "available_at",
        *(f"events_{days}d" for days in COUNTED_DAYS),
        mean.alias("mean_rating_365d"),
        F.col("partners_365d").alias(f"distinct_{partner.removesuffix('_id')}s_365d"),
        "days_since_first_365d",
        "last_event_time",
    )


def windows(
    rows: DataFrame, entity: str, partner: str, counters: Sequence[str], partitions: Sequence[date]
) -> DataFrame:
    """One row per `entity` and asked day with a row: `<counter>_<days>d`, the sum of each counter over the last
    `COUNTED_DAYS`; `partners_365d`, how many different partners there were; `days_since_first_365d`,
    `last_event_time`, and `available_at`, the midnight after the day.

    `rows` have `entity`, `partner` (null: the row is of none), `time` and the counters, and reach back
    `LONGEST_DAYS` - 1 days before the first asked day.
    """
    by_day = Window.partitionBy(entity).orderBy("day")
    year = _last(by_day, LONGEST_DAYS)
    active_day = F.when(F.col("n") > 0, F.col("day"))
    partners = F.sum("change").over(by_day.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    found = _daily(rows, entity, partner, counters).select(
        F.date_from_unix_date("day").alias("stat_date"),
        entity,
        F.date_from_unix_date(F.col("day") + 1).cast("timestamp").alias("available_at"),
        *(F.sum(c).over(_last(by_day, days)).alias(f"{c}_{days}d") for c in counters for days in COUNTED_DAYS),
        partners.alias("partners_365d"),
        (F.col("day") - F.min(active_day).over(year)).alias("days_since_first_365d"),
        F.col("last").alias("last_event_time"),
        "n",
    )
    return found.where((F.col("n") > 0) & on_days("stat_date", partitions)).drop("n")


def _daily(rows: DataFrame, entity: str, partner: str, counters: Sequence[str]) -> DataFrame:
    """Per entity and day: rows `n`, the counters, the `last` time, and the `change` of partners.

    Days on which a partner only leaves the window are among them, with `n` = 0.
    """
    pair_days = rows.groupBy(entity, partner, F.unix_date(F.to_date("time")).alias("day")).agg(
        F.count(F.lit(1)).alias("n"), *(F.sum(c).alias(c) for c in counters), F.max("time").alias("last")
    )
    again = F.lead("day").over(Window.partitionBy(entity, partner).orderBy("day"))
    left = pair_days.withColumn("until", F.least(again, F.col("day") + LONGEST_DAYS))
    one = F.col(partner).isNotNull().cast("int")
    met = F.struct("day", "n", *counters, "last", one.alias("change"))
    none = (F.lit(0).alias("n"), *(F.lit(None).alias(c) for c in counters), F.lit(None).alias("last"))
    gone = F.struct(F.col("until").alias("day"), *none, (-one).alias("change"))
    return (
        left.select(entity, F.inline(F.array(met, gone)))
        .groupBy(entity, "day")
        .agg(*(F.sum(c).alias(c) for c in ("n", *counters, "change")), F.max("last").alias("last"))
    )


def _last(by_day: WindowSpec, days: int) -> WindowSpec:
    return by_day.rangeBetween(1 - days, Window.currentRow)
