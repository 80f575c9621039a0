"""JSON lines and arrays: each object a record, each broken line one refused record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spark_jobs.landing.json_rows as json_rows
from tests.unit.spark_jobs.landing.kit import read, written

GOOD = {"user_id": "u", "item_id": "i", "event_time": "2024-03-01", "event_type": "view"}
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_ROWS = st.lists(st.fixed_dictionaries({**dict.fromkeys(GOOD, _TEXT), "price": st.integers()}), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=_ROWS, indent=st.sampled_from([None, 1]), ascii_only=st.booleans(), piece=st.sampled_from([64, 70, 1 << 20])
)
def test_an_array_in_pieces_of_any_size_and_lines_give_the_same_rows(
    tmp_path: Path, rows: list[dict[str, Any]], indent: int | None, ascii_only: bool, piece: int
) -> None:
    array = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_PIECE", piece)
        of_array, told = read(written(tmp_path / "a.json", array))
    of_lines, tally = read(written(tmp_path / "a.jsonl", text))
    assert told == tally
    assert tally.records == len(rows)
    assert of_array == of_lines
    assert [row["values"] for row in of_lines] == [row | {"price": str(row["price"])} for row in rows]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"user_id": "u",', "no JSON"),
        ("null", "no object"),
        ("[1]", "no object"),
        ('{"user_id": "a", "user_id": "b"}', "'user_id' twice"),
        ('{"user_id": "\\ud83d"}', "half a character"),
        ("[" * 100_000, "no JSON"),
        ("\0\0", "no JSON"),
    ],
)
def test_a_line_that_is_no_object_is_one_refused_record(tmp_path: Path, line: str, fault: str) -> None:
    found, tally = read(written(tmp_path / "a.jsonl", f"{json.dumps(GOOD)}\n\n{line}\n{json.dumps(GOOD)}\n"))
    assert tally == type(tally)(records=3)
    assert [row["fault"] is None for row in found] == [True, False, True]
    assert fault in found[1]["fault"]
    assert "Line 3" in found[1]["fault"]
    assert found[1]["line"] == line


def test_files_that_were_joined_have_a_byte_order_mark_inside(tmp_path: Path) -> None:
    part = "\ufeff" + json.dumps(GOOD) + "\n"
    found, _ = read(written(tmp_path / "a.jsonl", part + part))
    assert [row["fault"] for row in found] == [None, None]


def test_blanks_may_stand_before_an_array(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.json", "\n" * 500 + json.dumps([GOOD])))[1].records == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (json.dumps([GOOD | {"user_id": "é"}], ensure_ascii=False), "line 1"),
        (json.dumps([GOOD, GOOD | {"user_id": "é"}], indent=1, ensure_ascii=False), "line 9"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"é": "x"}, ensure_ascii=False), "line 2"),
    ],
)
def test_a_byte_that_is_no_utf_8_is_named_by_its_line(tmp_path: Path, text: str, place: str) -> None:
    _, tally = read(written(tmp_path / "a.json", text.encode("latin-1")))
    assert f"where: {place}\n" in str(tally.problem)


@pytest.mark.parametrize("value", [{"$oid": "65e1"}, ["a"], True, False])
def test_an_id_that_is_no_text_and_no_number_is_odd(tmp_path: Path, value: Any) -> None:
    found, _ = read(written(tmp_path / "a.jsonl", json.dumps(GOOD | {"user_id": value})))
    assert found[0]["odd"] == "user_id"


def test_numbers_keep_the_digits_that_were_written(tmp_path: Path) -> None:
    line = json.dumps(GOOD).replace('"u"', "9007199254740993").replace('"i"', "1.02938E+11")
    found, _ = read(written(tmp_path / "a.jsonl", line))
    assert found[0]["values"]["user_id"] == "9007199254740993"
    assert found[0]["values"]["item_id"] == "1.02938E+11"
    assert found[0]["odd"] is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps({"events": [GOOD]}), "a list in an object, under 'events'"),
        (json.dumps(GOOD, indent=1), "one object a line, or all of them as one array"),
        (json.dumps([GOOD, GOOD])[:-5], "after object 1 of its array"),
        (json.dumps([GOOD]) + "\n" + json.dumps([GOOD]), "something follows its end"),
        (json.dumps([GOOD]).replace("}]", "}] x"), "something follows its end"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "event_time"}), "lacks the column event_time"),
        (json.dumps(GOOD | {"mood": 1}), "unknown column: mood"),
        (json.dumps(GOOD | {"mood ": 1}), "unknown column: 'mood '"),
        (json.dumps(GOOD | {"\ud800": 1}), r"unknown column: '\ud800'"),
    ],
)
def test_a_file_of_another_shape_is_explained(tmp_path: Path, text: str, complaint: str) -> None:
    _, tally = read(written(tmp_path / "a.json", text))
    assert complaint in str(tally.problem)
    assert "do:" in str(tally.problem)
