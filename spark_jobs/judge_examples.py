"""Judge examples: a person as known at midnight, and an item to be judged; and what a teacher may know afterwards.

An item comes here because the person took it that day, because a pair of `judge_pairs` has it, or by chance beside one
that was taken (`spark_jobs.chance_items`). What a judge sees is from before `as_of`, but for the context; the columns
`rating` and `later_item_ids` are hindsight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_jobs.chance_items import with_chance_items
from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.judge_pairs import AGAIN, few_of_each, few_people, last_stars
from spark_jobs.leakage import require_no_leak
from spark_jobs.splits import part_end, part_of

CONFIG: Mapping[str, Any] = {
    "per_user_day": 3,
    "users_per_day": 1000,
    "tries": 4,  # draws for one item: the first is taken that the person has not met and the catalogue has
    "history_length": 20,
    "later_days": 90,
    "later_length": 20,
}
_DAY = ("example_date", "user_id")
_KEY = (*_DAY, "item_id")


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Examples as of 00:00 UTC of the asked days.

    `frames` holds `events`, `items`, `histories`, `judge_pairs`, and `searches` (empty where there are none).
    """
    takes = daily_takes(frames["events"])
    taken = _taken(takes, partitions, config)
    beside = with_chance_items(taken, takes, frames["items"], partitions, config["tries"])
    reasons = _with_drawn(beside).unionByName(_paired(frames["judge_pairs"]))
    days = _with_history(_days(reasons), frames["histories"], config["history_length"])
    seen = _with_later(_with_context(days, frames), takes, partitions, config)
    examples = seen.select("*", F.inline("examples"))
    later = F.slice(F.array_remove("later", F.col("item_id")), 1, config["later_length"])
    return examples.select(
        *_KEY,
        F.col("example_date").cast("timestamp").alias("as_of"),
        *("kinds", "rating", "history_item_ids", "history_ratings", "history_last_date"),
        later.alias("later_item_ids"),
        *("context", "outcome_date"),
        part_of(F.col("outcome_date"), config).alias("split_time"),
    )


def audit(examples: DataFrame, frames: Mapping[str, DataFrame]) -> None:
    """Refuse to publish examples that know their own day or later where they may not; see `spark_jobs.leakage`."""
    require_no_leak("judge_examples", examples, frames["events"])


def daily_takes(events: DataFrame) -> DataFrame:
    """What people acted on day by day: `user_id`, `item_id`, `event_date`, the last `rating` of the day, if any, the
    first `event_time`, and how often (`times`).

    All that is built reads this and never the events. So it is kept, a person's rows in one place: they are read once
    and sent once. Spark lets go of it with the frame.
    """
    own = events.select("user_id", "item_id", "event_date", "event_time", "event_type", "rating")
    first, times = F.min("event_time").alias("event_time"), F.count(F.lit(1)).alias("times")
    return last_stars(own.repartition("user_id"), first, times).localCheckpoint()


def _taken(takes: DataFrame, partitions: Sequence[date], config: Mapping[str, Any]) -> DataFrame:
    """A few of the items that each person rated on an asked day; up to a shop's first stars, of those acted on."""
    first_stars = takes.where("rating is not null").agg(F.min("event_date").alias("first_stars"))
    acted = takes.where(on_days("event_date", partitions)).join(F.broadcast(first_stars))
    before = F.col("first_stars").isNull() | (F.col("event_date") < F.col("first_stars"))
    found = acted.where(F.col("rating").isNotNull() | before).withColumnRenamed("event_date", "example_date")
    few = few_of_each(found, _DAY, ["item_id"], config["per_user_day"])
    return few_people(few, "example_date", config["users_per_day"]).select(*_KEY, "rating")


def _with_drawn(beside: DataFrame) -> DataFrame:
    """What was taken and what was drawn beside it, each as a reason of its own day for an example."""
    none = F.lit(None).cast("double")
    reasons = F.array(
        F.struct("item_id", F.array(F.lit("taken")).alias("kinds"), "rating"),
        F.struct(
            F.col("chance_item_id").alias("item_id"), F.array(F.lit("drawn")).alias("kinds"), none.alias("rating")
        ),
    )
    each = beside.select(*_DAY, F.col("example_date").alias("outcome_date"), F.inline(reasons))
    return each.where("item_id is not null")


def _paired(pairs: DataFrame) -> DataFrame:
    """Both items of each pair, as they come into it."""
    of_list, shown, taken = F.col("source") == "exposure", F.lit("shown"), F.lit("taken")
    kinds = [
        F.when(of_list, F.array(shown, taken)).otherwise(F.array(taken)),
        F.when(of_list, F.array(shown)).otherwise(F.array(taken)),
    ]
    both = F.array(
        *(
            F.struct(
                F.col(f"{name}_item_id").alias("item_id"), kind.alias("kinds"), F.col(f"{name}_rating").alias("rating")
            )
            for name, kind in zip(("preferred", "other"), kinds, strict=True)
        )
    )
    return pairs.select(F.col("pair_date").alias("example_date"), "user_id", "outcome_date", F.inline(both))


