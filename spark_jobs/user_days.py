"""User-days: the events of one user on one day as one row, what sessions and histories are cut from.

One shuffle and one sort do all the work, so the cost is linear in events. What a row holds is bounded, so that a bot's
day is a row like others.
"""

from __future__ import annotations

from typing import Literal

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

_IN_DAY = ("event_time", "item_id", "event_type")


def user_days(events: DataFrame, cap: int, *, keep: Literal["first", "last"], also: tuple[str, ...] = ()) -> DataFrame:
    """One row per user and day: `user_key`, `user_id`, `event_date`, `day_events` and `n_over`.

    `day_events` are structs of time, item, type and the columns `also`, in this order; the first or the last `cap` ones
    of the day. `n_over` counts the others. `user_key` is a number that each user has one of and few share.
    """
    # Sorting compares numbers and looks at ids of one number only: texts that begin alike are slow to compare.
    keyed = events.withColumn("user_key", F.xxhash64("user_id"))
    day = ("user_key", "user_id", "event_date")
    by = [F.asc(name) if keep == "first" else F.desc(name) for name in _IN_DAY]
    # A filter by rank would sort the events before the shuffle too, to send the first ones of each day only.
    kept = F.row_number().over(Window.partitionBy(*day).orderBy(*by)) <= cap
    event = F.when(F.col("kept"), F.struct(*_IN_DAY, *also))
    return (
        keyed.select(*day, *_IN_DAY, *also, kept.alias("kept"))
        .groupBy(*day)
        .agg(F.sort_array(F.collect_list(event)).alias("day_events"), F.count_if(~F.col("kept")).alias("n_over"))
    )
