"""What publish checks: a file against its contract, and the contract against the table as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from infra.contracts import Column, Contract, arrow_schema
from infra.errors import DataError

_PRIMITIVES: dict[str, IcebergType] = {
    "string": StringType(),
    "long": LongType(),
    "integer": IntegerType(),
    "double": DoubleType(),
    "boolean": BooleanType(),
    "date": DateType(),
    "timestamp": TimestamptzType(),
}


class SchemaError(DataError):
    """A file or a table does not have the columns that its contract promises."""


@dataclass(frozen=True)
class Footer:
    """What publish needs to know of a file: its rows and its size in bytes."""

    path: str
    rows: int
    size: int


def iceberg_schema(contract: Contract) -> Schema:
    """The Iceberg schema of a contract; every column is optional, since Spark marks none as required."""
    count = len(contract.columns)
    fields = []
    for number, column in enumerate(contract.columns, start=1):
        kind = _PRIMITIVES[column.type.removeprefix("array<").removesuffix(">")]
        if column.type.startswith("array<"):
            kind = ListType(element_id=count + number, element_type=kind, element_required=False)
        fields.append(NestedField(number, column.name, kind, required=False))
    return Schema(*fields)


def appended_columns(contract: Contract, table: Schema) -> list[Column]:
    """The columns that the contract has at its end and the table not yet.

    Raises:
        SchemaError: any other difference; a renamed, moved, dropped or retyped column would spoil old snapshots.
    """
    promised = iceberg_schema(contract).fields
    for number, field in enumerate(table.fields):
        now = _shape(promised[number]) if number < len(promised) else "nothing"
        if _shape(field) != now:
            raise SchemaError(
                f"The contract of {contract.table!r} changes column {number + 1}, {field.name!r}.",
                where=f"table: {_shape(field)}; contract: {now}",
                why="A table evolves by nullable columns at its end, so that every old snapshot stays readable.",
                do="Put the column back as it was and append a new one.",
            )
    appended = list(contract.columns[len(table.fields) :])
    for column in appended:
        if column.required:
            raise SchemaError(
                f"The contract of {contract.table!r} appends the required column {column.name!r}.",
                why="The partitions that are already published do not have it.",
                do="Make it nullable (required: false).",
            )
    return appended


def _shape(field: NestedField) -> str:
    return f"{field.name} {field.field_type}"


def read_footers(contract: Contract, partition: date, paths: Sequence[str]) -> list[Footer]:
    """Check each Parquet file by its footer alone; a file without rows is left out.

    Raises:
        SchemaError: unreadable, other columns or types than the contract's, or rows of another partition.
    """
    footers = [_read_footer(contract, partition, path) for path in paths]
    return [footer for footer in footers if footer.rows > 0]


def _read_footer(contract: Contract, partition: date, path: str) -> Footer:
    try:
        metadata = pq.read_metadata(path)
        size = Path(path).stat().st_size
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(
            "A file to publish cannot be read as Parquet.", where=path, why=str(error), do="Run the job again."
        ) from error
    _check_columns(contract, metadata.schema.to_arrow_schema(), path)
    check_partition(contract, partition, metadata, path)
    return Footer(path, metadata.num_rows, size)


def _check_columns(contract: Contract, found: pa.Schema, path: str) -> None:
    promised = {field.name: _plain(field.type) for field in arrow_schema(contract)}
    actual = {field.name: _plain(field.type) for field in found}
    if promised == actual:
        return
    faults = [f"lacks {name!r}" for name in promised if name not in actual]
    faults += [f"has {name!r}, which is not in the contract" for name in actual if name not in promised]
    faults += [
        f"{name!r} is {actual[name]}, not {kind}" for name, kind in promised.items() if actual.get(name, kind) != kind
    ]
    raise SchemaError(
        f"A file does not fit the contract of {contract.table!r}: {'; '.join(faults)}.",
        where=path,
        do="Cast the job's output to the contract's schema.",
    )


def _plain(kind: pa.DataType) -> str:
    """A type's name without what Parquet does not tell apart (large strings, names of list elements)."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array<{_plain(kind.value_type)}>"
    return "string" if pa.types.is_large_string(kind) else str(kind)


def check_partition(contract: Contract, partition: date, metadata: pq.FileMetaData, path: str) -> None:
    """See by its statistics that a file holds rows of one partition only.

    Raises:
        SchemaError: it holds others, or has no statistics.
    """
    leaf = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == contract.partition)
    filled = [group for group in range(metadata.num_row_groups) if metadata.row_group(group).num_rows]
    for group in filled:
        found = metadata.row_group(group).column(leaf).statistics
        if found is None or not found.has_min_max or found.null_count or {found.min, found.max} != {partition}:
            held = "no statistics" if found is None else f"{found.min} to {found.max}, {found.null_count} nulls"
            raise SchemaError(
                f"A file of partition {partition} of {contract.table!r} holds other rows.",
                where=f"{path}, column {contract.partition!r}: {held}",
                do="Write one partition per file, with column statistics and no null dates.",
            )
