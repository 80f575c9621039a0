"""Items drawn by chance, in proportion to the root of how often people took them before: what a judge sees beside them.

The root of a popularity n is the sum of sqrt(k) - sqrt(k - 1) over the first n takes, and that of a take depends on no
later one. So all takes of a shop, day after day, are laid end to end on one line, each as long as its difference of
roots: up to any midnight the line holds exactly the roots of that day's popularities, and a number drawn below its
length there falls on an item. One line for all days, linear in takes; numbers are whole, so that sums have no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs.user_profiles import newest_delivery

_ONE = 1_000_000  # the length of the first take of an item, and of the boxes by which a number finds its take


def draw_items(
    wanted: DataFrame, events: DataFrame, items: DataFrame, partitions: Sequence[date], tries: int
) -> DataFrame:
    """`example_date`, `user_id`, `item_id`: for each row of `wanted` (the same columns) an item, the first of `tries`
    that the person had not taken up to the end of the day and the catalogue of the day has; none where there is none.

    Each number depends on user, day, item and try alone. Nothing can be drawn before the first takes of a shop.
    """
    listed = ", ".join(f"DATE'{day.isoformat()}'" for day in partitions)
    asked = events.sparkSession.sql(f"SELECT explode(array({listed})) AS event_date")
    line, begun = _line(events.where(F.col("event_date") < F.lit(max(partitions))), asked)
    lengths = begun.join(asked, "event_date", "left_semi").toDF("example_date", "length")
    number = F.pmod(F.xxhash64("user_id", "example_date", "item_id", "attempt"), "length")
    drawn = (
        wanted.join(F.broadcast(lengths), "example_date")
        .where("length > 0")
        .withColumn("attempt", F.explode(F.sequence(F.lit(0), F.lit(tries - 1))))
        .select("example_date", "user_id", F.col("item_id").alias("beside"), "attempt", number.alias("number"))
    )
    on_it = (F.col("number") >= F.col("start")) & (F.col("number") < F.col("stop"))
    found = drawn.withColumn("box", F.expr(f"number div {_ONE}")).join(line, "box").where(on_it)
    fit = _new_to_the_person(_in_catalogue(found, items, asked), events)
    first = fit.groupBy("example_date", "user_id", "beside").agg(F.min_by("item_id", "attempt").alias("item_id"))
    return first.select("example_date", "user_id", "item_id").distinct()


def _line(events: DataFrame, asked: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The takes on the line (`item_id`, `start`, `stop`, and each `box` that they touch), and where each day begins."""
    counts = events.groupBy("item_id", "event_date").agg(F.count(F.lit(1)).alias("n"))
    up_to = F.sum("n").over(Window.partitionBy("item_id").orderBy("event_date"))
    root = [F.floor(F.sqrt(n) * _ONE) for n in (F.col("up_to"), F.col("up_to") - F.col("n"))]
    takes = counts.withColumn("up_to", up_to).select("item_id", "event_date", (root[0] - root[1]).alias("long"))
    empty = asked.withColumn("long", F.lit(0).cast("long"))
    days = takes.select("event_date", "long").unionByName(empty).groupBy("event_date").agg(F.sum("long").alias("long"))
    before = Window.partitionBy(F.lit(0)).orderBy("event_date").rowsBetween(Window.unboundedPreceding, -1)
    begun = days.select("event_date", F.coalesce(F.sum("long").over(before), F.lit(0)).alias("begun"))
    of_day = Window.partitionBy("event_date").orderBy("item_id")
    stop = F.col("begun") + F.sum("long").over(of_day)
    placed = takes.join(F.broadcast(begun), "event_date").withColumn("stop", stop)
    start = (F.col("stop") - F.col("long")).alias("start")
    boxes = F.explode(F.expr(f"sequence(start div {_ONE}, (stop - 1) div {_ONE})")).alias("box")
    return placed.select("item_id", start, "stop").where("stop > start").select("*", boxes), begun


def _in_catalogue(found: DataFrame, items: DataFrame, asked: DataFrame) -> DataFrame:
    dated = newest_delivery(items, asked).withColumnRenamed("event_date", "example_date")
    listed = items.select("snapshot_date", "item_id").distinct()
    return found.join(F.broadcast(dated), "example_date").join(listed, ["snapshot_date", "item_id"], "left_semi")


def _new_to_the_person(found: DataFrame, events: DataFrame) -> DataFrame:
    first = events.groupBy("user_id", "item_id").agg(F.min("event_date").alias("first_taken"))
    met = found.join(first, ["user_id", "item_id"], "left")
    return met.where(F.col("first_taken").isNull() | (F.col("first_taken") > F.col("example_date")))
