"""Sample tables are checked before any training time is spent."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.core.errors import DataError
from training.core.tables import parquet_batches, read_parquet

COLUMNS = {"user_id": pa.string(), "items": pa.list_(pa.string()), "n": pa.int64()}


def write(path: Path, **changes: pa.Array) -> Path:
    columns = {"user_id": pa.array(["u"]), "items": pa.array([["a", "b"]]), "n": pa.array([1], pa.int32()), **changes}
    pq.write_table(pa.table(columns), path)
    return path


def test_files_are_joined_in_order_with_only_the_asked_columns_in_the_asked_types(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.parquet", n=pa.array([n]), extra=pa.array([0])) for n in (2, 1)]
    files.append(write(tmp_path / "large.parquet", user_id=pa.array(["v"], pa.large_string())))
    table = read_parquet("samples", files, COLUMNS)
    assert table.schema == pa.schema(list(COLUMNS.items()))
    assert table["n"].to_pylist() == [2, 1, 1]


def test_a_column_that_a_table_was_given_later_is_null_in_files_of_before(tmp_path: Path) -> None:
    asked = {"n": pa.int64(), "late": pa.bool_(), "user_id": pa.string()}
    files = [write(tmp_path / "old.parquet"), write(tmp_path / "new.parquet", late=pa.array([False]))]
    table = pa.concat_tables(parquet_batches("samples", files, asked, later=["late"]))
    assert table.schema == pa.schema(list(asked.items()))
    assert table["late"].to_pylist() == [None, False]
    with pytest.raises(DataError, match="no column 'late'"):
        pa.concat_tables(parquet_batches("samples", files, asked))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_id": pa.array([7])}, "'user_id' of table samples has type int64, not string"),
        ({"items": pa.array([[1]])}, "'items' of table samples has type"),
    ],
)
def test_another_schema_version_is_refused(tmp_path: Path, changes: dict[str, pa.Array], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_parquet("samples", [write(tmp_path / "x.parquet", **changes)], COLUMNS)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'as_of'"):
        read_parquet("samples", [write(tmp_path / "x.parquet")], {**COLUMNS, "as_of": pa.date32()})


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"(?s)cannot be read as Parquet.*x\.parquet"):
        read_parquet("samples", [path], COLUMNS)


def test_no_file_a_missing_file_and_no_row_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file"):
        read_parquet("samples", [], COLUMNS)
    with pytest.raises(DataError, match="is missing"):
        read_parquet("samples", [tmp_path / "none.parquet"], COLUMNS)
    path = tmp_path / "empty.parquet"
    pq.write_table(pa.schema(list(COLUMNS.items())).empty_table(), path)
    with pytest.raises(DataError, match="is empty"):
        read_parquet("samples", [path], COLUMNS)
