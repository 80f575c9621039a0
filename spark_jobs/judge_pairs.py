"""Judge pairs: which of two items a person preferred, by what was clicked in a list and by the stars that were given.

Of a list: an item that was clicked is preferred over one above it that was not, which the person has seen and passed
over (skip-above: Joachims et al. 2005, "Accurately interpreting clickthrough data as implicit feedback"). Of ratings:
5 stars are preferred over 1 or 2 of the same person, the nearest in time. A pair belongs to the midnight before the
earlier of both feedbacks, so that neither was known; it is found when the later one is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.splits import part_of

CONFIG: Mapping[str, Any] = {
    "click_minutes": 30,
    "per_request": 3,
    "apart_days": 365,
    "per_disliked": 3,  # and as many after it
    "per_user_day": 10,
    "users_per_day": 1000,
}
AGAIN = (30, 90, CONFIG["apart_days"])
_KEY = ("pair_date", "user_id", "preferred_item_id", "other_item_id")


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Pairs as of 00:00 UTC of the asked days; `frames` holds `events` and `exposures` (empty where there are none)."""
    pairs = _of_lists(frames, partitions, config).unionByName(_of_ratings(frames["events"], partitions, config))
    # Stars say more than a click: of a pair that both tell, the stars stay.
    first = Window.partitionBy(*_KEY).orderBy(F.desc("source"), "outcome_date", "request_id")
    once = pairs.withColumn("place", F.row_number().over(first)).where("place = 1")
    kept = few_people(
        few_of_each(once, _KEY[:2], _KEY[2:], config["per_user_day"]), "pair_date", config["users_per_day"]
    )
    return kept.select(
        *_KEY,
        F.col("pair_date").cast("timestamp").alias("as_of"),
        *("source", "request_id", "preferred_rating", "other_rating", "outcome_date"),
        part_of(F.col("outcome_date"), config).alias("split_time"),
    )


def few_of_each(rows: DataFrame, group: Sequence[str], member: Sequence[str], count: int) -> DataFrame:
    """At most `count` rows of each group, chosen by a hash; `member` tells those of one group apart."""
    by_chance = Window.partitionBy(*group).orderBy(F.xxhash64(*group, *member), *member)
    return rows.withColumn("place", F.row_number().over(by_chance)).where(F.col("place") <= count).drop("place")


def few_people(rows: DataFrame, day: str, count: int) -> DataFrame:
    """The rows of at most `count` people of each day: those with the lowest hash, the same ones day by day."""
    by_person = Window.partitionBy(day).orderBy(F.xxhash64("user_id"), "user_id")
    return rows.withColumn("person", F.dense_rank().over(by_person)).where(F.col("person") <= count).drop("person")


def _of_lists(frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]) -> DataFrame:
    asked = frames["exposures"].where(on_days("exposure_date", partitions))
    request = ("exposure_date", "request_id", "user_id")
    shown = asked.select(*request, "item_id", "exposure_time", "position")
    clicked = _clicked(shown, frames["events"], config["click_minutes"])
    passed_over = shown.join(clicked, [*request, "item_id"], "left_anti")
    above = F.col("other.position") < F.col("preferred.position")
    same = [F.col(f"other.{name}") == F.col(f"preferred.{name}") for name in request]
    pairs = clicked.alias("preferred").join(passed_over.alias("other"), [*same, above])
    chosen = pairs.select(
        F.col("preferred.exposure_date").alias("pair_date"),
        F.col("preferred.user_id").alias("user_id"),
        F.col("preferred.item_id").alias("preferred_item_id"),
        F.col("other.item_id").alias("other_item_id"),
        F.lit("exposure").alias("source"),
        F.col("preferred.request_id").alias("request_id"),
        F.lit(None).cast("double").alias("preferred_rating"),
        F.lit(None).cast("double").alias("other_rating"),
        F.col("preferred.clicked_on").alias("outcome_date"),
    )
    return few_of_each(chosen, ("pair_date", "user_id", "request_id"), _KEY[2:], config["per_request"])


def _clicked(shown: DataFrame, events: DataFrame, minutes: int) -> DataFrame:
    """The places whose item the person acted on within so many minutes, each with the day of that (`clicked_on`)."""
    done = events.select("user_id", "item_id", "event_time", F.col("event_date").alias("clicked_on"))
    late = F.col("exposure_time") + F.make_interval(mins=F.lit(minutes))
    in_time = F.col("event_time").between(F.col("exposure_time"), late)
    return (
        shown.join(done, ["user_id", "item_id"])
        .where(in_time)
        .groupBy("exposure_date", "request_id", "user_id", "item_id", "position")
        .agg(F.min("clicked_on").alias("clicked_on"))
    )


def _of_ratings(events: DataFrame, partitions: Sequence[date], config: Mapping[str, Any]) -> DataFrame:
    """The `per_disliked` nearest liked items up to the day of each disliked one, and as many after it."""
    stars = last_stars(events.where("rating is not null"))
    liked, disliked = (
        _renamed(few_of_each(stars.where(which), ("user_id", "event_date"), ["item_id"], config["per_user_day"]), name)
        for which, name in (("rating = 5", "l"), ("rating <= 2", "d"))
    )
    apart = F.datediff("l_date", "d_date")
    near = (F.col("l_item") != F.col("d_item")) & (F.abs(apart) <= config["apart_days"])
    both = liked.join(disliked, "user_id").where(near)
    nearest = Window.partitionBy("user_id", "d_item", "d_date", apart > 0).orderBy(
        F.abs(apart), F.xxhash64("user_id", "l_item", "d_item"), "l_item"
    )
    few = both.withColumn("place", F.row_number().over(nearest)).where(F.col("place") <= config["per_disliked"])
    return few.select(
        F.least("l_date", "d_date").alias("pair_date"),
        "user_id",
        F.col("l_item").alias("preferred_item_id"),
        F.col("d_item").alias("other_item_id"),
        F.lit("rating").alias("source"),
        F.lit(None).cast("string").alias("request_id"),
        F.col("l_rating").alias("preferred_rating"),
        F.col("d_rating").alias("other_rating"),
        F.greatest("l_date", "d_date").alias("outcome_date"),
    ).where(on_days("pair_date", partitions))


def last_stars(events: DataFrame, *more: Column) -> DataFrame:
    """What people acted on day by day: `user_id`, `item_id`, `event_date`, the last `rating` of the day, if any, and
    `more` of each."""
    stars = F.max_by("rating", F.when(F.col("rating").isNotNull(), F.struct("event_time", "event_type")))
    return events.groupBy("user_id", "item_id", "event_date").agg(stars.alias("rating"), *more)


def _renamed(stars: DataFrame, name: str) -> DataFrame:
    names = {"item_id": "item", "event_date": "date", "rating": "rating"}
    return stars.select("user_id", *(F.col(old).alias(f"{name}_{new}") for old, new in names.items()))


JOB = Job(
    "judge_pairs",
    version=1,
    inputs=(Input("events", ahead_days=CONFIG["apart_days"]), Input("exposures", optional=True)),
    config=CONFIG,
    build=build,
    settings="samples",
    again=AGAIN,
)
