"""A landing file of any format as Arrow batches of one shape, and at the end how many records it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import pyarrow as pa

from infra.errors import DataError
from spark_jobs.landing.csv_rows import CsvRows
from spark_jobs.landing.files import FORMATS, LandingFile, kind_of
from spark_jobs.landing.json_rows import JsonRows
from spark_jobs.landing.parquet_rows import ParquetRows
from spark_jobs.landing.rows import Row, Wanted, refuse_other_bytes, text_rows
from spark_jobs.landing.times import moment

FILE, NUMBER, VALUES, MOMENT, FAULT, LINE, ODD, TALLY = (
    *("_source_file", "_source_row", "_raw", "_time", "_fault", "_line", "_odd", "_tally"),
)
_MOST_ROWS, _MOST_LETTERS = 10_000, 1 << 22


# Fewer broken lines are a matter of these lines. So many, and most of a file, are no rows at all: as rows in quarantine
# they would stop the partition of all rows without a day, which is the whole catalogue of many shops.
_A_FAULT_OF_THE_FILE = 20


@dataclass(frozen=True)
class Tally:
    """What a file turned out to be: the records that it holds, or why it cannot be used at all."""

    records: int
    problem: DataError | None = None


def schema(wanted: Wanted) -> pa.Schema:
    """The shape of all batches: a record, or (in the last line of a file) its tally as JSON."""
    values = pa.struct([(column, pa.string()) for column in wanted.accepted])
    texts = [(name, pa.string()) for name in (FAULT, LINE, ODD, TALLY)]
    fixed = [(FILE, pa.string()), (NUMBER, pa.int64()), (VALUES, values), (MOMENT, pa.timestamp("us", "UTC"))]
    return pa.schema([*fixed, *texts])


def tally_of(text: str) -> Tally:
    """A tally as it stands in the column `_tally`."""
    records, problem = json.loads(text)
    return Tally(records, DataError(**problem) if problem else None)


def batches(file: LandingFile, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """All records of a file, then its tally.

    Whatever is wrong with a file as a whole is said in its tally; batches that came before are then not to be used.
    """
    records, unreadable, problem = 0, 0, None
    try:
        for batch in _batches(file, wanted):
            yield _numbered(file.name, records, batch, wanted)
            records += len(batch[FAULT])
            unreadable += len(batch[FAULT]) - batch[FAULT].null_count
        if records == 0:
            problem = DataError(f"{file.name} holds no row.", do="Deliver it again, or take it away.")
        elif unreadable >= _A_FAULT_OF_THE_FILE and 2 * unreadable > records:
            problem = DataError(
                f"{file.name} cannot be read for the most part.",
                why=f"{unreadable} of its {records} records are broken.",
                do="Look at its separator and its quotes, and deliver it anew.",
            )
    except DataError as error:
        problem = error
    except Exception as error:  # noqa: BLE001
        # A file that our reader stumbles over must not keep the other files out.
        why = f"{type(error).__name__}: {error}"
        problem = DataError(f"{file.name} cannot be read.", why=why, do="Deliver it anew.")
    tally = json.dumps((records, problem and problem.parts))
    yield pa.RecordBatch.from_pylist([{FILE: file.name, TALLY: tally}], schema(wanted))


def _batches(file: LandingFile, wanted: Wanted) -> Iterator[dict[str, pa.Array]]:
    kind = kind_of(file.name)
    if file.path.stat().st_size == 0:
        raise DataError(f"{file.name} is empty.", why="It has 0 bytes.", do="Deliver it again, or take it away.")
    if kind != "parquet":
        refuse_other_bytes(file.name, file.path)
    if kind is None:
        raise DataError(
            f"The format of {file.name} is not known.",
            why=f"It ends in {file.path.suffix!r}.",
            do=f"Use one of {', '.join(FORMATS)}.",
        )
    if kind == "parquet":
        yield from _of_parquet(ParquetRows(file.name, file.path, wanted), wanted)
    else:
        yield from _of_text(file, kind, wanted)


def _of_parquet(rows: ParquetRows, wanted: Wanted) -> Iterator[dict[str, pa.Array]]:
    odd = ",".join(rows.odd) or None
    for columns in rows.batches(_MOST_LETTERS):
        length = len(next(iter(columns.values())))
        nothing = pa.nulls(length, pa.string())
        yield columns | {FAULT: nothing, LINE: nothing, ODD: pa.array([odd] * length, pa.string())}


def _of_text(file: LandingFile, kind: str, wanted: Wanted) -> Iterator[dict[str, pa.Array]]:
    columns: Sequence[str] = wanted.accepted

    def rows(stream: TextIO) -> Iterator[Row]:
        nonlocal columns
        if kind == "json":
            return iter(JsonRows(file.name, stream, wanted))
        found = CsvRows(file.name, stream, wanted)
        columns = found.columns
        return iter(found)

    waiting: list[Row] = []
    letters = 0
    for row in text_rows(file.name, file.path, kind.upper(), rows):
        waiting.append(row)
        letters += sum(len(value) for value in row.values if value)
        if len(waiting) == _MOST_ROWS or letters > _MOST_LETTERS:
            yield _columns(waiting, columns)
            waiting, letters = [], 0
    if waiting:
        yield _columns(waiting, columns)


def _columns(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, pa.Array]:
    nothing = (None,) * len(columns)
    by_column = zip(*(row.values or nothing for row in rows), strict=True)
    texts = {name: pa.array(values, pa.string()) for name, values in zip(columns, by_column, strict=True)}
    _, _, faults, lines, odd = zip(*rows, strict=True)
    return texts | {name: pa.array(part, pa.string()) for name, part in ((FAULT, faults), (LINE, lines), (ODD, odd))}


def _numbered(name: str, before: int, batch: dict[str, pa.Array], wanted: Wanted) -> pa.RecordBatch:
    length = len(batch[FAULT])
    nothing = pa.nulls(length, pa.string())
    values = [batch.get(column, nothing) for column in wanted.accepted]
    times = map(moment, batch.get(wanted.time, nothing).to_pylist())
    columns = [
        pa.array([name] * length, pa.string()),
        pa.array(range(before + 1, before + length + 1), pa.int64()),
        pa.StructArray.from_arrays(values, list(wanted.accepted)),
        pa.array(times, pa.timestamp("us", "UTC")),
        *(batch[part] for part in (FAULT, LINE, ODD)),
        nothing,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema(wanted))
