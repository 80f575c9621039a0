"""Landing files as they lie: which there are, their columns, and what is wrong with a file as a whole. No Spark."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import DataError
from spark_jobs.ingest.tables import Landed

FORMATS = {".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}
_GUIDE = "docs/bring-your-data.md lists every column"


@dataclass(frozen=True)
class LandingFile:
    """A file of the landing folder; `name` is its path below that folder, `sha256` the hash of its bytes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class ReadableFile:
    """A landing file that can be read: its format, its own columns in order, Arrow types (Parquet only), and whether it
    is one JSON array."""

    file: LandingFile
    format: str
    columns: tuple[str, ...]
    types: tuple[str, ...] = ()
    array: bool = False


def landing_files(landing: Path, table: str) -> list[LandingFile]:
    """The files of a table: `<table>.<format>` and all in the folder `<table>/`, by name; hidden files are none."""
    found = [path for path in landing.glob(f"{table}.*") if path.is_file()]
    found += [path for path in (landing / table).rglob("*") if path.is_file()]
    shown = sorted(path for path in found if not path.name.startswith((".", "_")))
    return [LandingFile(path.relative_to(landing).as_posix(), path, _sha256(path)) for path in shown]


def inspect(file: LandingFile, table: Landed) -> ReadableFile:
    """Look at a file's format and columns.

    Raises:
        DataError: the file cannot be used at all; it says why and what to do.
    """
    kind = FORMATS.get(file.path.suffix.lower())
    if kind is None:
        raise DataError(
            f"The format of {file.name} is not known.",
            why=f"It ends in {file.path.suffix!r}.",
            do=f"Use one of {', '.join(FORMATS)}.",
        )
    if file.path.stat().st_size == 0:
        raise DataError(f"{file.name} is empty.", why="It has 0 bytes.", do="Deliver it again, or take it away.")
    if kind == "parquet":
        readable = _parquet_file(file)
    elif kind == "csv":
        readable = ReadableFile(file, kind, _csv_columns(file))
    else:
        readable = _json_file(file)
    _check_columns(readable, table)
    return readable


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parquet_file(file: LandingFile) -> ReadableFile:
    try:
        with pq.ParquetFile(file.path) as parquet:
            rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error
    columns = _if_any_row(file, rows, tuple(schema.names))
    return ReadableFile(file, "parquet", columns, tuple(map(str, schema.types)))


def damage(file: ReadableFile) -> DataError | None:
    """What is wrong with the pages of a Parquet file whose footer is good; it reads all of them."""
    if file.format != "parquet":
        return None
    try:
        with pq.ParquetFile(file.file.path, page_checksum_verification=True) as parquet:
            for _ in parquet.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        return _damaged(file.file, error)
    return None


def _damaged(file: LandingFile, error: Exception) -> DataError:
    return DataError(
        f"{file.name} is no readable Parquet file.",
        why=f"It is truncated or damaged: {str(error).splitlines()[0]}",
        do="Deliver it again; check that its upload had ended.",
    )


def _csv_columns(file: LandingFile) -> tuple[str, ...]:
    try:
        with file.path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            header = tuple(name.strip() for name in next(rows, []))
            return _if_any_row(file, int(next(rows, None) is not None), header)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file.name} is no readable CSV file.", why=str(error), do="Save it as CSV in UTF-8."
        ) from error


def _json_file(file: LandingFile) -> ReadableFile:
    try:
        with file.path.open(encoding="utf-8-sig") as stream:
            array = stream.read(64).lstrip().startswith("[")
            stream.seek(0)
            values = json.load(stream) if array else [value for line in stream if (value := _object(line)) is not None]
    except ValueError as error:
        raise DataError(f"{file.name} is no readable JSON file.", why=str(error), do="Deliver it again.") from error
    columns = dict.fromkeys(key for value in values if isinstance(value, dict) for key in value)
    return ReadableFile(file, "json", _if_any_row(file, len(columns), tuple(columns)), array=array)


def _object(line: str) -> object:
    """The value of a line; None for a broken one, which is judged as a row, not here."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _if_any_row(file: LandingFile, rows: int, columns: tuple[str, ...]) -> tuple[str, ...]:
    if rows == 0:
        raise DataError(f"{file.name} holds no row.", do="Deliver it again, or take it away.")
    return columns


def _check_columns(readable: ReadableFile, table: Landed) -> None:
    name, columns = readable.file.name, readable.columns
    missing = [column for column in table.needed if column not in columns]
    if missing:
        raise DataError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            why=f"It has: {', '.join(columns)}.",
            do=f"Add or rename; {_GUIDE} of {table.table}.",
        )
    unknown = [column for column in columns if column not in table.accepted]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if unknown or twice:
        raise DataError(
            f"{name} has {'an unknown column' if unknown else 'a column twice'}: {', '.join(unknown or twice)}.",
            why=f"{table.table} knows: {', '.join(table.accepted)}.",
            do=f"Rename it or leave it out; {_GUIDE} of {table.table}.",
        )
