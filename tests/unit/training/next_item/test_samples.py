"""The sample table as the stages see it: order, splits, sequences, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.sample_kit import write_rows
from training.core import tables
from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, TableRef
from training.next_item import sample_columns
from training.next_item.samples import (
    NextItem,
    Samples,
    before_held_out,
    leave_one_out,
    of_catalogue,
    of_subset,
    read_samples,
    training_sequences,
)

Row = tuple[str, int, str, list[str], str]


def table(folder: Path, rows: list[Row]) -> StageSpec:
    """Rows are user, day of January 2018, item, history, part."""
    dated = [(user, date(2018, 1, day), datetime(2018, 1, day, tzinfo=UTC), *rest) for user, day, *rest in rows]
    file = write_rows(folder / "samples.parquet", dated)
    tables = {"next_item_training_set": TableRef((str(file),))}
    return StageSpec("generative_rec", "sft", str(folder), 1, tables=tables)


ROWS: list[Row] = [
    ("u", 9, "d", ["a", "b", "c"], "test"),
    ("u", 5, "c", ["a"], "train"),
    ("u", 5, "b", ["a"], "train"),
    ("v", 2, "a", [], "train"),
]


def test_samples_come_in_the_order_of_user_time_and_item(tmp_path: Path) -> None:
    found = read_samples(table(tmp_path, ROWS), "time")
    assert [(sample.user_id, sample.item_id) for sample in found] == [("u", "b"), ("u", "c"), ("u", "d"), ("v", "a")]


def test_training_sequences_begin_with_the_past_and_hold_nothing_of_the_other_parts(tmp_path: Path) -> None:
    assert training_sequences(read_samples(table(tmp_path, ROWS), "time")) == [["a", "b", "c"], ["a"]]


def test_a_user_with_one_event_is_a_test_sample_of_leave_one_out(tmp_path: Path) -> None:
    found = read_samples(table(tmp_path, ROWS), "leave_one_out")
    assert [(sample.item_id, sample.subset) for sample in found] == [
        ("b", "train"), ("c", "valid"), ("d", "test"), ("a", "test"),
    ]  # fmt: skip


def test_an_item_with_several_events_on_a_day_is_one_sample_and_no_part_holds_the_answer_of_another(
    tmp_path: Path,
) -> None:
    """Looked at, put into the cart and bought on one day; and looked at again on another day, which is a sample."""
    rows: list[Row] = [
        ("u", 1, "a", [], "train"),
        ("u", 2, "b", ["a"], "train"),
        *[("u", 5, "x", ["a", "b"], "train")] * 3,
        ("u", 6, "x", ["a", "b", "x", "x", "x"], "test"),
    ]
    asked = read_samples(table(tmp_path, rows[:5]), "leave_one_out")
    assert [(one.item_id, one.subset) for one in asked] == [("a", "train"), ("b", "valid"), ("x", "test")]
    assert training_sequences(asked) == [["a"]]
    by_time = read_samples(table(tmp_path, rows), "time")
    assert training_sequences(by_time) == [["a", "b", "x"]]
    assert [one.item_id for one in of_subset(by_time, "test")] == ["x"]


def test_what_may_be_known_of_a_user_who_is_asked_ends_before_the_first_day_of_which_something_is_held_out(
    tmp_path: Path,
) -> None:
    """Days without an order: on day 5 `c` is held out for validation, and `b` may be newer than it."""
    rows: list[Row] = [
        ("u", 2, "a", [], "train"),
        *[("u", 5, item, ["a"], "train") for item in ("b", "c", "d")],
        ("v", 5, "a", [], "train"),
    ]
    found = read_samples(table(tmp_path, rows), "leave_one_out")
    assert [(one.item_id, one.subset) for one in found[:4]] == [
        ("a", "train"), ("b", "train"), ("c", "valid"), ("d", "test"),
    ]  # fmt: skip
    assert [one.item_id for one in before_held_out(found)] == ["a"]
    by_time = read_samples(table(tmp_path, ROWS), "time")
    assert list(before_held_out(by_time)) == list(of_subset(by_time, "train"))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_leave_one_out_takes_the_last_two_of_every_user(sizes: list[int]) -> None:
    samples = [
        NextItem(f"{user:02}", date(2018, 1, day + 1), "a", (), "train")
        for user, size in enumerate(sizes)
        for day in range(size)
    ]
    parts = Counter((sample.user_id, sample.subset) for sample in leave_one_out(samples))
    for user, size in enumerate(sizes):
        expected = {"test": 1, "valid": min(1, size - 1), "train": max(0, size - 2)}
        assert {part: parts[f"{user:02}", part] for part in expected} == expected
    assert all(
        earlier.as_of < later.as_of
        for earlier in of_subset(leave_one_out(samples), "train")
        for later in of_subset(leave_one_out(samples), "test")
        if earlier.user_id == later.user_id
    )


WORDS = st.sampled_from(["a", "b", "c", "ü", "z\0"])
NEXT_ITEMS = st.builds(
    NextItem,
    WORDS,
    st.dates(date(1969, 1, 1), date(2100, 1, 1)),
    WORDS,
    st.lists(WORDS, max_size=4).map(tuple),
    st.sampled_from(["train", "valid", "test"]),
    st.dictionaries(st.sampled_from(["user_daily__n", "user_seen__ago"]), st.floats(width=32, allow_nan=False)),
)


@given(st.lists(NEXT_ITEMS, max_size=8))
def test_samples_in_columns_are_the_samples_that_went_in(rows: list[NextItem]) -> None:
    found = Samples.of(rows)
    assert list(found) == rows == [found[place] for place in range(len(found))]
    assert list(found[1:3]) == rows[1:3]
    assert list(found.of_subset("valid")) == [row for row in rows if row.subset == "valid"]
    assert list(found.told()) == [(row.user_id, row.as_of, row.item_id) for row in rows]


@given(st.lists(NEXT_ITEMS, max_size=8), st.data())
def test_samples_are_sorted_as_their_words_are(rows: list[NextItem], data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    expected = sorted(range(len(rows)), key=lambda n: (rows[n].user_id, times[n], rows[n].item_id))
    assert list(Samples.of(rows).sorted(np.array(times, dtype=np.int64))) == [rows[n] for n in expected]


@given(st.lists(st.builds(replace, NEXT_ITEMS, as_of=st.dates(date(2018, 1, 1), date(2018, 1, 2))), max_size=8))
def test_of_one_user_day_and_item_the_first_sample_stays(rows: list[NextItem]) -> None:
    first = {(row.user_id, row.as_of, row.item_id): place for place, row in reversed([*enumerate(rows)])}
    assert list(Samples.of(rows).once_a_day()) == [rows[place] for place in sorted(first.values())]


@given(st.lists(NEXT_ITEMS, max_size=8), st.sets(WORDS))
def test_within_a_catalogue_are_the_samples_of_its_items_and_what_it_has_of_their_histories(
    rows: list[NextItem], catalogue: set[str]
) -> None:
    expected = [
        replace(row, history=tuple(item for item in row.history if item in catalogue))
        for row in rows
        if row.item_id in catalogue
    ]
    assert list(Samples.of(rows).within(catalogue)) == expected


def test_no_row_is_made_before_it_is_looked_at_and_rows_come_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [*read_samples(table(tmp_path, ROWS), "time")]
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(sample_columns, "NextItem", lambda *_: pytest.fail("a row was made"))
    found = of_catalogue(read_samples(table(tmp_path, ROWS), "leave_one_out"), ["a", "b", "c", "d"])
    monkeypatch.undo()
    assert [replace(row, subset="") for row in found] == [replace(row, subset="") for row in whole]


def test_a_split_with_unknown_parts_is_refused_and_one_without_training_samples_leaves_the_stage_out(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"the time split(.|\n)*it has holdout") as refused:
        read_samples(table(tmp_path, [("u", 1, "a", [], "holdout")]), "time")
    assert not isinstance(refused.value, LeftOut)
    with pytest.raises(LeftOut, match="the time split has no training samples"):
        read_samples(table(tmp_path, [("u", 1, "a", [], "test")]), "time")
    with pytest.raises(LeftOut, match="the leave_one_out split has no training samples"):
        read_samples(table(tmp_path, [("u", 1, "a", [], "train")] * 2), "leave_one_out")


def test_a_table_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    spec = table(tmp_path, ROWS)
    old = pq.read_table(tmp_path / "samples.parquet").drop_columns(["split_time"])
    pq.write_table(old, tmp_path / "samples.parquet")
    with pytest.raises(DataError, match="no column 'split_time'"):
        read_samples(spec, "time")


def test_items_that_left_the_catalogue_are_no_answer_and_in_no_history_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = read_samples(table(tmp_path, ROWS), "time")
    assert of_catalogue(samples, ["a", "b", "c", "d"]) == samples and not capsys.readouterr().err
    kept = of_catalogue(samples, ["a", "c"])
    assert [(s.user_id, s.as_of, s.item_id) for s in kept] == [
        (s.user_id, s.as_of, s.item_id) for s in samples if s.item_id in "ac"
    ]
    assert {item for s in kept for item in s.history} <= {"a", "c"}
    assert "2 items of the samples are not in the catalogue: items b, d" in capsys.readouterr().err
    with pytest.raises(DataError, match="4 items of the samples are not in the catalogue"):
        of_catalogue(samples, ["x"])
