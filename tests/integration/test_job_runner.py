"""The job runner: idempotent, in any order of partitions, and honest about rules that fail or raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import Expectation, RowRule, load_contract
from infra.errors import EXIT_DATA, DataError, PlumblineError
from infra.lake import Lake
from infra.ledger import Ledger
from infra.partitions import RuleResult
from infra.profile import Profile
from infra.quality import validate_partitions
from spark_jobs.engine.commit import Batch, JobReport, commit
from spark_jobs.engine.job import Input, Job, run
from tests.integration.conftest import MakeFrame

MON, TUE, WED = (date(2024, 3, n) for n in (4, 5, 6))
Publish = Callable[[list[dict[str, Any]]], JobReport]


def event(day: date, user: str, **more: Any) -> dict[str, Any]:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return {"user_id": user, "item_id": "i1", "event_time": at, **more}


def copy_a_day_late(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Yesterday's events as today's: a job with a lag."""
    later = frames["events"].withColumn("event_date", F.date_add("event_date", 1))
    return later.where(F.col("event_date").isin(list(partitions)))


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> Job:
    """Publishes into the contract of events under another name."""
    contract = replace(load_contract("events"), table="sessions")
    monkeypatch.setattr(
        "spark_jobs.engine.job.load_contract", lambda t: contract if t == "sessions" else load_contract(t)
    )
    monkeypatch.setattr(
        "spark_jobs.engine.job.Lake",
        lambda profile: Lake(profile, {"events": load_contract("events"), "sessions": contract}),
    )
    return Job("sessions", 1, (Input("events", lookback_days=1, lag_days=1),), {}, copy_a_day_late)


def rows_of(profile: Profile, spark: SparkSession, table: str) -> list[tuple[Any, ...]]:
    paths = [file.path for file in Lake(profile).files(table)]
    return sorted(map(tuple, spark.read.parquet(*paths).select("event_date", "user_id").collect())) if paths else []


def test_a_second_run_does_nothing_and_a_new_input_redoes_only_the_days_that_read_it(
    profile: Profile, publish_events: Publish, lagging: Job
) -> None:
    publish_events([event(MON, "a"), event(TUE, "b")])
    first = run(lagging, MON, WED, profile)
    assert [(w.partition, w.rows_out) for w in first.published] == [(MON, 0), (TUE, 1), (WED, 1)]
    assert run(lagging, MON, WED, profile).up_to_date == 3
    publish_events([event(TUE, "b"), event(TUE, "c")])
    assert [w.partition for w in run(lagging, MON, WED, profile).published] == [WED]


def test_any_order_of_partitions_gives_the_same_table(
    profile: Profile, publish_events: Publish, lagging: Job, spark: SparkSession
) -> None:
    publish_events([event(MON + timedelta(days=n), f"u{n}") for n in range(4)])
    for day in (WED, MON, TUE, WED):
        run(lagging, day, day, profile)
    one_by_one = rows_of(profile, spark, "sessions")
    assert one_by_one == [(TUE, "u0"), (WED, "u1")]
    assert run(lagging, MON, WED, profile).published == ()


def test_a_job_whose_input_was_never_published_is_refused_and_publishes_nothing(
    profile: Profile, lagging: Job, spark: SparkSession
) -> None:
    with pytest.raises(DataError, match="made of events, and nothing was ever published") as refusal:
        run(lagging, MON, MON, profile)
    assert "python -m spark_jobs events" in refusal.value.do
    assert Ledger(profile).committed("sessions") == {}


def test_a_day_that_is_not_committed_is_named_with_every_run_until_it_is(
    profile: Profile, publish_events: Publish, lagging: Job
) -> None:
    publish_events([event(MON, "a")])
    said = "sessions: built without events of 2024-03-03, 2024-03-05: not committed yet"
    for _ in range(2):
        assert run(lagging, MON, WED, profile).messages == (said,)
    publish_events([event(TUE, "b")])
    assert run(lagging, TUE, WED, profile).messages == ()


