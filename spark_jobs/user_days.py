"""Events of one user, or of one user's day, as one row: what sessions and histories are cut from.

One shuffle and one sort do all the work, so the cost is linear in events. What a day adds to a row is bounded, so that
a bot's day is a day like others.
"""

from __future__ import annotations

from typing import Literal

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

USER = ("user_id",)
USER_DAY = ("user_id", "event_date")
_IN_DAY = ("event_time", "item_id", "event_type")


def in_one_row(
    events: DataFrame, by: tuple[str, ...], cap: int, *, keep: Literal["first", "last"], also: tuple[str, ...] = ()
) -> DataFrame:
    """One row per `by` (`USER` or `USER_DAY`): its columns, `events` and `n_over`.

    `events` are structs of time, item, type and the columns `also`, in this order; of each day the first or the last
    `cap` ones. `n_over` counts the others.
    """
    # Sorting compares numbers and looks at texts of one number only: texts that begin alike are slow to compare.
    keyed = events.withColumn("key", F.xxhash64(*by)).repartition("key")
    day = ("key", *USER_DAY)
    order = [F.asc(name) if keep == "first" else F.desc(name) for name in _IN_DAY]
    # A filter by rank would sort the events before the shuffle too, to send the first ones of each day only.
    kept = F.row_number().over(Window.partitionBy(*day).orderBy(*order)) <= cap
    event = F.when(kept, F.struct(*_IN_DAY, *also)).alias("event")
    return (
        keyed.select(*day, event)
        .groupBy("key", *by)
        .agg(F.sort_array(F.collect_list("event")).alias("events"), F.count_if(F.col("event").isNull()).alias("n_over"))
    )


def cut(rows: DataFrame, begins: str) -> DataFrame:
    """One row per stretch of `events` of each row: `first`, and `end` behind it, as positions from 0; all else stays.

    `begins` is the SQL condition by which the event `at` begins a stretch; the first one always does.
    """
    starts = F.expr(f"filter(sequence(0, size(events) - 1), at -> at = 0 or {begins})")
    # Outer: else Spark filters by the size of `starts` first, and finds them once more for that.
    each = rows.withColumn("starts", starts).select("*", F.posexplode_outer("starts").alias("number", "first"))
    next_one = F.get("starts", F.col("number") + 1)
    return each.withColumn("end", F.coalesce(next_one, F.size("events"))).drop("starts", "number")
