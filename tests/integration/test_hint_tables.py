"""Statistics of queries and samples of hints: by hand, beside a plain reading of the same logs, in any parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from common.query_text import normalised
from infra.contracts import load_contract
from infra.ledger import Ledger
from infra.profile import Profile
from infra.quality.rules import rules_of
from spark_jobs import hint_samples, query_samples, query_stats
from spark_jobs.engine.job import run
from spark_jobs.leakage import LeakageError

FIRST = date(2018, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
CUTS = {"valid_from": "2018-01-03", "test_from": "2018-01-04"}
Row = dict[str, Any]
Rows = list[Row]
Logs = dict[str, Rows]


def at(day: int, hour: int = 10, minute: int = 0) -> datetime:
    return datetime(2018, 1, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1)


def buy(user: str, time: datetime, kind: str = "purchase") -> Row:
    return {"user_id": user, "item_id": "i", "event_time": time, "event_type": kind}


def hint(request: str, user: str, time: datetime, query: str, place: int = 1) -> Row:
    shown = {"request_id": request, "user_id": user, "exposure_time": time, "exposure_date": time.date()}
    return {**shown, "query": query, "position": place, "policy_version": "p", "hint_chance": 0.5, "list_chance": 0.1}


def search(request: str, user: str, time: datetime, query: str, source: str = "typed") -> Row:
    whole = {"request_id": request, "user_id": user, "search_time": time, "search_date": time.date()}
    return {**whole, "query": query, "source": source}


def frames_of(make_frame: Any, logs: Mapping[str, Rows]) -> dict[str, DataFrame]:
    return {name: make_frame(name, logs.get(name, [])) for name in ("events", "searches", "hint_exposures")}


def statistics(spark: SparkSession, frames: Mapping[str, DataFrame], days: Sequence[date]) -> dict[Any, Row]:
    frame = query_stats.build(spark, frames, days, query_stats.CONFIG).localCheckpoint()
    held(frame, "query_stats")
    rows = [row.asDict() for row in frame.collect()]
    found = {(row["stat_date"], row["query"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def held(frame: DataFrame, table: str) -> None:
    broken = [
        F.count_if(~F.coalesce(F.expr(rule.expression), F.lit(False))).alias(rule.name)
        for rule in rules_of(load_contract(table))
    ]
    assert not any(frame.agg(*broken).head())


def test_statistics_by_hand(spark: SparkSession, make_frame: Any) -> None:
    logs = {
        "hint_exposures": [
            hint("r1", "u", at(1), "Red  Pen"),
            hint("r2", "v", at(2), "red pen"),
            hint("r3", "u", at(2), "🎁"),
        ],
        "searches": [
            search("r1", "u", at(1, 10, 1), "Red  Pen", "hint"),
            search("s1", "v", at(1, 11), "RED PEN"),
            search("s2", "v", at(1, 11, 5), "lamp"),
            search("s3", "w", at(1, 23, 50), "red pen"),
            search("s4", "w", at(2), "   "),
        ],
        "events": [
            buy("u", at(1, 10, 31)),  # within 30 minutes of the hint
            buy("u", at(1, 10, 32)),  # and not
            buy("v", at(1, 11, 20)),  # behind the later search
            buy("v", at(1, 11, 21), "view"),
            buy("w", at(2, 0, 5)),  # over midnight: of the second day
            buy("x", at(2)),  # who searched for nothing
        ],
    }
    found = statistics(spark, frames_of(make_frame, logs), DAYS)
    assert set(found) == {(DAYS[0], "red pen"), (DAYS[0], "lamp"), (DAYS[1], "red pen"), (DAYS[1], "🎁")}
    first, second, lamp, gift = (
        found[key] for key in [(DAYS[0], "red pen"), (DAYS[1], "red pen"), (DAYS[0], "lamp"), (DAYS[1], "🎁")]
    )

    def told(row: Row) -> list[int]:
        return [row[f"{name}_7d"] for name in query_stats.COUNTERS] + [row["distinct_users_365d"]]

    assert told(first) == [1, 1, 2, 1, 3]
    assert told(second) == [2, 1, 2, 2, 3] and second["days_since_first_365d"] == 1
    assert told(lamp) == [0, 0, 1, 1, 1] and told(gift) == [1, 0, 0, 0, 0]
    assert first["available_at"] == second["last_event_time"].replace(hour=0, minute=0)
    assert second["last_event_time"] == at(2).replace(tzinfo=None)


USERS = st.sampled_from("uvw")
MOMENT = st.builds(at, st.integers(1, 4), st.sampled_from([0, 12, 23]), st.sampled_from([0, 25, 50]))
QUERY = st.sampled_from(["pen", "Pen ", "ink  pot", " ", "lamp"])
LOGS = st.fixed_dictionaries(
    {
        "events": st.lists(st.builds(buy, USERS, MOMENT, st.sampled_from(["purchase", "view"])), max_size=10),
        "searches": st.lists(
            st.builds(search, st.just("s"), USERS, MOMENT, QUERY, st.sampled_from(["typed", "hint"])),
            max_size=10,
            unique_by=lambda row: (row["user_id"], row["search_time"]),
        ),
        "hint_exposures": st.lists(st.builds(hint, st.just("r"), USERS, MOMENT, QUERY), max_size=8),
    }
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs=LOGS, stretch=st.sampled_from([1, 3, 60, 121]))
def test_statistics_are_those_of_a_plain_count_in_any_parts(
    logs: Logs, stretch: int, spark: SparkSession, make_frame: Any
) -> None:
    """And nothing of a later day is in them: a part is built of what the runner hands over, up to its last day."""
    for name, time, day in (
        ("events", "event_time", None),
        ("searches", "search_time", "search_date"),
        ("hint_exposures", "exposure_time", "exposure_date"),
    ):
        for row in logs[name]:
            row[time] += timedelta(days=(row[time].date() - FIRST).days * (stretch - 1))
            if day:
                row[day] = row[time].date()
    days = [FIRST + timedelta(days=n * stretch) for n in range(4)]
    whole = statistics(spark, frames_of(make_frame, logs), days)
    parts: dict[Any, Row] = {}
    for own in (days[:1], days[1:]):
        known = {
            "events": [row for row in logs["events"] if row["event_time"].date() <= max(own)],
            "searches": [row for row in logs["searches"] if row["search_date"] <= max(own)],
            "hint_exposures": [row for row in logs["hint_exposures"] if row["exposure_date"] <= max(own)],
        }
        parts |= statistics(spark, frames_of(make_frame, known), own)
    assert whole == parts
    expected = plainly_counted(logs, days)
    assert {key: {name: row[name] for name in expected[key]} for key, row in whole.items()} == expected


def plainly_counted(logs: Logs, days: Sequence[date]) -> dict[Any, Row]:
    done = list[tuple[str, datetime, str, str | None]]()
    for row in logs["hint_exposures"]:
        done.append(("shown", row["exposure_time"], normalised(row["query"]), None))
    for row in logs["searches"]:
        kind = "clicked" if row["source"] == "hint" else "typed"
        done.append((kind, row["search_time"], normalised(row["query"]), row["user_id"]))
    for event in logs["events"]:
        own = [
            s for s in logs["searches"] if s["user_id"] == event["user_id"] and s["search_time"] <= event["event_time"]
        ]
        last = max(own, key=lambda s: s["search_time"], default=None)
        if (
            event["event_type"] == "purchase"
            and last
            and event["event_time"] - last["search_time"] <= timedelta(minutes=30)
        ):
            done.append(("bought", event["event_time"], normalised(last["query"]), None))
    found = {}
    for day in days:
        for query in {query for _, time, query, _ in done if time.date() == day and query}:
            past = {
                n: [one for one in done if one[2] == query and day - timedelta(days=n) < one[1].date() <= day]
                for n in (7, 30, 365)
            }
            counts = {
                f"{kind}_{n}d": sum(one[0] == kind for one in inside)
                for kind in query_stats.COUNTERS
                for n, inside in past.items()
            }
            users = {one[3] for one in past[365]} - {None}
            first = (day - min(one[1].date() for one in past[365])).days
            latest = max(one[1] for one in past[365]).replace(tzinfo=None)
            told = {"distinct_users_365d": len(users), "days_since_first_365d": first, "last_event_time": latest}
            found[day, query] = counts | told
    return found


def test_a_shop_without_a_search_box_has_neither(spark: SparkSession, make_frame: Any) -> None:
    frames = frames_of(make_frame, {"events": [buy("u", at(1))]})
    assert statistics(spark, frames, DAYS) == {}
    samples = query_samples.build(spark, frames, DAYS, {**query_samples.CONFIG, **CUTS})
    assert hint_samples.build(spark, {"query_samples": samples}, DAYS, {}).count() == 0


def test_its_days_are_committed_without_rows_so_that_the_feature_store_goes_on(
    profile: Profile, publish_events: Any
) -> None:
    publish_events([buy("u", at(1)), buy("u", at(4))])
    for job in (query_stats.JOB, query_samples.JOB, hint_samples.JOB):
        report = run(job, DAYS[0], DAYS[-1], profile)
        assert [(write.partition, write.rows_out) for write in report.published] == [(day, 0) for day in DAYS]
        assert not report.stopped and sorted(Ledger(profile).committed(job.table)) == DAYS


def test_a_sample_is_a_place_of_a_request(spark: SparkSession, make_frame: Any) -> None:
    logs = {
        "hint_exposures": [
            hint("r1", "u", at(2), "Red  Pen", 1),
            hint("r1", "u", at(2), "", 2),
            hint("r1", "u", at(2), "x" * 10_000, 3),
            hint("r2", "v", at(3), "قلم", 1),
        ],
        "searches": [search("r1", "u", at(2, 11), "Red Pen", "hint"), search("s1", "u", at(2, 12), "lamp")],
    }
    frames = frames_of(make_frame, logs)
    frames["query_samples"] = query_samples.build(spark, frames, DAYS, {**query_samples.CONFIG, **CUTS})
    built = hint_samples.build(spark, frames, DAYS, {}).localCheckpoint()
    held(built, "hint_samples")
    hint_samples.audit(built, frames)
    rows = sorted((r["request_id"], r["place"], r["query"], r["clicked"], r["split_time"]) for r in built.collect())
    assert rows == [
        ("r1", 1, "red pen", 1, "train"),
        ("r1", 2, "", 0, "train"),
        ("r1", 3, "x" * 120, 0, "train"),
        ("r2", 1, "قلم", 0, "valid"),
    ]
    assert hint_samples.build(spark, frames, DAYS[2:3], {}).count() == 1
    late = built.withColumn("split_time", F.when(F.col("request_id") == "r2", "train").otherwise("valid"))
    with pytest.raises(LeakageError, match=r"split_not_in_time_order: 1, such as .*r2"):
        hint_samples.audit(late, frames)
