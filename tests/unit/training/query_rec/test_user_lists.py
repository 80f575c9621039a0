"""The last lists of a person, and the query of the signals that have none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from common.pipelines import SYSTEMS
from infra.contracts import arrow_schema, load_contract
from training.query_rec.hints import Hint
from training.query_rec.stages.nearline_hints import _ASKED
from training.query_rec.user_lists import UserLists

_SQL = Path(SYSTEMS / "query_rec" / "fresh_signals.sql").read_text()
_DAY = date(2026, 1, 9)
_LISTS = st.lists(st.lists(st.sampled_from(["Pens", "pens", "ink", "قلم", "🎁"]), max_size=4), max_size=6)


def may_be_shown(*_: str) -> str:
    return ""


@given(_LISTS, st.integers(1, 4))
def test_the_last_lists_stay_the_newest_first_and_each_query_once(lists: list[list[str]], last: int) -> None:
    own = UserLists()
    for number, queries in enumerate(lists):
        own = own.behind(("view", f"i{number}"), [Hint(query, "model") for query in queries], last, may_be_shown)
        assert UserLists.of(own.row()) == own
    kept = lists[::-1][:last]
    expected: dict[str, tuple[int, str]] = {}
    for number, queries in enumerate(kept):
        for query in queries:
            expected.setdefault(query.lower(), (number, query))
    assert [(number, hint.query) for number, hint in own.hints] == list(expected.values())
    assert [content for _, content in own.triggers] == [f"i{n}" for n in range(len(lists))][::-1][:last]


def test_of_the_lists_before_what_may_not_be_shown_any_more_goes() -> None:
    before = UserLists().behind(("search", "tape"), [Hint("ink", "again"), Hint("glue", "model")], 3, may_be_shown)
    own = before.behind(
        ("view", "i1"), [Hint("pens", "model")], 3, lambda query, _: "unsafe" if query == "glue" else ""
    )
    assert own.row() == {
        "queries": ["pens", "ink"], "sources": ["model", "again"], "lists": [0, 1],
        "trigger_actions": ["view", "search"], "trigger_contents": ["i1", "tape"],
    }  # fmt: skip


def test_what_a_signal_searches_for_is_taken_out_of_the_lists_before_and_a_view_takes_out_nothing() -> None:
    before = UserLists().behind(("view", "i1"), [Hint("Red  Pens", "model"), Hint("ink", "model")], 3, may_be_shown)
    now = [Hint("glue", "model")]
    searched = before.behind(("search", " red\tPENS "), now, 3, may_be_shown)
    assert searched.row()["queries"] == ["glue", "ink"] and searched.row()["lists"] == [0, 1]
    assert before.behind(("view", "red pens"), now, 3, may_be_shown).row()["queries"] == ["glue", "Red  Pens", "ink"]
    assert before.behind(("search", " \n"), now, 3, may_be_shown).row()["queries"] == ["glue", "Red  Pens", "ink"]


def _at(minute: int) -> datetime:
    return datetime(2026, 1, 9, 10, tzinfo=UTC) + timedelta(minutes=minute)


def _signal(user: str, minute: int) -> dict[str, Any]:
    told = {"behaviour_days_ago": [0], "behaviour_actions": ["view"], "behaviour_contents": ["i1"]}
    own = {"signal_date": _DAY, "user_id": user, "signal_id": f"{user}{minute}", "signal_time": _at(minute)}
    return {**own, "action": "view", "content": "i1", "as_of": _at(minute), **told}


def _hints(user: str, minute: int, query: str) -> dict[str, Any]:
    lists = {"queries": [query], "sources": ["model"], "lists": [0], "trigger_actions": ["view"]}
    own = {"hint_date": _DAY, "user_id": user, "signal_id": f"{user}{minute}", "signal_time": _at(minute)}
    return {**own, **lists, "trigger_contents": ["i1"], "available_at": _at(minute + 1), "model_version": "1"}


def _asked(signals: list[dict[str, Any]], hints: list[dict[str, Any]]) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for table, rows in (("signals", signals), ("user_hints", hints)):
            connection.register(table, pa.Table.from_pylist(rows, arrow_schema(load_contract(table))))
        return connection.sql(_SQL).to_arrow_table()


def test_a_signal_that_has_a_list_is_not_asked_again_and_the_others_know_the_newest() -> None:
    signals = [_signal("ann", 40), _signal("ann", 30), _signal("ann", 0), _signal("bob", 5)]
    found = _asked(signals, [_hints("ann", 0, "old"), _hints("ann", -20, "older")]).to_pylist()
    told = [(row["signal_id"], row["queries"], row["trigger_contents"]) for row in found]
    assert told == [("ann30", ["old"], ["i1"]), ("ann40", ["old"], ["i1"]), ("bob5", [], [])]


def test_the_query_gives_what_the_stage_reads_also_before_anything_was_written() -> None:
    for found in (_asked([_signal("ann", 1)], []), _asked([], [])):
        assert set(_ASKED) <= set(found.schema.names)
        assert found.select(list(_ASKED)).cast(pa.schema(list(_ASKED.items()))) is not None