def _days(reasons: DataFrame) -> DataFrame:
    """The `examples` of a person and day in one row; each is known by the earliest of its reasons, chance the last."""
    earliest = F.struct(F.array_contains("kinds", "drawn"), "outcome_date", F.col("rating").isNull(), "rating")
    kinds = F.array_sort(F.array_distinct(F.flatten(F.collect_list("kinds"))))
    each = reasons.groupBy(*_KEY).agg(
        F.when(F.size(kinds) > 1, F.array_remove(kinds, "drawn")).otherwise(kinds).alias("kinds"),
        F.min_by("rating", earliest).alias("rating"),
        F.min_by("outcome_date", earliest).alias("outcome_date"),
    )
    example = F.struct("item_id", "kinds", "rating", "outcome_date")
    return each.groupBy(*_DAY).agg(F.collect_list(example).alias("examples"))


def _with_history(days: DataFrame, histories: DataFrame, length: int) -> DataFrame:
    """With the newest of each history; who did nothing that day (a click came after midnight) has the next day's."""
    newest = [F.slice(c, F.greatest(F.size(c) - length, F.lit(0)) + 1, length) for c in ("item_ids", "ratings")]
    past = F.struct(
        newest[0].alias("history_item_ids"),
        newest[1].alias("history_ratings"),
        F.array_max("event_dates").alias("history_last_date"),
    )
    uses = F.posexplode(F.array("history_date", F.date_sub("history_date", 1))).alias("lag", "example_date")
    known = histories.select("user_id", uses, past.alias("past"))
    found = days.join(known, [*_DAY], "left").groupBy(*_DAY)
    return found.agg(F.first("examples").alias("examples"), F.min_by("past", "lag").alias("past")).select(
        *_DAY, "examples", "past.*"
    )


def _with_context(days: DataFrame, frames: Mapping[str, DataFrame]) -> DataFrame:
    """With one query of each person and day: of a list that a pair is of, else one that led to an item, the earliest.

    One for all examples of a person and day: a judge weighs the aspects once for each.
    """
    paired = frames["judge_pairs"].select("request_id", F.lit(True).alias("of_pair")).distinct()
    first = Window.partitionBy("search_date", "user_id").orderBy(
        F.col("of_pair").isNull(), F.col("item_id").isNull(), "search_time", "request_id"
    )
    ranked = frames["searches"].join(paired, "request_id", "left").withColumn("place", F.row_number().over(first))
    chosen = ranked.where("place = 1").select(
        F.col("search_date").alias("example_date"), "user_id", F.col("query").alias("context")
    )
    return days.join(chosen, [*_DAY], "left")


def _with_later(days: DataFrame, takes: DataFrame, partitions: Sequence[date], config: Mapping[str, Any]) -> DataFrame:
    """With `later`: the first items that the person took from the day on, one more than an example is told.

    Cut at the end of the day's part of the split. A bounded frame over a person's days, so linear in takes.
    """
    length, ahead = config["later_length"] + 1, config["later_days"] - 1
    last = F.date_add(F.lit(max(partitions)), ahead)
    inside = takes.where(F.col("event_date").between(F.lit(min(partitions)), last))
    firsts = inside.withColumnRenamed("event_date", "example_date")
    in_day = Window.partitionBy(*_DAY).orderBy("event_time", "item_id")
    few = firsts.withColumn("place", F.row_number().over(in_day)).where(F.col("place") <= length)
    took = F.array_sort(F.collect_list(F.struct("event_time", "item_id", F.col("example_date").alias("day"))))
    user_days = few.groupBy(*_DAY).agg(took.alias("took")).join(days, [*_DAY], "full")
    from_day_on = Window.partitionBy("user_id").orderBy(F.unix_date("example_date")).rangeBetween(0, ahead)
    seen = user_days.withColumn("ahead", F.flatten(F.collect_list("took").over(from_day_on)))
    end = part_end(F.col("example_date"), config)
    own_part = F.filter("ahead", lambda one: end.isNull() | (one["day"] < end))
    items = F.array_distinct(F.transform(own_part, lambda one: one["item_id"]))
    asked = seen.where("examples is not null")
    return asked.select(*days.columns, F.slice(items, 1, length).alias("later"))


JOB = Job(
    "judge_examples",
    version=1,
    inputs=(
        Input("events", lookback_days=None, ahead_days=CONFIG["later_days"]),
        Input("items", latest=True),
        Input("histories", ahead_days=1),
        Input("judge_pairs"),
        Input("searches", optional=True),
    ),
    config=CONFIG,
    build=build,
    audit=audit,
    settings="samples",
    again=AGAIN,
)
