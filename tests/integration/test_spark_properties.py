"""On random events every job gives what a few lines of plain Python give, in whatever ranges its days are built."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import load_contract
from infra.profile import load_profile
from spark_jobs import histories, item_stats, next_item_samples, sessions, user_profiles, user_stats
from spark_jobs.engine.job import Job

Row = dict[str, Any]

FIRST = date(2018, 1, 1)
DAYS = [FIRST + timedelta(n) for n in range(5)]
MIDNIGHT = datetime(2018, 1, 1, tzinfo=UTC)
# Two deliveries of the catalogue, the second from the third day on.
CATALOGUE = [
    {"snapshot_date": FIRST + timedelta(days), "source": "shop", "item_id": item, "title": f"{item} of {days}"}
    | {"brand": item.upper(), "category": f"all > {item}"}
    for days, items in ((0, "ab"), (2, "bcd"))
    for item in items
]
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def events(draw: st.DrawFn) -> list[Row]:
    """Events on a grid of ten minutes, give or take a microsecond: pauses and midnights on both sides of the edge. Half
    of them belong to one user."""
    row = st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["heavy", "heavy", "heavy", "ann", "ben", "cid"]),
            "item_id": st.sampled_from("abcd"),
            "event_time": st.builds(
                lambda tens, micros: MIDNIGHT + timedelta(minutes=10 * tens, microseconds=micros),
                st.integers(1, 5 * 144 - 1),
                st.sampled_from([-1, 0, 0, 0, 1]),
            ),
            "event_type": st.sampled_from(["view", "cart"]),
            "rating": st.one_of(st.none(), st.sampled_from([1.0, 2.5, 3.1, 4.7, 5.0])),
        }
    )
    return draw(st.lists(row, min_size=1, max_size=90, unique_by=position))


def position(event: Row) -> tuple[Any, ...]:
    return event["user_id"], event["event_time"], event["item_id"], event["event_type"]


def day_of(event: Row) -> date:
    return event["event_time"].date()


def midnight_after(day: date, days: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=days)


def rows_of(frame: DataFrame, key: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    rows = frame.toArrow().to_pylist()
    by_key = {tuple(row[name] for name in key): row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def build(
    job: Job, spark: SparkSession, frames: Mapping[str, DataFrame], days: Sequence[date], **config: Any
) -> dict[Any, Row]:
    built = job.build(spark, frames, days, {**job.config, **config})
    contract = load_contract(job.table)
    return rows_of(built, (contract.partition, *contract.key))


def plain_sessions(rows: list[Row], gap: timedelta, cap: int, day_cap: int) -> list[Row]:
    found = []
    for (user, _), of_day in groupby(sorted(rows, key=position), key=lambda e: (e["user_id"], day_of(e))):
        of_day = list(of_day)
        of_user_day: list[list[Row]] = []
        for event in of_day[:day_cap]:
            if of_user_day and event["event_time"] - of_user_day[-1][-1]["event_time"] <= gap:
                of_user_day[-1].append(event)
            else:
                of_user_day.append([event])
        for session in of_user_day:
            found.append(
                {
                    "user_id": user,
                    "started_at": session[0]["event_time"],
                    "ended_at": session[-1]["event_time"],
                    "n_events": len(session),
                    "item_ids": [event["item_id"] for event in session[:cap]],
                    "event_types": [event["event_type"] for event in session[:cap]],
                    "n_truncated": max(len(session) - cap, 0),
                    "n_over_day_cap": max(len(of_day) - day_cap, 0) if session is of_user_day[-1] else 0,
                }
            )
    return found


@few
@given(rows=events(), cap=st.integers(1, 4), day_cap=st.integers(1, 12))
def test_sessions_are_those_of_a_plain_loop_and_lose_no_event(
    rows: list[Row], cap: int, day_cap: int, spark: SparkSession, make_frame: Any
) -> None:
    frames = {"events": make_frame("events", rows)}
    built = build(sessions.JOB, spark, frames, DAYS, max_session_events=cap, max_user_day_events=day_cap).values()

    expected = plain_sessions(rows, timedelta(minutes=30), cap, day_cap)
    compared = [{name: row[name] for name in expected[0]} for row in built]
    assert sorted(compared, key=lambda s: (s["user_id"], s["started_at"])) == expected
    assert sum(row["n_events"] + row["n_over_day_cap"] for row in built) == len(rows)


@few
@given(rows=events(), length=st.integers(1, 6), lookback=st.integers(1, 4))
def test_a_history_is_the_last_events_strictly_before_the_day(
    rows: list[Row], length: int, lookback: int, spark: SparkSession, make_frame: Any
) -> None:
    frames = {"events": make_frame("events", rows)}
    built = build(histories.JOB, spark, frames, DAYS, length=length, lookback_days=lookback)

    ordered = sorted(rows, key=position)
    assert {(day, user) for day, user, _ in built} == {(day_of(e), e["user_id"]) for e in rows}
    for (day, user, _), row in built.items():
        oldest = day - timedelta(days=lookback)
        past = [e for e in ordered if e["user_id"] == user and oldest <= day_of(e) < day][-length:]
        assert row["item_ids"] == [e["item_id"] for e in past]
        assert row["ratings"] == [e["rating"] for e in past]
        assert row["event_dates"] == [day_of(e) for e in past]


@pytest.mark.parametrize(
    ("job", "entity", "partner"), [(user_stats.JOB, "user_id", "item_id"), (item_stats.JOB, "item_id", "user_id")]
)
@few
@given(rows=events(), stretch=st.sampled_from([1, 3, 60, 91, 121]))
def test_statistics_are_those_of_a_plain_count(
    job: Job, entity: str, partner: str, rows: list[Row], stretch: int, spark: SparkSession, make_frame: Any
) -> None:
    # Five days stretched apart reach over every window's edge.
    for event in rows:
        event["event_time"] += (day_of(event) - FIRST) * (stretch - 1)
    days = sorted({day_of(event) for event in rows})
    built = build(job, spark, {"events": make_frame("events", rows)}, days)

    assert {(day, name) for day, name, _ in built} == {(day_of(e), e[entity]) for e in rows}
    for (day, name, available_at), row in built.items():
        of_entity = [e for e in rows if e[entity] == name and day_of(e) <= day]
        last = {n: [e for e in of_entity if day_of(e) > day - timedelta(days=n)] for n in (7, 30, 365)}
        ratings = [Fraction(str(e["rating"])) for e in last[365] if e["rating"] is not None]
        assert available_at == midnight_after(day, days=1)
        assert [row[f"events_{n}d"] for n in last] == [len(inside) for inside in last.values()]
        assert row[f"distinct_{partner.removesuffix('_id')}s_365d"] == len({e[partner] for e in last[365]})
        assert row["mean_rating_365d"] == (pytest.approx(float(sum(ratings) / len(ratings))) if ratings else None)
        assert row["days_since_first_365d"] == (day - min(day_of(e) for e in last[365])).days
        assert row["last_event_time"] == max(e["event_time"] for e in of_entity)


@settings(few, max_examples=4)
@given(rows=events(), order=st.permutations(DAYS), pairs=st.booleans())
def test_days_built_in_any_order_and_range_give_the_same_rows(
    rows: list[Row], order: list[date], pairs: bool, spark: SparkSession, make_frame: Any
) -> None:
    everything, items = make_frame("events", rows), make_frame("items", CATALOGUE)
    ranges = [order[:2], order[2:]] if pairs else [[day] for day in order]
    for job in (sessions.JOB, histories.JOB, user_stats.JOB, item_stats.JOB, user_profiles.JOB):
        in_parts: dict[Any, Row] = {}
        for days in ranges:
            # What the runner hands over: nothing after the last day of the range.
            known = everything.where(F.col("event_date") <= max(days))
            described = items.where(F.col("snapshot_date") <= max(days))
            in_parts |= build(job, spark, {"events": known, "items": described}, days)
        assert in_parts == build(job, spark, {"events": everything, "items": items}, DAYS)


@few
@given(rows=events(), late=events())
def test_late_events_change_no_day_before_theirs_and_sessions_only_on_theirs(
    rows: list[Row], late: list[Row], spark: SparkSession, make_frame: Any
) -> None:
    late = [event for event in late[:2] if position(event) not in {position(e) for e in rows}]
    before, after, items = make_frame("events", rows), make_frame("events", rows + late), make_frame("items", CATALOGUE)
    touched = {day_of(event) for event in late}
    for job in (sessions.JOB, histories.JOB, user_stats.JOB, user_profiles.JOB):
        old = build(job, spark, {"events": before, "items": items}, DAYS)
        new = build(job, spark, {"events": after, "items": items}, DAYS)
        changed = {key[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        assert all(any(day >= cause for cause in touched) for day in changed)
        if job is sessions.JOB:
            assert changed == touched


@few
@given(rows=events())
def test_each_event_is_one_sample_and_leave_one_out_takes_the_last_two_items_of_a_user_once_a_day(
    rows: list[Row], spark: SparkSession, make_frame: Any
) -> None:
    frames = {"events": make_frame("events", rows)}
    frames["histories"] = histories.build(spark, frames, DAYS, histories.CONFIG)
    config = next_item_samples.JOB.resolved_config(load_profile("local", environ={}))
    samples = next_item_samples.build(spark, frames, DAYS, config)

    contract = load_contract("next_item_samples")
    labelled = rows_of(next_item_samples.leave_one_out(samples), contract.key)
    assert samples.count() == len(rows)
    of_user: dict[str, dict[tuple[Any, ...], Row]] = defaultdict(dict)
    for event in sorted(rows, key=position):
        of_user[event["user_id"]].setdefault((day_of(event), event["item_id"]), event)
    expected = {}
    for targets in (list(found.values()) for found in of_user.values()):
        labels = (["train"] * len(targets) + ["valid", "test"])[-len(targets) :]
        expected |= {tuple(e[name] for name in contract.key): label for e, label in zip(targets, labels, strict=True)}
    assert {key: row["split_leave_one_out"] for key, row in labelled.items()} == expected
