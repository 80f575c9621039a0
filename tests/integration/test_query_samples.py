"""Query samples of small shops that are worked out by hand, and beside a plain reading of the same logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from infra.contracts import load_contract
from infra.quality.rules import rules_of
from spark_jobs import query_samples
from spark_jobs.leakage import LeakageError

FIRST = date(2018, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
SETTINGS = {**query_samples.CONFIG, "valid_from": "2018-01-03", "test_from": "2018-01-04"}
Rows = list[dict[str, Any]]


def at(day: int, hour: int = 10, minute: int = 0) -> datetime:
    return datetime(2018, 1, day, hour, minute, tzinfo=UTC)


def act(user: str, item: str, time: datetime, kind: str = "click") -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_time": time, "event_type": kind}


def shown(request: str, user: str, time: datetime, queries: Sequence[str]) -> Rows:
    whole = {"request_id": request, "user_id": user, "exposure_time": time, "exposure_date": time.date()}
    row = whole | {"policy_version": "p", "hint_chance": 0.5, "list_chance": 0.1}
    return [{**row, "query": query, "position": place} for place, query in enumerate(queries, 1)]


def search(request: str, user: str, time: datetime, query: str, source: str = "typed") -> dict[str, Any]:
    row = {"request_id": request, "user_id": user, "search_time": time, "search_date": time.date()}
    return {**row, "query": query, "source": source}


class Shop:
    """Its samples as plain rows, by form and request."""

    def __init__(self, spark: SparkSession, make_frame: Any, events: Rows, searches: Rows, hints: Rows) -> None:
        self.spark = spark
        made = {"events": events, "searches": searches, "hint_exposures": hints}
        self.frames = {name: make_frame(name, rows) for name, rows in made.items()}

    def samples(self, days: Sequence[date] = tuple(DAYS), **config: Any) -> dict[tuple[str, str], dict[str, Any]]:
        frame = query_samples.build(self.spark, self.frames, days, {**SETTINGS, **config}).localCheckpoint()
        rules = rules_of(load_contract("query_samples"))
        broken = [F.count_if(~F.coalesce(F.expr(rule.expression), F.lit(False))).alias(rule.name) for rule in rules]
        assert not any(frame.agg(*broken).head())
        query_samples.audit(frame, self.frames)
        rows = [row.asDict() for row in frame.collect()]
        found = {(row["form"], row["request_id"]): row for row in rows}
        assert len(found) == len(rows)
        return found


def test_by_hand(spark: SparkSession, make_frame: Any) -> None:
    events = [act("u", "a", at(1)), act("u", "b", at(2, 9)), act("u", "c", at(2, 12)), act("v", "d", at(2, 9))]
    hints = [
        *shown("r1", "u", at(2, 9, 30), ["red  pen", "lamp", "desk"]),
        *shown("r2", "u", at(2, 11), ["ink", "glue", "tape"]),
        *shown("r3", "v", at(3), ["pen"]),
    ]
    searches = [
        search("r1", "u", at(2, 9, 31), "red pen", "hint"),
        search("s1", "u", at(2, 10), "Lamp"),
        search("s2", "u", at(2, 10, 30), "RED PEN"),
        search("s3", "u", at(2, 12), " oak   desk "),
        search("s4", "v", at(3, 11), "x" * 121),
        search("s5", "w", at(4), ""),
    ]
    found = Shop(spark, make_frame, events, searches, hints).samples()
    assert set(found) == {("direct", "r1"), ("direct", "r2"), ("direct", "r3"), ("think", "r1")}

    clicked = found["direct", "r1"]
    assert (clicked["labels"], clicked["label_sources"]) == (["red pen"], ["hint"])
    assert (clicked["shown_queries"], clicked["shown_clicked"]) == (["red pen", "lamp", "desk"], [1, 0, 0])
    assert clicked["behaviour_contents"] == ["a", "b"] and clicked["behaviour_days_ago"] == [1, 0]

    passed = found["direct", "r2"]
    assert passed["labels"] == [] and passed["shown_clicked"] == [0] * 3
    assert passed["behaviour_contents"] == ["a", "b", "red pen", "Lamp", "RED PEN"]
    assert passed["behaviour_actions"] == ["click", "click", "search", "search", "search"]

    day = found["think", "r1"]  # the clicked hint, then the latest first; what was said before is not said again
    assert (day["labels"], day["label_sources"]) == (["red pen", "oak desk", "Lamp"], ["hint", "typed", "typed"])
    assert day["as_of"] == at(2, 9, 30).replace(tzinfo=None) and day["session_end"] == at(2, 12).replace(tzinfo=None)
    assert day["behaviour_contents"] == ["a", "b"] and day["split_time"] == "train"

    unread = found["direct", "r3"]
    assert unread["behaviour_contents"] == ["d"] and unread["split_time"] == "valid"


def test_a_shop_without_a_search_box_has_no_samples_and_who_did_nothing_has_no_behaviours(
    spark: SparkSession, make_frame: Any
) -> None:
    assert Shop(spark, make_frame, [act("u", "a", at(1))], [], []).samples() == {}
    found = Shop(spark, make_frame, [], [search("s", "u", at(1), "pen")], []).samples()
    assert found["think", "s"]["behaviour_contents"] == [] and found["think", "s"]["labels"] == ["pen"]


def test_only_the_last_behaviours_of_the_last_days_are_told(spark: SparkSession, make_frame: Any) -> None:
    """Of one moment, too: who writes events by the day has many."""
    events = [act("u", f"i{n:03d}", at(1)) for n in range(120)] + [act("u", "old", at(1) - timedelta(days=91))]
    shop = Shop(spark, make_frame, events, [search("s", "u", at(2), "pen")], [])
    assert shop.samples()["think", "s"]["behaviour_contents"] == [f"i{n:03d}" for n in range(70, 120)]
    assert shop.samples(length=200)["think", "s"]["behaviour_contents"] == [f"i{n:03d}" for n in range(120)]


def test_what_comes_after_the_moment_is_found(spark: SparkSession, make_frame: Any) -> None:
    shop = Shop(spark, make_frame, [act("u", "a", at(1))], [search("s", "u", at(2), "pen")], [])
    built = query_samples.build(spark, shop.frames, DAYS, SETTINGS)
    with pytest.raises(LeakageError, match="behaviour_last_event_time_not_before_as_of: 1"):
        query_samples.audit(built.withColumn("behaviour_last_event_time", F.col("as_of")), shop.frames)


USERS, MOMENT = st.sampled_from("uv"), st.builds(at, st.integers(1, 4), st.integers(9, 12), st.sampled_from([0, 30]))
QUERY = st.sampled_from(["pen", "Pen", "ink  pot", "", "lamp"])
EVENTS = st.lists(st.builds(act, USERS, st.sampled_from("abc"), MOMENT), max_size=12)
REQUEST = st.tuples(USERS, MOMENT, st.permutations(["pen", "ink pot", "lamp"]), st.sampled_from([None, 0, 1, 2]))
TYPED = st.tuples(USERS, MOMENT, QUERY)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, requests=st.lists(REQUEST, max_size=4), typed=st.lists(TYPED, max_size=6))
def test_as_a_plain_reading_has_it_in_any_parts(
    events: Rows, requests: list[Any], typed: list[Any], spark: SparkSession, make_frame: Any
) -> None:
    hints, searches = Rows(), Rows()
    for n, (user, time, queries, clicked) in enumerate(requests):
        hints += shown(f"r{n}", user, time, queries)
        if clicked is not None:
            searches.append(search(f"r{n}", user, time + timedelta(seconds=20), queries[clicked], "hint"))
    searches += [search(f"s{n}", user, time, query) for n, (user, time, query) in enumerate(typed)]
    shop = Shop(spark, make_frame, events, searches, hints)
    whole = shop.samples()
    parts = shop.samples(DAYS[:2]) | shop.samples(DAYS[2:])
    assert whole == parts
    told = {key: (row["labels"], sorted(row["behaviour_contents"]), row["shown_clicked"]) for key, row in whole.items()}
    assert told == plainly_read(events, hints, searches)


def plainly_read(events: Rows, hints: Rows, searches: Rows) -> dict[tuple[str, str], Any]:
    def plain(words: str) -> str:
        return " ".join(words.split())

    def before(user: str, time: datetime) -> list[str]:
        did = [e["item_id"] for e in events if e["user_id"] == user and e["event_time"] < time]
        said = [plain(s["query"]) for s in searches if s["user_id"] == user and s["search_time"] < time]
        return sorted(did + said)

    def once(words: list[str]) -> list[str]:
        lower = [word.lower() for word in words]
        return [word for place, word in enumerate(words) if word and lower[place] not in lower[:place]]

    found = {}
    for request, own in groupby(hints, key=lambda row: row["request_id"]):
        rows = list(own)
        followed = {plain(s["query"]) for s in searches if s["request_id"] == request and s["source"] == "hint"}
        clicked = [plain(row["query"]) in followed for row in rows]
        labels = once([plain(row["query"]) for row, did in zip(rows, clicked, strict=True) if did])
        found["direct", request] = labels, before(rows[0]["user_id"], rows[0]["exposure_time"]), clicked
    for user, day in {(s["user_id"], s["search_date"]) for s in searches}:
        own = [s for s in searches if (s["user_id"], s["search_date"]) == (user, day)]
        met = [
            (h["exposure_time"], h["request_id"]) for h in hints if (h["user_id"], h["exposure_date"]) == (user, day)
        ]
        start, request = min([*met, *((s["search_time"], s["request_id"]) for s in own)])
        ordered = sorted(own, key=lambda s: (s["source"] != "hint", -s["search_time"].timestamp(), s["request_id"]))
        if labels := once([plain(s["query"]) for s in ordered]):
            found["think", request] = labels, before(user, start), []
    return found
