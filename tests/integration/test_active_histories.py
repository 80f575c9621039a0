"""Nightly lists are made after all that a user did up to the end of the day, whatever day the user came last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

from common.pipelines import load_pipeline
from dags.steps._inputs import query_rows
from infra.lake import Lake
from infra.profile import Profile
from spark_jobs import histories
from spark_jobs.engine.job import run

FIRST = date(2018, 1, 1)
DAYS = 12


def test_an_active_users_history_is_all_its_events_in_order(
    profile: Profile, publish_events: Callable[[list[dict[str, Any]]], Any]
) -> None:
    random = Random(4)
    times = [datetime(2018, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(24 * DAYS)]
    events = [
        {"user_id": f"u{random.randrange(9)}", "item_id": f"i{random.randrange(9)}", "event_time": time}
        for time in random.choices(times, k=45)
    ]
    events = [dict(pairs) for pairs in sorted({tuple(event.items()) for event in events})]
    publish_events(events)
    last = max(event["event_time"].date() for event in events)
    run(histories.JOB, FIRST, last, profile)
    ordered = sorted(events, key=lambda event: (event["user_id"], event["event_time"], event["item_id"]))
    query = load_pipeline("generative_rec", "demo").job("nightly_recommend").stage.reads.query
    assert query is not None
    lists = set()
    for day in (last, last - timedelta(days=4)):
        for days in (1, 3, DAYS):
            known = [event for event in ordered if event["event_time"].date() <= day]
            active = {e["user_id"] for e in known if e["event_time"].date() > day - timedelta(days=days)}
            expected = {user: [e["item_id"] for e in known if e["user_id"] == user] for user in active}
            found = query_rows(Lake(profile), "generative_rec", replace(query, days=days), day, {}).to_pylist()
            assert {row["user_id"]: row["item_ids"] for row in found} == expected
            assert len(found) == len(expected)
            lists.add(len(found))
    assert len(lists) > 1, "the case must hold users who are active and users who are not"
