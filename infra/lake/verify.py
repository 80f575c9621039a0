"""Whether the lake is what it says: every live file is there and whole, and the ledger tells of the same runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile as IcebergFile

from infra.contracts import Contract
from infra.lake.lake import Lake, describe
from infra.lake.schema import SchemaError, check_partition
from infra.ledger import Ledger
from infra.partitions import QUARANTINE_SUFFIX, Commit

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Fault:
    """Something that does not fit, for a person to read."""

    table: str
    partition: date
    what: str


def verify(lake: Lake, ledger: Ledger) -> list[Fault]:
    """All faults of all tables; reads every live file's footer, no rows."""
    faults: list[Fault] = []
    for name, contract in lake.contracts.items():
        live: dict[date, list[IcebergFile]] = defaultdict(list)
        for entry in lake.entries(lake.load(name)):
            live[describe(entry).partition].append(entry)
            faults += _check_file(contract, entry)
        commits = ledger.committed(name.removesuffix(QUARANTINE_SUFFIX))
        for day in sorted(live.keys() | commits.keys()):
            told = _quarantine_faults if name.endswith(QUARANTINE_SUFFIX) else _ledger_faults
            faults += [Fault(name, day, what) for what in told(live[day], commits.get(day))]
    return faults


def _check_file(contract: Contract, entry: IcebergFile) -> list[Fault]:
    file = describe(entry)

    def fault(what: str) -> list[Fault]:
        return [Fault(contract.table, file.partition, f"{what}: {file.path}")]

    if entry.partition[0] not in (file.partition, (file.partition - _EPOCH).days):
        return fault(f"the table has it under {_EPOCH + timedelta(days=entry.partition[0])}")
    try:
        metadata = pq.read_metadata(file.path)
        check_partition(contract, file.partition, metadata, file.path)
    except FileNotFoundError:
        return fault("a live file is missing")
    except SchemaError:
        return fault("a file holds rows of another partition")
    except (pa.ArrowInvalid, OSError) as error:
        return fault(f"a live file cannot be read ({error})")
    return [] if metadata.num_rows == file.rows else fault(f"{metadata.num_rows} rows, the table says {file.rows}")


def _ledger_faults(live: list[IcebergFile], commit: Commit | None) -> list[str]:
    keys = {describe(entry).run_key for entry in live}
    rows = sum(entry.record_count for entry in live)
    if len(keys) > 1:
        return [f"{len(keys)} runs are live at once"]
    if commit is None:
        return ["live, but not in the ledger; the next run of its job adds the row"]
    if live and keys != {commit.run_key}:
        return [f"run {next(iter(keys))[:12]} is live, the ledger tells of {commit.run_key[:12]}"]
    return [] if rows == commit.rows_out else [f"{rows} rows are live, the ledger tells of {commit.rows_out}"]


def _quarantine_faults(live: list[IcebergFile], commit: Commit | None) -> list[str]:
    keys = {describe(entry).run_key for entry in live}
    rows = sum(entry.record_count for entry in live)
    expected = commit.rows_quarantined if commit is not None else 0
    if live and (commit is None or keys != {commit.run_key}):
        return ["holds rows of a run that was not completed; the next run of its job replaces them"]
    return [] if bool(rows) == bool(expected) else [f"{rows} rows, the ledger tells of {expected}"]