def test_rows_of_days_that_nobody_asked_for_are_a_bug_that_says_so(
    profile: Profile, publish_events: Publish, lagging: Job
) -> None:
    publish_events([event(MON, "a")])
    careless = replace(
        lagging,
        inputs=(Input("events"),),
        build=lambda spark, frames, days, config: frames["events"].withColumn("event_date", F.lit(WED)),
    )
    with pytest.raises(PlumblineError, match="nobody asked for"):
        run(careless, MON, MON, profile)


def checked(profile: Profile, frame: DataFrame, *rules: RowRule) -> JobReport:
    contract = load_contract("events")
    batch = Batch(contract, frame, {MON: "k"}, {MON: ()}, "c", 0, 0.0, rules=rules)
    return commit(batch, Lake(profile), Ledger(profile))


def results(report: JobReport) -> dict[str, RuleResult]:
    (write,) = report.published
    return {result.rule: result for result in write.rules}


def test_a_warning_is_counted_and_refuses_no_row(profile: Profile, make_frame: MakeFrame) -> None:
    frame = make_frame("events", [event(MON, f"u{n}") for n in range(4)])
    found = results(checked(profile, frame, RowRule("not_u1", "user_id != 'u1'", "warn", "")))
    assert found["not_u1"] == RuleResult("not_u1", "warn", 1, "failed")


@pytest.mark.parametrize("expression", ["no_such_column = 1", "cast(user_id as int) = 1"], ids=["compile", "run"])
def test_a_warning_rule_that_raises_counts_once_as_an_error_and_no_row_is_lost(
    profile: Profile, make_frame: MakeFrame, expression: str
) -> None:
    frame = make_frame("events", [event(MON, f"u{n}") for n in range(4)])
    report = checked(profile, frame, RowRule("raises", expression, "warn", ""))
    (write,) = report.published
    assert [result for result in write.rules if result.rule == "raises"] == [RuleResult("raises", "warn", 0, "error")]
    assert (write.rows_in, write.rows_out, write.rows_quarantined) == (4, 4, 0)


def test_a_fail_rule_that_raises_stops_the_partition_and_refuses_no_row(
    profile: Profile, make_frame: MakeFrame
) -> None:
    report = checked(
        profile, make_frame("events", [event(MON, "u")]), RowRule("raises", "cast(user_id as int) = 1", "fail", "")
    )
    assert report.exit_code == EXIT_DATA
    assert report.published == ()
    assert "rule raises could not be evaluated" in report.stopped[0].why


def test_an_expectation_names_the_partitions_that_fail_it_and_one_that_raises_is_an_error(profile: Profile) -> None:
    between = "expect_column_values_to_be_between"
    contract = replace(
        load_contract("events"),
        expectations=(
            Expectation(between, {"column": "rows_out", "min_value": 5}, "fail", "Five rows."),
            Expectation(between, {"column": "no_such_aggregate", "min_value": 5}, "warn", "Five of it."),
        ),
    )
    found = validate_partitions(
        profile, contract, [{"partition": MON, "rows_out": 9}, {"partition": TUE, "rows_out": 2}]
    )
    assert [result.rule for result in found[MON]] == ["expectation: Five rows", "expectation: Five of it"]
    assert [result.status for result in found[MON]] == ["ok", "error"]
    assert [result.status for result in found[TUE]] == ["failed", "error"]


def test_the_page_of_a_run_speaks_in_the_words_of_the_contract_and_names_the_partition_of_a_bad_row(
    profile: Profile,
) -> None:
    between = Expectation("expect_column_values_to_be_between", {"column": "rows_out", "min_value": 5}, "fail", "Five.")
    rows = [{"partition": MON, "rows_out": 9, "rows_quarantined": 1, "rule_price_not_negative": 1}]
    validate_partitions(profile, replace(load_contract("events"), expectations=(between,)), rows)
    (page,) = (profile.home / "report" / "data_docs" / "validations" / "events").rglob("*.html")
    before, after = page.read_text().split('<div id="section-2"')
    assert "price_not_negative (1)" in before and f"events-{MON}.csv" in before
    assert "Five." in after
