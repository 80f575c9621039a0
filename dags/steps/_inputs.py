"""What a stage reads of the lake: files up to a day, of a snapshot, and the rows of a query over such files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from common.pipelines import SYSTEMS, Query
from feature_store.point_in_time import scan_rows
from infra.contracts import load_contract
from infra.errors import DataError
from infra.lake import DataFile, Lake
from infra.ledger import Ledger

_STATE_TABLE_PARTITION = "snapshot_date"  # each partition of such a table holds its whole state: the newest one counts


def is_state(lake: Lake, table: str) -> bool:
    """Whether each partition of the table holds its whole state."""
    return lake.contract(table).partition == _STATE_TABLE_PARTITION


def read_files(
    lake: Lake, table: str, last: date, snapshot: int | None = None, days: int | None = None
) -> list[DataFile]:
    """The files of `table` up to `last`, of the last `days` if so many are asked for, as of a snapshot (None: newest).

    Where each partition holds the whole state: the newest partition's.
    """
    if is_state(lake, table):
        files = lake.files(table, last=last, snapshot=snapshot)
        return [file for file in files if file.partition == files[-1].partition]
    first = None if days is None else last - timedelta(days=days - 1)
    return lake.files(table, first=first, last=last, snapshot=snapshot)


def newest_snapshot(lake: Lake, ledger: Ledger, table: str) -> int | None:
    """The newest version of `table`; None where its days are committed and not one of them ever had a row.

    Raises:
        DataError: nothing was ever committed.
    """
    snapshot = lake.snapshot(table)
    if snapshot is None and not ledger.committed(table):
        raise DataError(f"Nothing was ever published to {table!r}.", do="Run the DAG that fills it.")
    return snapshot


def query_rows(
    lake: Lake, system: str, query: Query, day: date, pins: Mapping[str, int], root: Path = SYSTEMS
) -> pa.Table:
    """The rows of a system's query as of `day`, over the pinned snapshots where there are `pins`.

    Raises:
        DataError: there is no such file, or DuckDB refuses what it says.
    """
    file = root / system / query.file
    if not file.is_file():
        raise DataError("There is no such query.", where=str(file), do="Correct `query` in pipeline.yaml.")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")  # or times come in the machine's zone
        for table in query.tables:
            # What a run has not pinned was not there when it began; a job pins nothing.
            late = bool(pins) and table not in pins
            files = [] if late else [found.path for found in read_files(lake, table, day, pins.get(table), query.days)]
            connection.register(table, scan_rows(files, load_contract(table)))
        try:
            text = file.read_text()
            return connection.sql(text, params={"day": day} if "$day" in text else None).to_arrow_table()
        except duckdb.Error as error:
            raise DataError("The query cannot be run.", where=str(file), why=str(error), do="Correct it.") from error
