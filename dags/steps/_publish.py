"""Publishes rows that a step made (not Spark) into a table of the lake, partition by partition."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.contracts import Contract, arrow_schema, load_contract
from infra.errors import DataError
from infra.lake import Lake, current_keys, publish
from infra.ledger import Ledger
from infra.partitions import Attempt, PartitionWrite, run_key
from infra.profile import Profile


def publish_rows(profile: Profile, table: str, rows: pa.Table, inputs: Sequence[str] = ()) -> tuple[date, ...]:
    """Replace the partitions that `rows` hold; returns those that changed: the same rows again change nothing.

    Raises:
        DataError: the rows do not fit the contract, or repeat a key.
    """
    contract, lake, ledger = load_contract(table), Lake(profile), Ledger(profile)
    parts = dict(_parts(contract, _fitted(contract, rows)))
    keys = {day: run_key(table, day, [*inputs, content_hash(part)], {}, 1) for day, part in parts.items()}
    live = current_keys(lake, ledger, table)
    todo = [day for day, key in keys.items() if live.get(day) != key]
    if todo:
        attempt = ledger.open_attempt(table, todo)
        writes = [_write(lake, table, day, keys[day], parts[day], attempt, tuple(inputs)) for day in todo]
        publish(lake, ledger, table, writes, attempt)
    return tuple(todo)


def _fitted(contract: Contract, rows: pa.Table) -> pa.Table:
    schema = arrow_schema(contract)
    try:
        fitted = rows.select(schema.names).cast(schema)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise DataError(f"The rows do not fit {contract.table!r}.", why=str(error)) from error
    keys = [contract.partition, *contract.key]
    if len(fitted.group_by(keys).aggregate([])) != len(fitted):
        raise DataError(f"Rows of {contract.table!r} repeat a key.", where=", ".join(keys))
    return fitted.sort_by([(name, "ascending") for name in keys])


def _parts(contract: Contract, rows: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    for day in rows[contract.partition].unique().to_pylist():
        yield day, rows.filter(pc.equal(rows[contract.partition], pa.scalar(day, pa.date32())))


def _write(
    lake: Lake, table: str, day: date, key: str, rows: pa.Table, attempt: Attempt, inputs: tuple[str, ...]
) -> PartitionWrite:
    file = lake.staging(table, key, day, attempt.token) / "part-00000.parquet"
    pq.write_table(rows, file, coerce_timestamps="us")
    return PartitionWrite(day, key, (str(file),), len(rows), len(rows), inputs=inputs)


def content_hash(rows: pa.Table) -> str:
    """Sha256 of rows and their types (hex)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()
