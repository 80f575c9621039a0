"""Judge examples: a person as known at midnight, and an item to be judged; beside it what a teacher may know afterwards.

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

from spark_jobs.chance_items import draw_items
from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.judge_pairs import AGAIN, few_of_each, few_people, last_stars
from spark_jobs.leakage import require_no_leak
from spark_jobs.splits import part_end, part_of

CONFIG: Mapping[str, Any] = {
    "per_user_day": 3,
    "users_per_day": 1000,
    "tries": 8,  # draws for one item: the first is taken that the person has not met and the catalogue has
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
    taken = _taken(frames["events"], partitions, config)
    paired = _paired(frames["judge_pairs"])
    drawn = draw_items(taken, frames["events"], frames["items"], partitions, config["tries"])
    by_chance = _reason(drawn.join(paired, [*_KEY], "left_anti"), ["drawn"])
    examples = _one_row_each(taken.unionByName(paired).unionByName(by_chance))
    known = _with_context(_with_history(examples, frames["histories"], config["history_length"]), frames)
    hindsight = _later(known.select(*_DAY).distinct(), frames["events"], config)
    later = F.array_remove(F.coalesce("later", F.array().cast("array<string>")), F.col("item_id"))
    return known.join(hindsight, [*_DAY], "left").select(
        *_KEY,
        F.col("example_date").cast("timestamp").alias("as_of"),
        *("kinds", "rating", "history_item_ids", "history_ratings", "history_last_date"),
        F.slice(later, 1, config["later_length"]).alias("later_item_ids"),
        *("context", "outcome_date"),
        part_of(F.col("outcome_date"), config).alias("split_time"),
    )


def audit(examples: DataFrame, frames: Mapping[str, DataFrame]) -> None:
    """Refuse to publish examples that know their own day or later where they may not; see `spark_jobs.leakage`."""
    require_no_leak("judge_examples", examples, frames["events"])


def _taken(events: DataFrame, partitions: Sequence[date], config: Mapping[str, Any]) -> DataFrame:
    """A few of the items that each person rated on an asked day; up to a shop's first stars, of those acted on."""
    first_stars = events.where("rating is not null").agg(F.min("event_date").alias("first_stars"))
    acted = events.where(on_days("event_date", partitions)).select("user_id", "item_id", "event_date").distinct()
    rated = acted.join(last_stars(events.where(on_days("event_date", partitions))), acted.columns, "left")
    wanted = F.col("rating").isNotNull() | F.col("first_stars").isNull() | (F.col("event_date") < F.col("first_stars"))
    found = rated.join(F.broadcast(first_stars)).where(wanted).withColumnRenamed("event_date", "example_date")
    few = few_people(few_of_each(found, _DAY, ["item_id"], config["per_user_day"]), _DAY[0], config["users_per_day"])
    return _reason(few, ["taken"], rating=F.col("rating"))


def _paired(pairs: DataFrame) -> DataFrame:
    """Both items of each pair, as they come into it."""
    of_list = F.col("source") == "exposure"
    preferred = pairs.select(
        F.col("pair_date").alias("example_date"),
        "user_id",
        F.col("preferred_item_id").alias("item_id"),
        F.when(of_list, F.array(F.lit("shown"), F.lit("taken"))).otherwise(F.array(F.lit("taken"))).alias("kinds"),
        F.col("preferred_rating").alias("rating"),
        "outcome_date",
    )
    other = pairs.select(
        F.col("pair_date").alias("example_date"),
        "user_id",
        F.col("other_item_id").alias("item_id"),
        F.when(of_list, F.array(F.lit("shown"))).otherwise(F.array(F.lit("taken"))).alias("kinds"),
        F.col("other_rating").alias("rating"),
        "outcome_date",
    )
    return preferred.unionByName(other)


def _reason(rows: DataFrame, kinds: Sequence[str], rating: Any = None) -> DataFrame:
    """The rows as reasons of their own day for an example."""
    return rows.select(
        *_KEY,
        F.array(*map(F.lit, kinds)).alias("kinds"),
        (F.lit(None) if rating is None else rating).cast("double").alias("rating"),
        F.col("example_date").alias("outcome_date"),
    )


def _one_row_each(reasons: DataFrame) -> DataFrame:
    """All reasons for an example in one row; what it is known by is the earliest of them."""
    earliest = F.struct("outcome_date", F.col("rating").isNull(), "rating")
    return reasons.groupBy(*_KEY).agg(
        F.array_sort(F.array_distinct(F.flatten(F.collect_list("kinds")))).alias("kinds"),
        F.min_by("rating", earliest).alias("rating"),
        F.min("outcome_date").alias("outcome_date"),
    )


def _with_history(examples: DataFrame, histories: DataFrame, length: int) -> DataFrame:
    """With the newest of each history; who did nothing that day (a click came after midnight) has the next day's."""
    newest = [F.slice(c, F.greatest(F.size(c) - length, F.lit(0)) + 1, length) for c in ("item_ids", "ratings")]
    past = F.struct(
        newest[0].alias("history_item_ids"),
        newest[1].alias("history_ratings"),
        F.array_max("event_dates").alias("history_last_date"),
    )
    own = histories.select("user_id", F.col("history_date").alias("example_date"), past.alias("own"))
    after = histories.select("user_id", F.date_sub("history_date", 1).alias("example_date"), past.alias("after"))
    found = examples.join(own, [*_DAY], "left").join(after, [*_DAY], "left")
    return found.select(*examples.columns, F.coalesce("own", "after").alias("past")).select(*examples.columns, "past.*")


def _with_context(examples: DataFrame, frames: Mapping[str, DataFrame]) -> DataFrame:
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
    return examples.join(chosen, [*_DAY], "left")


def _later(asked: DataFrame, events: DataFrame, config: Mapping[str, Any]) -> DataFrame:
    """`later`: the first items that each person of `asked` took from the day on, one more than an example is told.

    Cut at the end of the day's part of the split. A bounded frame over a person's days, so linear in events.
    """
    length = config["later_length"] + 1
    own = events.join(asked.select("user_id").distinct(), "user_id", "left_semi")
    firsts = own.groupBy("user_id", "item_id", "event_date").agg(F.min("event_time").alias("event_time"))
    of_day = Window.partitionBy("user_id", "event_date").orderBy("event_time", "item_id")
    few = firsts.withColumn("place", F.row_number().over(of_day)).where(F.col("place") <= length)
    took = F.struct("event_time", "item_id", "event_date")
    days = few.groupBy("user_id", "event_date").agg(F.array_sort(F.collect_list(took)).alias("took"))
    all_days = days.join(
        asked.select("user_id", F.col("example_date").alias("event_date"), F.lit(True).alias("asked")),
        ["user_id", "event_date"],
        "full",
    )
    ahead = (
        Window.partitionBy("user_id")
        .orderBy(F.unix_date("event_date"))
        .rangeBetween(Window.currentRow, config["later_days"] - 1)
    )
    seen = all_days.withColumn("later", F.flatten(F.collect_list("took").over(ahead))).where("asked")
    end = part_end(F.col("event_date"), config)
    inside = F.filter("later", lambda one: end.isNull() | (one["event_date"] < end))
    items = F.transform(inside, lambda one: one["item_id"])
    return seen.select(
        F.col("event_date").alias("example_date"),
        "user_id",
        F.slice(F.array_distinct(items), 1, length).alias("later"),
    )


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
