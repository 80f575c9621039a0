"""Publishes rows that a step made (not Spark) into a table of the lake, partition by partition."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial, reduce

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dags.steps._folders import hold
from feature_store.point_in_time import read_rows
from infra.contracts import Contract, arrow_schema, load_contract
from infra.errors import DataError
from infra.lake import Lake, current_keys, publish
from infra.ledger import Ledger
from infra.partitions import QUARANTINE_SUFFIX, Attempt, PartitionWrite, run_key
from infra.profile import Profile
from infra.quality import failing_keys_path, write_failing_keys
from infra.quality.rows import CheckedRows, check_table, quarantine_rows


def publish_rows(
    profile: Profile,
    table: str,
    rows: pa.Table,
    inputs: Sequence[str] = (),
    writer: Mapping[str, str] | None = None,
) -> tuple[date, ...]:
    """Replace the partitions that `rows` hold; returns those that changed: the same rows again change nothing.

    `writer`: columns, with their values in all `rows`, that tell apart who writes: what others have written to the
    same partitions stays, as does what is in a table that grows. They publish one after the other.

    The contract checks them as it does what Spark builds: refused rows go to the quarantine, results to the ledger.

    Raises:
        DataError: the rows do not have the contract's columns; or a partition has too many bad rows or does not meet an
            expectation, and keeps its old version. The others are published.
    """
    grows = load_contract(table).grows
    if not writer and not grows:
        return _publish(profile, table, rows, inputs)
    with hold(profile.home / "stages" / "writers" / table, alone=True):
        join = _grown if grows else partial(_with_others, writer=writer or {})
        return _publish(profile, table, join(Lake(profile), load_contract(table), rows), inputs)


def _with_others(lake: Lake, contract: Contract, rows: pa.Table, writer: Mapping[str, str]) -> pa.Table:
    fitted, there = _beside(lake, contract, rows)
    own = reduce(pc.and_, [pc.equal(there[name], value) for name, value in writer.items()])
    return pa.concat_tables([fitted, there.filter(pc.invert(own))])


def _grown(lake: Lake, contract: Contract, rows: pa.Table) -> pa.Table:
    fitted, there = _beside(lake, contract, rows)
    key = [contract.partition, *contract.key]
    numbered = fitted.select(key).append_column("_row", pa.array(range(len(fitted)), pa.int64()))
    new = numbered.join(there.select(key), key, join_type="left anti").sort_by("_row")["_row"]
    return pa.concat_tables([there, fitted.take(new)])


def _beside(lake: Lake, contract: Contract, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows, and those that are there in their partitions."""
    fitted = _typed(contract, rows)
    days = fitted[contract.partition].unique().to_pylist()
    there = read_rows([file.path for file in lake.files(contract.table, partitions=days)], contract)
    return fitted, there.cast(fitted.schema)


def _publish(profile: Profile, table: str, rows: pa.Table, inputs: Sequence[str]) -> tuple[date, ...]:
    contract, lake, ledger = load_contract(table), Lake(profile), Ledger(profile)
    rows = _typed(contract, rows).sort_by([(name, "ascending") for name in (contract.partition, *contract.key)])
    parts = {day: _of(contract, day, rows) for day in rows[contract.partition].unique().to_pylist()}
    keys = {day: run_key(table, day, [*inputs, content_hash(part)], {}, 1) for day, part in parts.items()}
    live = current_keys(lake, ledger, table)
    todo = [day for day, key in keys.items() if live.get(day) != key]
    if not todo:
        return ()
    attempt = ledger.open_attempt(table, todo)
    checked = check_table(profile, contract, pa.concat_tables([parts[day] for day in todo]))
    writes = [_write(lake, contract, day, keys[day], checked, attempt, tuple(inputs)) for day in todo]
    write_failing_keys(profile, contract, {write.partition: write.quarantine_files for write in writes})
    if passed := [write for write in writes if write.partition not in checked.stopped]:
        publish(lake, ledger, table, passed, attempt)
    for day, why in checked.stopped.items():
        raise DataError(
            f"{table} of {day} was not published.",
            why=why,
            do=f"Look at {failing_keys_path(profile, table, day)}, and mend what makes these rows.",
        )
    return tuple(todo)


def _typed(contract: Contract, rows: pa.Table) -> pa.Table:
    """With the contract's columns; that a required value is there is asked of each row later."""
    promised = arrow_schema(contract)
    schema = pa.schema([field.with_nullable(field.name != contract.partition) for field in promised])
    try:
        return rows.select(schema.names).cast(schema)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise DataError(f"The rows do not fit {contract.table!r}.", why=str(error)) from error


def _of(contract: Contract, day: date, rows: pa.Table) -> pa.Table:
    own = pc.equal(rows[contract.partition], pa.scalar(day, pa.date32()))
    return rows if pc.all(own).as_py() else rows.filter(own)  # a copy of a large shop's values is a GiB


def _write(
    lake: Lake, contract: Contract, day: date, key: str, checked: CheckedRows, attempt: Attempt, inputs: tuple[str, ...]
) -> PartitionWrite:
    """Stage the good and the refused rows of a day."""
    good, bad = (_of(contract, day, rows) for rows in (checked.good, checked.refused))
    sound, refused = good.cast(arrow_schema(contract)), quarantine_rows(contract, bad, key)
    return PartitionWrite(
        day,
        key,
        _staged(lake, contract.table, day, key, attempt, sound),
        rows_in=len(good) + len(bad),
        rows_out=len(good),
        quarantine_files=_staged(lake, f"{contract.table}{QUARANTINE_SUFFIX}", day, key, attempt, refused),
        rows_quarantined=len(bad),
        inputs=inputs,
        rules=checked.results[day],
    )


def _staged(lake: Lake, table: str, day: date, key: str, attempt: Attempt, rows: pa.Table) -> tuple[str, ...]:
    if not len(rows):
        return ()
    file = lake.staging(table, key, day, attempt.token) / "part-00000.parquet"
    pq.write_table(rows, file, coerce_timestamps="us")
    return (str(file),)


def content_hash(rows: pa.Table) -> str:
    """Sha256 of rows and their types (hex)."""
    sink = _Digest()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return sink.sha256.hexdigest()


class _Digest:
    """A file that keeps the hash of what is written to it, and not the bytes."""

    closed = False

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""
