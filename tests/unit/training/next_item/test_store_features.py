"""What the feature store says of users, as a table tells it: which columns, with which values, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.training.sample_kit import write_rows
from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef
from training.next_item.samples import TABLE, last_told, read_samples
from training.next_item.store_features import chosen, still_told, told

COLUMNS: dict[str, Any] = {
    "user_daily__events": pa.array([3, None, 7], pa.int64()),
    "user_recency__days": pa.array([0.5, 1.25, None], pa.float64()),
    "user_recency__is_cold": pa.array([False, True, None], pa.bool_()),
    "user_daily__last_event_time": pa.array([datetime(2018, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC")),
    "user_profile__profile_text": ["a", "b", "c"],
    "item_daily__events": pa.array([1, 2, 3], pa.int64()),
    "rating": pa.array([1.0, 2.0, 3.0], pa.float64()),
}
NUMBERS = ["user_daily__events", "user_recency__days", "user_recency__is_cold"]


def spec_of(*files: Path) -> StageSpec:
    return StageSpec("ranker", "ranker", "", 1, tables={TABLE: TableRef(tuple(map(str, files)))})


def write(path: Path, **columns: Any) -> Path:
    """Three samples of one user, on three days."""
    days = [date(2018, 1, day) for day in (1, 2, 3)]
    rows = [("u", day, datetime(2018, 1, day.day, tzinfo=UTC), f"i{day.day}", [], "train") for day in days]
    return write_rows(path, rows, **columns)


def test_numbers_and_flags_of_the_user_are_told_and_nothing_of_the_item_that_was_taken(tmp_path: Path) -> None:
    spec = spec_of(write(tmp_path / "samples.parquet", **COLUMNS))
    assert sorted(told(spec, TABLE)) == NUMBERS
    found = read_samples(spec, "time", store=chosen(spec, TABLE, NUMBERS))
    assert [sample.store_features for sample in found] == [
        {"user_daily__events": 3.0, "user_recency__days": 0.5, "user_recency__is_cold": 0.0},
        {"user_recency__days": 1.25, "user_recency__is_cold": 1.0},
        {"user_daily__events": 7.0},
    ]
    assert last_told(found) == {"u": {"user_daily__events": 7.0}}
    assert all(sample.store_features == {} for sample in read_samples(spec, "time"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("item_daily__events", "a feature of the item, not of the user"),
        ("user_daily__last_event_time", "no feature that can be ranked by"),
        ("user_profile__profile_text", "no feature that can be ranked by"),
        ("user_daily__gone", "no feature that can be ranked by"),
        ("rating", "no feature that can be ranked by"),  # of the very event that is to be guessed
        ("split_time", "no feature that can be ranked by"),
    ],
)
def test_what_would_give_the_answer_away_or_is_no_number_of_the_user_is_refused(
    tmp_path: Path, name: str, why: str
) -> None:
    spec = spec_of(write(tmp_path / "samples.parquet", **COLUMNS))
    with pytest.raises(DataError, match=f"'{name}' is {why}") as refusal:
        chosen(spec, TABLE, [NUMBERS[0], name])
    assert all(known in refusal.value.do for known in NUMBERS) and "item_daily" not in refusal.value.do


def test_a_column_that_was_appended_later_is_unknown_in_files_of_before(tmp_path: Path) -> None:
    before, after = (
        write(tmp_path / "a.parquet"),
        write(tmp_path / "b.parquet", user_daily__n=[4, 5, 6], user_id=["v"] * 3),
    )
    for files in ((before, after), (after, before)):
        spec = spec_of(*files)
        found = read_samples(spec, "time", store=chosen(spec, TABLE, ["user_daily__n"]))
        assert [sample.store_features.get("user_daily__n") for sample in found] == [None, None, None, 4.0, 5.0, 6.0]


def test_what_a_table_no_longer_has_is_said_and_read_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_of(write(tmp_path / "samples.parquet", **COLUMNS))
    assert list(still_told(spec, TABLE, ["user_daily__gone", "user_daily__events"])) == ["user_daily__events"]
    assert "next_item_training_set no longer has user_daily__gone" in capsys.readouterr().err
    assert still_told(spec, TABLE, []) == {} and capsys.readouterr().err == ""
