"""The query of active people: what each did last, in its order, as `query_samples` tells it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from common.pipelines import SYSTEMS

_SQL = Path(SYSTEMS / "query_rec" / "active_people.sql").read_text()
_DAY = date(2026, 1, 9)


def _at(days_ago: int, hour: int = 0) -> datetime:
    return datetime(2026, 1, 9, hour, tzinfo=UTC) - timedelta(days=days_ago)


def _asked(events: list[tuple[str, datetime, str, str]], searches: list[tuple[str, datetime, str]]) -> dict[str, dict]:
    time = pa.timestamp("us", tz="UTC")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        kinds = {"user_id": pa.string(), "event_time": time, "event_type": pa.string(), "item_id": pa.string()}
        rows = [dict(zip(kinds, row, strict=True)) for row in events]
        connection.register("events", pa.Table.from_pylist(rows, pa.schema(kinds)))
        kinds = {"user_id": pa.string(), "search_time": time, "query": pa.string()}
        rows = [dict(zip(kinds, row, strict=True)) for row in searches]
        connection.register("searches", pa.Table.from_pylist(rows, pa.schema(kinds)))
        found = connection.sql(_SQL, params={"day": _DAY}).to_arrow_table().to_pylist()
    return {row["user_id"]: row for row in found}


def test_events_and_searches_stand_on_one_line_of_time() -> None:
    events = [("a", _at(2, 9), "view", "i1"), ("a", _at(0, 23), "purchase", "i2"), ("b", _at(5), "view", "i3")]
    found = _asked(events, [("a", _at(1), "  red \n pens ")])
    assert found["a"] == {
        "user_id": "a",
        "as_of": datetime(2026, 1, 10, tzinfo=UTC),
        "days_ago": [3, 2, 1],
        "actions": ["view", "search", "purchase"],
        "contents": ["i1", "red pens", "i2"],
    }
    assert found["b"]["days_ago"] == [6]


def test_of_ten_thousand_the_last_fifty_are_told_and_of_a_long_search_the_beginning() -> None:
    events = [("a", _at(1) + timedelta(seconds=n), "view", f"i{n}") for n in range(10_000)]
    found = _asked(events, [("a", _at(0), "x" * 10_000)])["a"]
    assert found["contents"] == [*(f"i{n}" for n in range(9_951, 10_000)), "x" * 120]


def test_a_shop_without_searches_has_events_and_an_empty_one_nobody() -> None:
    assert _asked([("a", _at(0), "view", "i1")], [])["a"]["actions"] == ["view"]
    assert _asked([], []) == {}
