"""Sample tables: Parquet files named by a stage's spec, read with their schema checked before any training time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.core.errors import DataError

_ROWS_AT_ONCE = 1 << 16


class EmptyTable(DataError):
    """All files of a table together hold no row."""


def read_parquet(name: str, files: Sequence[Path], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Read `columns` (name -> expected type) of `files` as one table, in file order; see `parquet_batches`."""
    return pa.concat_tables(parquet_batches(name, files, columns))


def parquet_batches(
    name: str, files: Sequence[Path], columns: Mapping[str, pa.DataType], later: Collection[str] = ()
) -> Iterator[pa.Table]:
    """The same rows some thousands at a time: what takes them one by one need not hold them all.

    `later`: columns that the table was given later; in files of before they are null.

    Raises DataError for no file, a missing or truncated file, a missing column, or a column of another type, EmptyTable
    for no row.
    """
    _refuse_none(name, files)
    rows = 0
    for batch in (batch for file in files for batch in _read_file(name, file, columns, later)):
        rows += batch.num_rows
        yield batch
    if not rows:
        raise EmptyTable(f"table {name} is empty", where=str(files[0]), do="run the job that fills it")


def column_types(name: str, files: Sequence[Path]) -> dict[str, pa.DataType]:
    """Every column that some of the files has, with the type of the last one that has it.

    Raises DataError for no file, and a missing or truncated one.
    """
    _refuse_none(name, files)
    found = dict[str, pa.DataType]()
    for file in files:
        with _opened(name, file) as source:
            found |= zip(source.schema_arrow.names, source.schema_arrow.types, strict=True)
    return found


def refuse_nulls(name: str, table: pa.Table, columns: Iterable[str]) -> None:
    """DataError if one of the `columns`, without which a row means nothing, has no value in some row."""
    for column in columns:
        if count := table[column].null_count:
            raise DataError(
                f"{count} of {table.num_rows} rows of table {name} have no {column!r}",
                do="leave such rows out, or write the table with the current job, which refuses them",
            )


def _refuse_none(name: str, files: Sequence[Path]) -> None:
    if not files:
        raise DataError(f"table {name} has no data file", do="run the job that fills it, for a range that has data")


def _read_file(name: str, file: Path, columns: Mapping[str, pa.DataType], later: Collection[str]) -> Iterator[pa.Table]:
    with _opened(name, file) as source:
        schema = source.schema_arrow
        there = {one: kind for one, kind in columns.items() if one in schema.names or one not in later}
        _check_columns(name, file, schema, there)
        for batch in source.iter_batches(_ROWS_AT_ONCE, columns=list(there)):
            found = pa.table(batch).select(list(there)).cast(pa.schema(list(there.items())))
            absent = {one: pa.nulls(len(found), columns[one]) for one in columns if one not in there}
            yield pa.table({one: found[one] if one in there else absent[one] for one in columns})


@contextmanager
def _opened(name: str, file: Path) -> Iterator[pq.ParquetFile]:
    if not file.is_file():
        raise DataError(f"a data file of table {name} is missing", where=str(file), do="resolve the snapshot again")
    try:
        with pq.ParquetFile(file) as source:
            yield source
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"a data file of table {name} cannot be read as Parquet",
            where=str(file),
            why=str(error).splitlines()[0],
            do="the file is truncated or not Parquet: write the partition again",
        ) from error


def _check_columns(name: str, file: Path, schema: pa.Schema, columns: Mapping[str, pa.DataType]) -> None:
    for column, expected in columns.items():
        if column not in schema.names:
            raise DataError(
                f"table {name} has no column {column!r}",
                where=str(file),
                why=f"it has: {', '.join(schema.names)}",
                do="the file is of another schema version: rebuild the table with the current job",
            )
        actual = schema.field(column).type
        if _kind(actual) != _kind(expected):
            raise DataError(
                f"column {column!r} of table {name} has type {actual}, not {expected}",
                where=str(file),
                do="the file is of another schema version: rebuild the table with the current job",
            )


def _kind(kind: pa.DataType) -> str:
    """Types that hold the same values have the same kind (string and large_string, all integers, all lists of them)."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    return str(kind)
