"""What a stage reads of the lake: a snapshot, and of it the files up to a day."""

from __future__ import annotations

from datetime import date

from infra.errors import DataError
from infra.lake import DataFile, Lake

_STATE_TABLE_PARTITION = "snapshot_date"  # each partition of such a table holds its whole state: the newest one counts


def read_files(lake: Lake, table: str, last: date, snapshot: int) -> list[DataFile]:
    """The files of `table` up to `last`; where each partition holds the whole state, the newest partition's."""
    files = lake.files(table, last=last, snapshot=snapshot)
    if files and lake.contract(table).partition == _STATE_TABLE_PARTITION:
        files = [file for file in files if file.partition == files[-1].partition]
    return files


def newest_snapshot(lake: Lake, table: str) -> int:
    """The newest version of `table`. Raises DataError if it has none."""
    snapshot = lake.snapshot(table)
    if snapshot is None:
        raise DataError(f"Nothing was ever published to {table!r}.", do="Run the DAG that fills it.")
    return snapshot
