"""`python -m infra.ledger missing --asset A --from D --to D | history [--asset A] [--partition D] | reconcile`."""

from __future__ import annotations

import argparse
from datetime import date

from infra.arguments import day, ordered
from infra.console import print_table
from infra.contracts import all_contracts
from infra.errors import EXIT_DATA, DataError, exit_with_reason
from infra.ledger.ledger import Ledger
from infra.profile import load_profile


def main() -> int:
    """Run one command; 65 where `reconcile` finds rows in that are not rows out plus rows in quarantine."""
    arguments = _parser().parse_args()
    ledger = Ledger(load_profile())
    match arguments.command:
        case "missing":
            first, last = ordered(arguments.first, arguments.last)
            _print_missing(ledger, _known(ledger, arguments.asset), first, last)
        case "history":
            asset = arguments.asset and _known(ledger, arguments.asset)
            _print_history(ledger, asset, arguments.partition)
        case "reconcile":
            return _reconcile(ledger)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.ledger", description="What is committed, and what is not.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    missing = commands.add_parser("missing", help="days without a commit, and days that are not as delivered")
    missing.add_argument("--asset", required=True, help="a table, or e.g. online.user_stats")
    missing.add_argument("--from", dest="first", type=day, required=True, metavar="DAY")
    missing.add_argument("--to", dest="last", type=day, required=True, metavar="DAY")
    history = commands.add_parser("history", help="every row, oldest first")
    history.add_argument("--asset")
    history.add_argument("--partition", type=day, metavar="DAY")
    commands.add_parser(
        "reconcile", help="records delivered = rows out + quarantined, for every file and partition; exit 65 where not"
    )
    return parser


def _print_missing(ledger: Ledger, asset: str, first: date, last: date) -> None:
    notes = dict.fromkeys(ledger.missing(asset, first, last), "")
    notes |= {one.day: f"  {one.said}" for one in ledger.unsettled(asset) if first <= one.day <= last}
    for missing in sorted(notes):
        print(f"{missing}{notes[missing]}")


def _known(ledger: Ledger, asset: str) -> str:
    """The asset: a table, or what the ledger has rows of (such as `online.user_stats`).

    Raises:
        DataError: it is neither; a misspelt name would have no day committed, for ever.
    """
    known = sorted({*all_contracts(), *ledger.assets()})
    if asset not in known:
        raise DataError(f"There is no asset {asset!r}.", do=f"Choose one of: {', '.join(known)}.")
    return asset


def _print_history(ledger: Ledger, asset: str | None, partition: date | None) -> None:
    rows = [
        (
            c.committed,
            c.asset,
            c.partition,
            c.action,
            c.token,
            c.rows_in,
            c.rows_out,
            c.rows_quarantined,
            c.run_key[:12],
        )
        for c in ledger.history(asset, partition)
    ]
    columns = ("committed (UTC)", "asset", "partition", "action", "token", "in", "out", "quarantined", "run key")
    print_table(columns, rows, "The ledger has no such row.")


def _reconcile(ledger: Ledger) -> int:
    left_out = [(file.table, file.name, " ".join(file.problem.split())) for file in ledger.landings.left_out()]
    if left_out:
        print_table(("table", "file that was left out", "why"), left_out, "")
    if unsettled := [(one.asset, one.day, one.records or "", one.said) for one in ledger.all_unsettled()]:
        print_table(("table", "day that is not in it as delivered", "records delivered", "why"), unsettled, "")
    lost = ledger.reconcile()
    rows = [(i.asset, i.of, i.rows_in, i.rows_out, i.rows_quarantined, i.lost) for i in lost]
    columns = ("asset", "partition or file", "in", "out", "quarantined", "lost")
    balance = "In balance: records delivered = rows out + quarantined, in every landing file and committed partition."
    print_table(columns, rows, balance + " What is listed above is not in the tables." * bool(left_out or unsettled))
    return EXIT_DATA if lost else 0


if __name__ == "__main__":
    exit_with_reason(main)
