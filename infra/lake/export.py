"""`lake.duckdb`: the lake as it is now, for dbt and analysts: a view per table, the ledger as tables beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from infra.contracts import Contract, duckdb_types
from infra.lake.lake import Lake
from infra.ledger import Ledger

if TYPE_CHECKING:
    import duckdb

_TIME = pa.timestamp("us", tz="UTC")
_COMMITS = pa.schema(
    [
        ("commit_id", pa.int64()),
        ("asset", pa.string()),
        ("partition", pa.date32()),
        ("run_key", pa.string()),
        ("token", pa.int64()),
        ("snapshot_id", pa.int64()),
        ("action", pa.string()),
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("rows_quarantined", pa.int64()),
        ("inputs", pa.list_(pa.string())),
        ("config_hash", pa.string()),
        ("code_commit", pa.string()),
        ("started", _TIME),
        ("committed", _TIME),
    ]
)
_RULES = pa.schema(
    [
        ("commit_id", pa.int64()),
        ("rule", pa.string()),
        ("level", pa.string()),
        ("rows_failed", pa.int64()),
        ("status", pa.string()),
    ]
)


def export_duckdb(lake: Lake, ledger: Ledger) -> Path:
    """Write `<home>/lake/lake.duckdb` anew, in one step; whoever has the old one open keeps it.

    Every table and quarantine is a view over its live files (typed, without rows, where there are none). Tables beside
    them: `ledger_commits` (every row of the ledger, numbered as written) and `rule_results`. Open it read-only.
    """
    import duckdb  # every job imports the lake, and only this function needs DuckDB

    target = lake.profile.home / "lake" / "lake.duckdb"
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"lake.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    with duckdb.connect(str(draft)) as connection:
        for name, contract in lake.contracts.items():
            connection.execute(view_statement(contract, [file.path for file in lake.files(name)]))
        _write_ledger(connection, ledger)
    draft.rename(target)
    return target


def view_statement(contract: Contract, paths: Iterable[str]) -> str:
    """The view of one table. Its typed, empty first part gives it all columns of the contract, whatever the files."""
    columns = ", ".join(f"NULL::{kind} AS {_name(column)}" for column, kind in duckdb_types(contract).items())
    # A view takes no parameters: names and paths are quoted by hand.
    body = f"SELECT {columns} WHERE false"
    files = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    if files:
        rows = f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)"
        body += f" UNION ALL BY NAME SELECT * FROM {rows}"  # noqa: S608
    return f"CREATE VIEW {_name(contract.table)} AS {body}"


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _write_ledger(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    history = list(enumerate(ledger.history(), start=1))
    rules = [{"commit_id": number, **vars(rule)} for number, commit in history for rule in commit.rules]
    tables = {
        "ledger_commits": pa.Table.from_pylist([{"commit_id": n, **vars(c)} for n, c in history], schema=_COMMITS),
        "rule_results": pa.Table.from_pylist(rules, schema=_RULES),
    }
    for name, rows in tables.items():
        connection.register("rows", rows)
        connection.table("rows").create(name)
        connection.unregister("rows")
