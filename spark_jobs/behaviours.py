"""What people did and searched for, on one line of time, and the last of it before given moments.

Moments and behaviours of a person stand in one order; the running count of behaviours says which numbers the last ones
before a moment have, and a join by boxes of numbers fetches them. Linear in behaviours, and in the moments times the
length: no row holds a growing list.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

SEARCH = "search"
"""The action of whoever searched; those of events are their types."""


def behaviours(events: DataFrame, searches: DataFrame, longest: int) -> DataFrame:
    """`user_id`, `time`, `action` and `content`: the item acted on, or the words searched for, cut to `longest`."""
    item = F.col("item_id").alias("content")
    acted = events.select("user_id", F.col("event_time").alias("time"), F.col("event_type").alias("action"), item)
    words = plain(F.col("query"))
    searched = searches.select(
        "user_id",
        F.col("search_time").alias("time"),
        F.lit(SEARCH).alias("action"),
        F.substring(words, 1, longest).alias("content"),
    )
    return acted.unionByName(searched)


def with_last(moments: DataFrame, done: DataFrame, length: int, lookback_days: int) -> DataFrame:
    """`moments` (`user_id`, `as_of` and more, each row once) with the last `length` of `behaviours` strictly before
    `as_of`, of at most `lookback_days`, oldest first.

    Adds `behaviour_days_ago`, `behaviour_actions`, `behaviour_contents`, lists of one length, and
    `behaviour_last_event_time`, null where there is none. Of one time the order is that of action and content.
    """
    known = moments.select("user_id", "as_of").distinct()
    order = Window.partitionBy("user_id").orderBy("time", "behaves", "action", "content")
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    either = done.withColumn("behaves", F.lit(1)).unionByName(
        known.withColumnRenamed("as_of", "time").withColumn("behaves", F.lit(0)), allowMissingColumns=True
    )
    numbered = either.withColumn("number", F.sum("behaves").over(so_far))
    asked = numbered.where("behaves = 0").select("user_id", F.col("time").alias("as_of"), F.col("number").alias("last"))
    # The wanted numbers are at most `length` in a row: they lie in the box of the last one, and in that before it.
    boxes = F.explode(F.array(_box(F.col("last"), length), _box(F.col("last"), length) - 1))
    spread = asked.withColumn("box", boxes)
    acts = numbered.where("behaves = 1").withColumn("box", _box(F.col("number"), length)).drop("behaves")
    inside = (F.col("number") > F.col("last") - length) & (F.col("number") <= F.col("last"))
    fresh = F.col("time") >= F.col("as_of") - F.make_interval(days=F.lit(lookback_days))
    found = spread.join(acts, ["user_id", "box"]).where(inside & fresh)
    lists = found.groupBy("user_id", "as_of").agg(
        F.array_sort(F.collect_list(F.struct("number", "time", "action", "content"))).alias("past")
    )
    ago = F.transform("past", lambda one: F.datediff(F.to_date("as_of"), F.to_date(one["time"])).cast("bigint"))
    told = lists.select(
        "user_id",
        "as_of",
        ago.alias("behaviour_days_ago"),
        *(F.col(f"past.{name}").alias(f"behaviour_{name}s") for name in ("action", "content")),
        F.array_max("past.time").alias("behaviour_last_event_time"),
    )
    joined = moments.join(told, ["user_id", "as_of"], "left")
    nothing = {"days_ago": "array<bigint>", "actions": "array<string>", "contents": "array<string>"}
    empty = {
        f"behaviour_{name}": F.coalesce(f"behaviour_{name}", F.array().cast(kind)) for name, kind in nothing.items()
    }
    return joined.withColumns(empty)


def plain(words: Column) -> Column:
    """A query without spaces around it, and one space for each run of them."""
    return F.trim(F.regexp_replace(words, r"\s+", " "))


def _box(number: Column, length: int) -> Column:
    return F.floor(number / length).cast("bigint")
