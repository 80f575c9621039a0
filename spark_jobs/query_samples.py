"""Query samples: what a person did before they met the search box, and what they searched for then (AIGQ, 2603.19710).

Two forms. `direct`: one request that showed hints, with what was clicked of them. `think`: a person's day, from the
first contact with the search box on, with all that was searched for, whatever led to it. Labels stand in the order of
interest: hints that were clicked, from the top of the list or the latest of the day first, then what was typed, the
latest first (INFERRED); each once. Places that a ranker or a model fill are added where those are known, in training.

A query that is empty or longer than `longest` is no label: nobody would be shown it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.behaviours import behaviours, plain, with_last
from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.leakage import require_no_leak
from spark_jobs.splits import part_of

CONFIG: Mapping[str, Any] = {"length": 50, "lookback_days": 90, "longest": 120}
_HINT, _TYPED = "hint", "typed"
_KEY = ("sample_date", "user_id", "form", "request_id")


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Samples of the asked days; `frames` holds `events`, and `searches` and `hint_exposures` (empty where there are
    none)."""
    searches = frames["searches"].where(on_days("search_date", partitions))
    shown = frames["hint_exposures"].where(on_days("exposure_date", partitions))
    met = _direct(shown, searches, config["longest"]).unionByName(
        _think(shown, searches, frames["events"].where(on_days("event_date", partitions)), config["longest"])
    )
    done = behaviours(frames["events"], frames["searches"], config["longest"])
    known = with_last(met, done, config["length"], config["lookback_days"])
    return known.select(
        *_KEY,
        "as_of",
        "session_end",
        *(f"behaviour_{name}" for name in ("days_ago", "actions", "contents", "last_event_time")),
        *("shown_queries", "shown_chances", "shown_clicked", "labels", "label_sources"),
        part_of(F.col("sample_date"), config).alias("split_time"),
    )


def audit(samples: DataFrame, frames: Mapping[str, DataFrame]) -> None:
    """Refuse to publish samples that know what came after `as_of`; see `spark_jobs.leakage`."""
    require_no_leak("query_samples", samples, frames["events"])


def _direct(shown: DataFrame, searches: DataFrame, longest: int) -> DataFrame:
    """One row for each request that showed hints."""
    words = plain(F.col("query"))
    followed = searches.where(F.col("source") == _HINT).select("request_id", words.alias("words")).distinct()
    hints = (
        shown.withColumn("words", words)
        .join(followed.withColumn("clicked", F.lit(True)), ["request_id", "words"], "left")
        .withColumn("clicked", F.coalesce("clicked", F.lit(False)))
    )
    hint = F.struct("position", "words", F.col("hint_chance").alias("chance"), "clicked")
    lists = hints.groupBy(F.col("exposure_date").alias("sample_date"), "user_id", "request_id").agg(
        F.min("exposure_time").alias("as_of"), F.array_sort(F.collect_list(hint)).alias("hints")
    )
    clicked = F.transform(F.filter("hints", lambda one: one["clicked"]), lambda one: one["words"])
    labelled = lists.withColumn("found", _labels(F.transform(clicked, lambda one: _label(one, _HINT)), longest))
    return labelled.select(
        "sample_date",
        "user_id",
        F.lit("direct").alias("form"),
        "request_id",
        "as_of",
        F.col("as_of").alias("session_end"),
        F.col("hints.words").alias("shown_queries"),
        F.col("hints.chance").alias("shown_chances"),
        F.transform("hints", lambda one: one["clicked"].cast("bigint")).alias("shown_clicked"),
        *_columns(),
    )


def _think(shown: DataFrame, searches: DataFrame, events: DataFrame, longest: int) -> DataFrame:
    """One row for each person and day that met the search box and searched for something."""
    day = ("sample_date", "user_id")
    contact = shown.select(
        F.col("exposure_date").alias("sample_date"), "user_id", "request_id", F.col("exposure_time").alias("time")
    ).unionByName(
        searches.select(
            F.col("search_date").alias("sample_date"), "user_id", "request_id", F.col("search_time").alias("time")
        )
    )
    begun = contact.groupBy(*day).agg(
        F.min("time").alias("as_of"),
        F.max("time").alias("last_contact"),
        F.min_by("request_id", F.struct("time", "request_id")).alias("request_id"),
    )
    left = events.groupBy(F.col("event_date").alias("sample_date"), "user_id").agg(
        F.max("event_time").alias("last_event")
    )
    # Hints that were clicked before what was typed, the latest first.
    rank = F.when(F.col("source") == _HINT, 0).otherwise(1).alias("rank")
    latest = (-F.unix_micros("search_time")).alias("latest")
    label = F.struct(rank, latest, "request_id", plain(F.col("query")).alias("words"), "source")
    asked = searches.groupBy(F.col("search_date").alias("sample_date"), "user_id").agg(
        F.array_sort(F.collect_list(label)).alias("searched")
    )
    listed = F.transform("searched", lambda one: _label(one["words"], one["source"]))
    return (
        begun.join(asked, [*day])
        .join(left, [*day], "left")
        .withColumn("found", _labels(listed, longest))
        .where(F.size("found") > 0)
        .select(
            *day,
            F.lit("think").alias("form"),
            "request_id",
            "as_of",
            F.greatest("last_contact", F.coalesce("last_event", "last_contact")).alias("session_end"),
            F.array().cast("array<string>").alias("shown_queries"),
            F.array().cast("array<double>").alias("shown_chances"),
            F.array().cast("array<bigint>").alias("shown_clicked"),
            *_columns(),
        )
    )


def _label(words: Column, source: str | Column) -> Column:
    return F.struct(words.alias("words"), (F.lit(source) if isinstance(source, str) else source).alias("source"))


def _labels(listed: Column, longest: int) -> Column:
    """Those that anybody could be shown, each at its first place; the same words in other case are the same."""
    fit = F.filter(listed, lambda one: F.length(one["words"]).between(1, longest))
    keys = F.transform(fit, lambda one: F.lower(one["words"]))
    return F.filter(fit, lambda one, place: F.array_position(keys, F.lower(one["words"])) == place + 1)


def _columns() -> list[Column]:
    return [F.col("found.words").alias("labels"), F.col("found.source").alias("label_sources")]


JOB = Job(
    "query_samples",
    version=1,
    inputs=(
        Input("events", lookback_days=CONFIG["lookback_days"]),
        Input("searches", lookback_days=CONFIG["lookback_days"], optional=True),
        Input("hint_exposures", optional=True),
    ),
    config=CONFIG,
    build=build,
    audit=audit,
    settings="samples",
)
