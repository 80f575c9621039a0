"""`publish`, the one way in which rows enter a table: partitions are swapped in order: quarantine, table, ledger row.

Killed at any point, a retry ends where an undisturbed run ends: what is already live under its run key is not published
again, and a ledger row that is missing is added.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.manifest import DataFileContent, FileFormat
from pyiceberg.table import Table, TableProperties, Transaction
from pyiceberg.typedef import Record
from sqlalchemy.exc import SQLAlchemyError

from infra.contracts import Contract
from infra.errors import PlumblineError, TransientError
from infra.lake.lake import QUARANTINE_SNAPSHOT, RUN_KEYS, TOKEN, Lake, describe
from infra.lake.schema import Footer, appended_columns, iceberg_schema, read_footers
from infra.ledger import Ledger
from infra.partitions import QUARANTINE_SUFFIX, Attempt, PartitionWrite

_TRIES = 10
_KEYS_SPELT_OUT = 4
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Published:
    """What a publish did.

    `changed` partitions were swapped in the table; `recorded` ones got a ledger row (a retry may find a partition live
    and only its row missing); `unchanged` ones were committed already.
    """

    snapshot_id: int | None
    changed: tuple[date, ...]
    recorded: tuple[date, ...]
    unchanged: tuple[date, ...]


@dataclass(frozen=True)
class _Staged:
    """What a partition of one table shall hold."""

    run_key: str
    footers: list[Footer]


@dataclass(frozen=True)
class _Swapped:
    snapshot_id: int | None
    changed: frozenset[date]


def publish(lake: Lake, ledger: Ledger, table: str, writes: Sequence[PartitionWrite], attempt: Attempt) -> Published:
    """Make the given partitions of `table` and of its quarantine hold exactly these files; then write the ledger.

    A partition whose live run key is the given one is left alone; a partition without files loses the rows it had.

    Raises:
        StaleAttempt: a newer attempt holds one of the partitions; nothing was changed.
        SchemaError: a file does not fit the contract; nothing was changed.
        TransientError: other writers were faster ten times in a row, or the disk or the database failed.
    """
    _check_writes(table, writes, attempt)
    quarantine = f"{table}{QUARANTINE_SUFFIX}"
    refused = {w.partition: _stage(lake, quarantine, w, w.quarantine_files) for w in writes}
    wanted = {w.partition: _stage(lake, table, w, w.files) for w in writes}
    _check_counts(table, writes, wanted)

    def guard() -> None:
        ledger.check(attempt, *wanted)

    try:
        set_aside = _swap(lake, quarantine, refused, guard, {TOKEN: str(attempt.token)})
        properties = {TOKEN: str(attempt.token), QUARANTINE_SNAPSHOT: str(set_aside.snapshot_id or "")}
        swapped = _swap(lake, table, wanted, guard, properties)
        return _record(ledger, writes, attempt, swapped)
    except (OSError, SQLAlchemyError) as error:
        raise TransientError(
            f"Publishing {table!r} was cut short.",
            where=lake.root,
            why=str(error),
            do="See to the disk or the database, then run again: what is live already is not published twice.",
        ) from error


def _record(ledger: Ledger, writes: Sequence[PartitionWrite], attempt: Attempt, swapped: _Swapped) -> Published:
    known = {day: commit.run_key for day, commit in ledger.committed(attempt.asset).items()}
    unrecorded = [w for w in writes if w.partition in swapped.changed or known.get(w.partition) != w.run_key]
    if unrecorded:
        ledger.record(attempt, unrecorded, swapped.snapshot_id)
    recorded = {write.partition for write in unrecorded}
    return Published(
        snapshot_id=swapped.snapshot_id,
        changed=tuple(sorted(swapped.changed)),
        recorded=tuple(sorted(recorded)),
        unchanged=tuple(sorted({write.partition for write in writes} - recorded)),
    )


def current_keys(lake: Lake, ledger: Ledger, table: str) -> dict[date, str]:
    """The run key of every partition that is committed now, empty ones (which have no live file) included."""
    live = lake.live_keys(table)
    committed = ledger.committed(table)
    return live | {d: c.run_key for d, c in committed.items() if d not in live and c.rows_out == 0}


def empty(lake: Lake, table: str) -> None:
    """Take all rows out of a table; older versions keep them."""
    nothing = {day: _Staged("", []) for day in lake.live_keys(table)}
    _swap(lake, table, nothing, lambda: None, {TOKEN: "0"})


def _check_writes(table: str, writes: Sequence[PartitionWrite], attempt: Attempt) -> None:
    days = [write.partition for write in writes]
    if attempt.asset != table or not set(days) <= set(attempt.partitions) or len(set(days)) != len(days):
        raise PlumblineError(
            f"Attempt {attempt.token} may not publish these partitions of {table!r}.",
            where=", ".join(map(str, days)),
            why=f"It was opened for {attempt.asset!r}, {len(attempt.partitions)} partitions; each may come once.",
            do="Open the attempt for the table and all the partitions that will be written.",
        )


def _stage(lake: Lake, table: str, write: PartitionWrite, files: Sequence[str]) -> _Staged:
    folder = lake.run_folder(table, write.run_key, write.partition)
    paths = [path.removeprefix("file://") for path in files]
    for path in paths:
        if str(Path(path).parent.parent) != folder:
            raise PlumblineError(
                f"A file of {table!r} is not where its run puts its files.",
                where=path,
                do=f"Write it to Lake.staging(...), which is a folder in {folder}.",
            )
    return _Staged(write.run_key, read_footers(lake.contract(table), write.partition, paths))


def _check_counts(table: str, writes: Sequence[PartitionWrite], wanted: Mapping[date, _Staged]) -> None:
    for write in writes:
        found = sum(footer.rows for footer in wanted[write.partition].footers)
        if found != write.rows_out:
            raise PlumblineError(
                f"Partition {write.partition} of {table!r} was counted wrongly.",
                why=f"The job says {write.rows_out} rows; its files hold {found}.",
                do="Correct the job's count.",
            )


def _swap(
    lake: Lake, table: str, wanted: Mapping[date, _Staged], guard: Callable[[], None], properties: Mapping[str, str]
) -> _Swapped:
    """Load, check the token, commit; start over where another writer came between.

    The order matters: an attempt that checked its token before it loaded could be overtaken in between, and would
    overwrite what the newer attempt has published.
    """
    contract = lake.contract(table)
    any_rows = any(staged.footers for staged in wanted.values())
    for _ in range(_TRIES):
        loaded = lake.catalog.load_or_create(contract) if any_rows else lake.load(table)
        live: dict[date, list[IcebergFile]] = {}
        for entry in lake.entries(loaded):
            live.setdefault(describe(entry).partition, []).append(entry)
        guard()
        todo = {day: staged for day, staged in wanted.items() if _differs(live.get(day, []), staged)}
        if loaded is None or not todo:
            return _Swapped(_current_id(loaded), frozenset())
        try:
            _commit(loaded, contract, todo, live, properties)
            return _Swapped(_current_id(loaded), frozenset(todo))
        except (CommitFailedException, ValidationException):
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311
    raise TransientError(
        f"Other writers of {table!r} were faster {_TRIES} times in a row.", do="Run again; nothing was changed."
    )


def _differs(live: Sequence[IcebergFile], staged: _Staged) -> bool:
    if not live or not staged.footers:
        return bool(live) != bool(staged.footers)
    return describe(live[0]).run_key != staged.run_key


def _commit(
    table: Table,
    contract: Contract,
    todo: Mapping[date, _Staged],
    live: Mapping[date, Sequence[IcebergFile]],
    properties: Mapping[str, str],
) -> None:
    """One transaction: new columns, old files out, new files in. Its last snapshot has the token: it is the version."""
    final = {**properties, RUN_KEYS: _spell_keys(todo)}
    old = [entry for day in todo for entry in live.get(day, [])]
    new = [_iceberg_file(day, footer) for day, staged in todo.items() for footer in staged.footers]
    with table.transaction() as transaction:
        appended = appended_columns(contract, table.schema())
        if appended:
            types = {field.name: field.field_type for field in iceberg_schema(contract).fields}
            with transaction.update_schema() as update:
                for column in appended:
                    update.add_column(column.name, types[column.name])
        _name_columns(transaction)
        if old:
            with transaction.update_snapshot(snapshot_properties={} if new else final).overwrite() as removal:
                for entry in old:
                    removal.delete_data_file(entry)
        if new:
            with transaction.update_snapshot(snapshot_properties=final).merge_append() as addition:
                for entry in new:
                    addition.append_data_file(entry)


def _name_columns(transaction: Transaction) -> None:
    """Spark writes names into files and no ids: readers of Iceberg find a column by this mapping.

    It is that of the table, which has given its own ids to what lists hold, and not that of the contract.
    """
    mapping = {TableProperties.DEFAULT_NAME_MAPPING: transaction.table_metadata.schema().name_mapping.model_dump_json()}
    if not mapping.items() <= transaction.table_metadata.properties.items():
        transaction.set_properties(mapping)


def _current_id(table: Table | None) -> int | None:
    current = table.current_snapshot() if table is not None else None
    return current.snapshot_id if current is not None else None


def _iceberg_file(partition: date, footer: Footer) -> IcebergFile:
    entry = IcebergFile.from_args(
        content=DataFileContent.DATA,
        file_path=footer.path,
        file_format=FileFormat.PARQUET,
        partition=Record((partition - _EPOCH).days),
        record_count=footer.rows,
        file_size_in_bytes=footer.size,
    )
    entry.spec_id = 0
    return entry


def _spell_keys(todo: Mapping[date, _Staged]) -> str:
    """Run keys for a person to recognise; of many, only a fingerprint, so that the table's metadata stay small."""
    keys = [f"{day}={staged.run_key[:12]}" for day, staged in sorted(todo.items())]
    if len(keys) <= _KEYS_SPELT_OUT:
        return " ".join(keys)
    return f"{len(keys)} keys {hashlib.sha256(' '.join(keys).encode()).hexdigest()[:12]}"
