"""Parquet of any writer, as text."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spark_jobs.landing.read as reading
from tests.unit.spark_jobs.landing.kit import read, written

TEN = datetime(2024, 3, 1, 10, tzinfo=UTC)


def put(path: Path, **columns: pa.Array) -> Path:
    rows = len(next(iter(columns.values())))
    rest = {"user_id": ["u"], "item_id": ["i"], "event_time": ["2024-03-01T10:00:00Z"], "event_type": ["view"]}
    pq.write_table(pa.table({**{name: value * rows for name, value in rest.items()}, **columns}), path)
    return path


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([5], pa.uint64()), "5"),
        (pa.array([2**64 - 1], pa.uint64()), str(2**64 - 1)),
        (pa.array([2**53 + 1], pa.int64()), str(2**53 + 1)),
        (pa.array([Decimal(150)], pa.decimal128(20, 0)), "150"),
        (pa.array([1029.0]), "1029.0"),
        (pa.array([1029.0], pa.float32()), "1029.0"),
        (pa.array([2.0**53]), "9.007199E+15"),
        (pa.array([2.0**24], pa.float32()), "1.677722E+07"),
        (pa.array([b"abc"], pa.large_binary()), "abc"),
        (pa.array(["x"], pa.large_string()), "x"),
        (pa.array(["x"]).dictionary_encode(), "x"),
    ],
)
def test_an_id_of_any_type_is_its_digits(tmp_path: Path, values: pa.Array, expected: str) -> None:
    found, tally = read(put(tmp_path / "a.parquet", user_id=values))
    assert tally.problem is None
    assert found[0]["values"]["user_id"] == expected
    assert found[0]["odd"] is None


@pytest.mark.parametrize(
    "values",
    [
        pa.array([TEN], pa.timestamp("us", "UTC")),
        pa.array([TEN], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([datetime(2024, 3, 1, 10)], pa.timestamp("ns")),
        pa.array([int(TEN.timestamp())]),
        pa.array([TEN.timestamp()]),
        pa.array([TEN.timestamp() * 1e6]),
    ],
)
def test_a_time_of_any_type_is_the_same_moment(tmp_path: Path, values: pa.Array) -> None:
    found, _ = read(put(tmp_path / "a.parquet", event_time=values))
    assert found[0]["time"] == TEN


def test_the_times_of_spark_and_hive_are_read(tmp_path: Path) -> None:
    path = put(tmp_path / "a.parquet", event_time=pa.array([TEN], pa.timestamp("us", "UTC")))
    pq.write_table(pq.read_table(path), path, use_deprecated_int96_timestamps=True)
    assert read(path)[0][0]["time"] == TEN


def test_a_date_is_its_first_moment(tmp_path: Path) -> None:
    found, _ = read(put(tmp_path / "a.parquet", event_time=pa.array([date(2024, 3, 1)])))
    assert found[0]["time"] == datetime(2024, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("values", [pa.array([["a"]]), pa.array([["a"]], pa.large_list(pa.string())), pa.array([True])])
def test_a_list_or_a_truth_value_is_no_id(tmp_path: Path, values: pa.Array) -> None:
    assert read(put(tmp_path / "a.parquet", user_id=values))[0][0]["odd"] == "user_id"


def test_batches_are_as_large_as_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_LETTERS", 1_000)
    path = put(tmp_path / "a.parquet", user_id=pa.array([f"{n:0200d}" for n in range(50)]))
    found, tally = read(path)
    assert tally.records == 50
    assert [row["number"] for row in found] == list(range(1, 51))


def test_bytes_that_are_no_utf_8_name_the_file(tmp_path: Path) -> None:
    _, tally = read(put(tmp_path / "a.parquet", user_id=pa.array([b"\xff\xfe"], pa.binary())))
    assert "a.parquet is no readable Parquet file" in str(tally.problem)
    assert "column user_id, of the type binary" in str(tally.problem)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"user_id,item_id\nu,i\n", "does not begin with PAR1"),
        (gzip.compress(b"PAR1"), "gzip"),
        (bytes(1_000), "begins with zeros"),
        (b"PAR1 and then the line went dead", "truncated or damaged"),
    ],
    ids=["csv", "gzip", "zeros", "torn"],  # of the content they would hold the second in which it was compressed
)
def test_what_is_no_parquet_is_told_by_its_first_bytes(tmp_path: Path, content: bytes, complaint: str) -> None:
    _, tally = read(written(tmp_path / "a.parquet", content))
    assert complaint in str(tally.problem)


def test_an_id_that_is_a_uuid_is_its_usual_text(tmp_path: Path) -> None:
    found, _ = read(put(tmp_path / "a.parquet", user_id=pa.array([bytes(range(16))], pa.uuid())))
    assert found[0]["values"]["user_id"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_a_value_that_no_reader_of_ours_knows_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any) -> None:
        raise RuntimeError("what is this?")

    monkeypatch.setattr(reading, "moment", stumble)
    _, tally = read(put(tmp_path / "a.parquet", user_id=pa.array(["u"])))
    assert "a.parquet cannot be read" in str(tally.problem)
    assert "what is this?" in str(tally.problem)
