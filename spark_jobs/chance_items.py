"""Items drawn by chance, in proportion to the root of how often people took them before: what a judge sees beside them.

The root of a popularity n is the sum of sqrt(k) - sqrt(k - 1) over the first n takes, and that of a take depends on no
later one. So all takes of a shop, day after day, are laid end to end on one line, each as long as its difference of
roots: up to any midnight the line holds exactly the roots of that day's popularities, and a number drawn below its
length there falls on an item. One line for all days, linear in takes; numbers are whole, so that sums have no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import accumulate

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs.user_profiles import newest_delivery

_ONE = 1_000_000  # the length of the first take of an item, and of the boxes by which a number finds its take


def with_chance_items(
    wanted: DataFrame, taken: DataFrame, items: DataFrame, partitions: Sequence[date], tries: int
) -> DataFrame:
    """`wanted` with `chance_item_id`: of so many tries the first item that the person had not taken up to the end of
    `example_date` and the catalogue of the day has; null where there is none, as before the first takes of a shop.

    `wanted` has one row for each `example_date`, `user_id` and `item_id`, of which each number is a hash, with the
    try. `taken` since ever: `user_id`, `item_id`, `event_date` and how many `times`.
    """
    takes = _takes(taken.where(F.col("event_date") < F.lit(max(partitions)))).localCheckpoint()
    begun = _begun(takes, partitions)
    length = begun.select(F.col("event_date").alias("example_date"), F.nullif("begun", F.lit(0)).alias("length"))
    number = F.pmod(F.xxhash64("user_id", "example_date", "item_id", "attempt"), F.col("length"))
    numbers = (
        wanted.join(F.broadcast(length), "example_date")
        .withColumn("attempt", F.explode(F.sequence(F.lit(1), F.lit(tries))))
        .withColumn("number", number)
        .withColumn("box", F.expr(f"number div {_ONE}"))
    )
    line = _line(takes, begun).withColumnRenamed("box", "of_box")
    on_it = (F.col("box") == F.col("of_box")) & (F.col("number") >= F.col("start")) & (F.col("number") < F.col("stop"))
    drawn = _with_first_taken(_with_listed(numbers.join(line, on_it, "left"), items, begun), taken)
    new = F.col("first_taken").isNull() | (F.col("first_taken") > F.col("example_date"))
    fits = F.when(F.col("listed") & new, F.col("attempt"))
    key = ("example_date", "user_id", "item_id")
    others = [F.first(name).alias(name) for name in wanted.columns if name not in key]
    chosen = F.min_by(F.when(fits.isNotNull(), F.col("chance_item_id")), fits)
    return drawn.groupBy(*key).agg(*others, chosen.alias("chance_item_id"))


def _takes(taken: DataFrame) -> DataFrame:
    """`item_id`, `event_date`, `long`: what each item's takes of a day add to the root of its popularity."""
    counts = taken.groupBy("item_id", "event_date").agg(F.sum("times").alias("n"))
    up_to = F.sum("n").over(Window.partitionBy("item_id").orderBy("event_date"))
    after, before = (F.floor(F.sqrt(n) * _ONE) for n in (F.col("up_to"), F.col("up_to") - F.col("n")))
    return counts.withColumn("up_to", up_to).select("item_id", "event_date", (after - before).alias("long"))


def _begun(takes: DataFrame, partitions: Sequence[date]) -> DataFrame:
    """`event_date`, `begun`: how long the line is at the midnight before each asked day and each day with takes.

    A row a day, so it is added up here.
    """
    found = {
        row["event_date"]: row["long"] for row in takes.groupBy("event_date").agg(F.sum("long").alias("long")).collect()
    }
    days = sorted({*found, *partitions})
    begun = accumulate((found.get(day, 0) for day in days), initial=0)
    return takes.sparkSession.createDataFrame(list(zip(days, begun, strict=False)), "event_date DATE, begun BIGINT")


def _line(takes: DataFrame, begun: DataFrame) -> DataFrame:
    """The takes on the line: `item_id`, `start`, `stop`, and a row for each `box` that they touch."""
    stop = F.col("begun") + F.sum("long").over(Window.partitionBy("event_date").orderBy("item_id"))
    placed = takes.join(F.broadcast(begun), "event_date").withColumn("stop", stop).where("long > 0")
    start = (F.col("stop") - F.col("long")).alias("start")
    boxes = F.explode(F.expr(f"sequence(start div {_ONE}, (stop - 1) div {_ONE})")).alias("box")
    return placed.select(F.col("item_id").alias("chance_item_id"), start, "stop").select("*", boxes)


def _with_listed(drawn: DataFrame, items: DataFrame, days: DataFrame) -> DataFrame:
    """With `listed`: true where the newest catalogue of the day has the item, else null."""
    dated = newest_delivery(items, days).withColumnRenamed("event_date", "example_date")
    listed = items.select("snapshot_date", F.col("item_id").alias("chance_item_id"), F.lit(True).alias("listed"))
    known = drawn.join(F.broadcast(dated), "example_date", "left")
    return known.join(listed.distinct(), ["snapshot_date", "chance_item_id"], "left")


def _with_first_taken(drawn: DataFrame, taken: DataFrame) -> DataFrame:
    """With `first_taken`: the first day on which the person took the item that was drawn, null if never."""
    first = taken.groupBy("user_id", F.col("item_id").alias("chance_item_id")).agg(
        F.min("event_date").alias("first_taken")
    )
    return drawn.join(first, ["user_id", "chance_item_id"], "left")
