"""`python -m infra.lake tables | show T | history T | verify | rollback T --snapshot S | expire | export`."""

from __future__ import annotations

import argparse
from collections import defaultdict
from datetime import date

from infra.console import print_table
from infra.errors import EXIT_DATA, exit_with_reason
from infra.lake.expire import expire
from infra.lake.export import export_duckdb
from infra.lake.lake import Lake
from infra.lake.rollback import rollback
from infra.lake.verify import verify
from infra.ledger import Ledger
from infra.partitions import DataFile
from infra.profile import load_profile


def main() -> int:
    """Run one command; see the module's docstring."""
    arguments = _parser().parse_args()
    profile = load_profile()
    lake, ledger = Lake(profile), Ledger(profile)
    match arguments.command:
        case "tables":
            _print_tables(lake)
        case "show":
            _print_partitions(lake, ledger, arguments.table)
        case "history":
            _print_history(lake, arguments.table)
        case "rollback":
            done = rollback(lake, ledger, arguments.table, arguments.snapshot)
            changed = f"{len(done.restored)} partitions restored, {len(done.withdrawn)} now missing"
            print(f"{arguments.table} is at {arguments.snapshot}: {changed}.")
        case "expire":
            expired = [(e.table, e.snapshots, e.files, e.bytes) for e in expire(lake) if e.snapshots or e.files]
            print_table(("table", "snapshots", "files", "bytes"), expired, "Nothing was old enough.")
        case "export":
            print(export_duckdb(lake, ledger))
        case "verify":
            faults = [(fault.table, fault.partition, fault.what) for fault in verify(lake, ledger)]
            fine = "Every live file is there and fits the ledger."
            print_table(("table", "partition", "what does not fit"), faults, fine)
            return EXIT_DATA if faults else 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.lake", description="Look at the lake and steer it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("tables", help="every table: rows, partitions, newest version")
    for name, text in (("show", "a table's columns and live partitions"), ("history", "a table's versions")):
        commands.add_parser(name, help=text).add_argument("table")
    commands.add_parser("verify", help="check every live file and the ledger; exit 65 where something does not fit")
    back = commands.add_parser("rollback", help="make an earlier version the current one")
    back.add_argument("table")
    back.add_argument("--snapshot", type=int, required=True, help="its id, from `history`")
    commands.add_parser("expire", help="forget old versions (never tagged ones) and delete files that nothing names")
    commands.add_parser("export", help="write lake.duckdb anew")
    return parser


def _print_tables(lake: Lake) -> None:
    rows = []
    for name, contract in lake.contracts.items():
        files = lake.files(name)
        days = sorted({file.partition for file in files})
        span = (days[0], days[-1]) if days else (None, None)
        rows.append((name, contract.origin, sum(f.rows for f in files), len(days), *span, lake.snapshot(name)))
    print_table(("table", "origin", "rows", "partitions", "first", "last", "version"), rows, "There are no contracts.")


def _print_partitions(lake: Lake, ledger: Ledger, table: str) -> None:
    contract = lake.contract(table)
    print(f"{contract.table}: {contract.description}\n{contract.grain} Key: {', '.join(contract.key) or 'none'}.\n")
    columns = [(c.name, c.type, "required" if c.required else "", c.description) for c in contract.columns]
    print_table(("column", "type", "", "meaning"), columns, "")
    print()
    live: dict[date, list[DataFile]] = defaultdict(list)
    for file in lake.files(table):
        live[file.partition].append(file)
    commits = ledger.committed(table)
    rows = []
    for day, files in sorted(live.items()):
        known = commits.get(day)
        told = (known.rows_quarantined, known.committed, known.code_commit[:12]) if known else (None, None, None)
        rows.append((day, sum(f.rows for f in files), len(files), files[0].run_key[:12], *told))
    print_table(
        ("partition", "rows", "files", "run key", "quarantined", "committed (UTC)", "code"),
        rows,
        "No partition has rows.",
    )


def _print_history(lake: Lake, table: str) -> None:
    rows = [
        (
            "current" if v.current else "",
            str(v.snapshot_id),
            v.at,
            v.token,
            v.rows,
            v.files,
            ", ".join(v.tags),
            v.run_keys,
        )
        for v in lake.history(table)
    ]
    columns = ("", "snapshot", "at (UTC)", "token", "rows", "files", "tags", "changed")
    print_table(columns, rows, f"Nothing was ever published to {table}.")


if __name__ == "__main__":
    exit_with_reason(main)
