"""People are read as they were, and told in words."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef
from training.query_rec.people import Met, Person, read_met
from training.query_rec.prompts import ACTIONS

_AS_OF = datetime(2026, 1, 9, 12, tzinfo=UTC)


def _row(**given: Any) -> dict[str, Any]:
    return {
        "sample_date": date(2026, 1, 9), "user_id": "u", "form": "direct", "request_id": "r", "as_of": _AS_OF,
        "behaviour_days_ago": [3, 0], "behaviour_actions": ["view", "search"],
        "behaviour_contents": ["i1", "blue  pens"], "shown_queries": ["pens", "ink"], "shown_clicked": [0, 1],
        "labels": ["ink", "red ink"], "label_sources": ["hint", "typed"], "split_time": "train", **given,
    }  # fmt: skip


def _read(tmp_path: Path, rows: list[dict[str, Any]], form: str = "direct") -> list[Met]:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    tables = {"query_samples": TableRef((str(tmp_path / "a.parquet"),))}
    return list(read_met(StageSpec("query_rec", "x", str(tmp_path), 1, tables), (form,), {"train"}))


def test_a_row_is_read_as_it_stands(tmp_path: Path) -> None:
    [met] = _read(tmp_path, [_row(), _row(form="think", request_id="day"), _row(split_time="test")])
    assert met.person == Person("u", _AS_OF, (3, 0), ("view", "search"), ("i1", "blue  pens"))
    assert (met.shown, met.clicked, met.part, met.day) == (("pens", "ink"), (False, True), "train", date(2026, 1, 9))
    assert met.labelled() == {"hint": ["ink"], "typed": ["red ink"]}


def test_a_table_of_another_schema_is_refused(tmp_path: Path) -> None:
    row = _row()
    del row["labels"]
    with pytest.raises(DataError, match="no column 'labels'"):
        _read(tmp_path, [row])


def test_what_has_no_words_is_not_told() -> None:
    """An item that was deleted, a search of blanks, an action that nobody knows."""
    contents = ("gone", "i1", " ", "a\n pen", "i1")
    actions = ("view", "cart", "search", "search", "teleport")
    told = Person("u", _AS_OF, (5, 4, 3, 2, 1), actions, contents).told({"i1": "blue pen"}, profile="likes blue")
    assert list(zip(told.days_ago, told.actions, told.contents, strict=True)) == [
        (4, "cart", "blue pen"),
        (2, "search", "a pen"),
    ]
    assert told.profile == "likes blue"


def test_nobody_who_did_anything_has_no_items() -> None:
    person = Person("u", _AS_OF, (), (), ())
    assert person.items == [] and person.told({}).contents == ()


def test_what_came_out_of_order_twice_or_from_the_future_is_told_as_it_was() -> None:
    rows = [(0, "search", "ink"), (4, "view", "i1"), (4, "view", "i1"), (-1, "search", "soon"), (2, "search", "pens")]
    days_ago, actions, contents = zip(*rows, strict=True)
    told = Person("u", _AS_OF, days_ago, actions, contents).told({"i1": "blue pen"})
    assert (told.days_ago, told.contents) == ((4, 2, 0), ("blue pen", "pens", "ink"))


def test_of_ten_thousand_the_last_are_told_and_of_a_long_search_the_beginning() -> None:
    rows = [(9_999 - day, "search", f"search {day}") for day in range(9_999)] + [(0, "search", "x" * 10_000)]
    days_ago, actions, contents = zip(*rows, strict=True)
    told = Person("u", _AS_OF, days_ago, actions, contents).told({}, 3)
    assert told.contents == ("search 9997", "search 9998", "x" * 200) and told.days_ago == (2, 1, 0)


_ROWS = st.tuples(
    st.integers(-1, 5), st.sampled_from([*ACTIONS, "other"]), st.sampled_from(["i1", "i2", "", "Red Pens"])
)


@given(st.lists(_ROWS), st.none() | st.integers(1, 4))
def test_triggers_are_counted_as_what_is_told(rows: list[tuple[int, str, str]], last: int | None) -> None:
    days_ago, actions, contents = zip(*rows, strict=True) if rows else ((), (), ())
    person, phrases = Person("u", _AS_OF, days_ago, actions, contents), {"i1": "blue pen", "i2": "desk"}
    told, found = person.told(phrases, last), person.triggers(phrases, last)
    assert len(found) == len(told.contents)
    for trigger, action, words in zip(found, told.actions, told.contents, strict=True):
        by_search = action == "search"
        assert trigger.kind == ("search" if by_search else "item")
        assert trigger.key == words.lower() if by_search else phrases[trigger.key] == words
