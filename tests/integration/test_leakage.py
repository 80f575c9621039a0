"""The audit passes what the jobs build, and each planted leak of one row fails it by its own rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import load_contract
from infra.lake import Lake
from infra.profile import Profile
from spark_jobs import histories, next_item_samples
from spark_jobs.engine.job import run
from spark_jobs.leakage import LeakageError, audit, audit_table

DAYS = [date(2018, 1, 1) + timedelta(n) for n in range(6)]
CONFIG = {**next_item_samples.CONFIG, "valid_from": "2018-01-04", "test_from": "2018-01-06"}
# ann meets a, b, ... f on six days and `a` again on the last; ben meets all on one day.
EVENTS = [
    {"user_id": user, "item_id": item, "event_time": datetime(2018, 1, day, 10, tzinfo=UTC)}
    for user, item, day in [("ann", i, d) for d, i in enumerate("abcdef", 1)]
    + [("ann", "a", 6)]
    + [("ben", i, 3) for i in "abc"]
]


@pytest.fixture(scope="module")
def events(make_frame: Any) -> DataFrame:
    return make_frame("events", EVENTS).cache()


@pytest.fixture(scope="module")
def samples(spark: SparkSession, events: DataFrame) -> DataFrame:
    frames = {"events": events, "histories": histories.build(spark, {"events": events}, DAYS, histories.CONFIG)}
    return next_item_samples.build(spark, frames, DAYS, CONFIG).cache()


def in_sample(item: str, day: int, changed: Column, kept: str) -> Column:
    of_ann = (F.col("user_id") == "ann") & (F.col("item_id") == item) & (F.dayofmonth("sample_date") == day)
    return F.when(of_ann, changed).otherwise(F.col(kept))


def plant(samples: DataFrame, column: str, item: str, day: int, changed: Column) -> DataFrame:
    """`samples` with one cell of ann's sample of this item and day changed."""
    return samples.withColumn(column, in_sample(item, day, changed, column))


def broken(samples: DataFrame, events: DataFrame) -> dict[str, int]:
    return {leak.rule: leak.count for leak in audit(samples, events)}


def test_what_the_jobs_build_has_no_leak(samples: DataFrame, events: DataFrame) -> None:
    assert samples.count() == len(EVENTS)
    assert broken(samples, events) == {}


@pytest.mark.parametrize(
    ("leaked", "why"),
    [
        ("d", "the target itself"),
        ("e", "an item of the next day"),
        ("zzz", "an item the user never met"),
        ("a", "an item met once before, used twice; the second meeting comes later"),
    ],
)
def test_an_item_that_was_not_met_before_is_found_in_a_history(
    leaked: str, why: str, samples: DataFrame, events: DataFrame
) -> None:
    planted = plant(samples, "history_item_ids", "d", 4, F.array_append("history_item_ids", F.lit(leaked)))

    assert broken(planted, events) == {"history_item_not_before_as_of": 1}, why


def test_items_of_the_same_day_are_no_history(samples: DataFrame, events: DataFrame) -> None:
    of_ben = F.when(F.col("user_id") == "ben", F.array(F.lit("a"))).otherwise(F.col("history_item_ids"))

    assert broken(samples.withColumn("history_item_ids", of_ben), events) == {"history_item_not_before_as_of": 1}


def test_a_feature_of_a_later_time_is_found(samples: DataFrame, events: DataFrame) -> None:
    at_as_of = samples.withColumn("user_daily__available_at", F.col("as_of"))
    second = F.expr("interval 1 second")
    late = plant(at_as_of, "user_daily__available_at", "b", 2, F.col("as_of") + second)
    counted = samples.withColumn("item_daily__last_event_time", F.col("as_of") - second)
    counted_late = plant(counted, "item_daily__last_event_time", "b", 2, F.col("as_of"))

    assert broken(at_as_of, events) == {}
    assert broken(late, events) == {"user_daily__available_at_after_as_of": 1}
    assert broken(counted, events) == {}
    assert broken(counted_late, events) == {"item_daily__last_event_time_not_before_as_of": 1}


def test_a_train_row_of_the_test_days_is_found(samples: DataFrame, events: DataFrame) -> None:
    planted = plant(samples, "split_time", "f", 6, F.lit("train"))

    assert broken(planted, events) == {"split_not_in_time_order": 1}


def test_a_train_row_made_of_validation_events_is_found(samples: DataFrame, events: DataFrame) -> None:
    planted = plant(samples, "history_last_date", "c", 3, F.lit("2018-01-04").cast("date"))

    assert broken(planted, events) == {"split_not_in_time_order": 1}


def test_a_leaking_build_publishes_nothing_and_the_honest_one_passes_the_audit_of_the_whole_table(
    spark: SparkSession, profile: Profile, publish_events: Any
) -> None:
    publish_events(EVENTS)
    run(histories.JOB, DAYS[0], DAYS[-1], profile)
    cuts = profile.samples.model_copy(update={"valid_from": DAYS[3], "test_from": DAYS[5]})
    profile = profile.model_copy(update={"samples": cuts})
    honest = next_item_samples.JOB
    seen_target = F.array_append("history_item_ids", F.col("item_id"))
    leaking = replace(
        honest,
        build=lambda *args: (
            honest.build(*args)
            .withColumn("history_item_ids", seen_target)
            .withColumn("history_ratings", F.array_append("history_ratings", F.lit(5.0)))
            .withColumn("history_len", F.col("history_len") + 1)
            .withColumn("history_last_date", F.date_sub("sample_date", 1))
        ),
    )

    with pytest.raises(LeakageError, match="history_item_not_before_as_of: 10"):
        run(leaking, DAYS[0], DAYS[-1], profile)
    assert Lake(profile).snapshot("next_item_samples") is None

    assert sum(write.rows_out for write in run(honest, DAYS[0], DAYS[-1], profile).published) == len(EVENTS)
    assert audit_table("next_item_samples", profile) == len(EVENTS)


def test_no_rule_of_the_audit_is_blind_on_the_samples() -> None:
    assert {"as_of", "history_item_ids", "history_last_date", "split_time"} <= set(
        load_contract("next_item_samples").names
    )
