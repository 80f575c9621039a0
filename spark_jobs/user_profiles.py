"""What a user's own items say of the user, as a line of text: brands, kinds, what was liked and what was not.

One row per user and day of activity, usable from the next midnight on (`available_at`), made of the events up to that
day and of the catalogue as it stood on that day. A stage that trains on a part of the time line takes the newest row
before the part ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job
from spark_jobs.histories import last_events

CONFIG: Mapping[str, Any] = {"length": 50, "lookback_days": 730, "names": 3, "titles": 3, "title_words": 8}


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Profiles of the users active on the asked days; `frames` holds `events` and `items`."""
    past = last_events(frames["events"], partitions, config, up_to=0)
    told = past.select("user_id", "event_date", F.posexplode("past").alias("place", "event")).select(
        "user_id", "event_date", "place", "event.item_id", "event.rating", "event.event_time"
    )
    # The catalogue's delivery is found per day, never its items per day, which would be millions of rows.
    dated = told.join(F.broadcast(newest_delivery(frames["items"], past)), "event_date", "left")
    kind = F.element_at(F.split("category", " > "), -1).alias("kind")
    described = frames["items"].select("snapshot_date", "item_id", "brand", kind, "title")
    known = dated.join(described, ["snapshot_date", "item_id"], "left")
    said = F.struct("place", "brand", "kind", "title", "rating")
    lines = known.groupBy("user_id", "event_date").agg(
        F.array_sort(F.collect_list(said)).alias("said"), F.max("event_time").alias("last_event_time")
    )
    return lines.select(
        F.col("event_date").alias("profile_date"),
        "user_id",
        F.date_add("event_date", 1).cast("timestamp").alias("available_at"),
        _text(config).alias("profile_text"),
        "last_event_time",
    )


def newest_delivery(items: DataFrame, past: DataFrame) -> DataFrame:
    """For each day the newest delivery of the catalogue up to it; days before the first have no row."""
    deliveries = items.select("snapshot_date").distinct()
    days = past.select("event_date").distinct()
    return (
        days.join(F.broadcast(deliveries), F.col("snapshot_date") <= F.col("event_date"))
        .groupBy("event_date")
        .agg(F.max("snapshot_date").alias("snapshot_date"))
    )


def _text(config: Mapping[str, Any]) -> Column:
    """`brands: A, B; kinds: C; liked: T1 | T2; disliked: T3; lately: T4`, without the parts that are empty."""
    rating = {"liked": lambda one: one["rating"] >= 5, "disliked": lambda one: one["rating"] < 3}
    parts = [_part("brands", _most_frequent("brand", config["names"]), ", ")]
    parts.append(_part("kinds", _most_frequent("kind", config["names"]), ", "))
    for name, keep in rating.items():
        parts.append(_part(name, _last_titles(F.filter("said", keep), config), " | "))
    parts.append(_part("lately", _last_titles(F.col("said"), config), " | "))
    return F.concat_ws("; ", *parts)


def _part(name: str, values: Column, joiner: str) -> Column:
    return F.when(F.size(values) > 0, F.concat(F.lit(f"{name}: "), F.array_join(values, joiner)))


def _most_frequent(field: str, count: int) -> Column:
    """The values that stand most often, the first in the alphabet where they tie."""
    values = F.array_compact(F.transform("said", lambda one: one[field]))
    counted = F.transform(
        F.array_distinct(values),
        lambda value: F.struct(
            (-F.size(F.filter(values, lambda other: other == value))).alias("n"), value.alias("value")
        ),
    )
    return F.transform(F.slice(F.array_sort(counted), 1, count), lambda one: one["value"])


def _last_titles(said: Column, config: Mapping[str, Any]) -> Column:
    """The first words of the last titles, newest first, each once."""
    titles = F.array_compact(F.transform(F.reverse(said), lambda one: one["title"]))
    words = F.transform(titles, lambda title: F.array_join(F.slice(F.split(title, " "), 1, config["title_words"]), " "))
    return F.slice(F.array_distinct(words), 1, config["titles"])


JOB = Job(
    "user_profiles",
    version=2,
    inputs=(Input("events", lookback_days=CONFIG["lookback_days"]), Input("items", latest=True)),
    config=CONFIG,
    build=build,
)
