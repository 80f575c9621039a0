"""`python -m registry`: gate, promote, reject, rollback, announce, history, compare, serve.

Exit code 65: a gate failed or refused. A decision is followed by the DAGs that follow one of the DAG `promote`.
"""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence

from infra.arguments import moment
from infra.console import print_table
from infra.errors import EXIT_DATA, PlumblineError, exit_with_reason
from infra.profile import load_profile
from registry import airflow_events, decisions, gate_file, store
from registry.card import show
from registry.gate_report import GateReport, number
from registry.promotions import Decision, Promotions


def main() -> int:
    """Run one command."""
    arguments = _parser().parse_args()
    code: int = arguments.command(arguments)
    return code


def gate(a: Namespace) -> int:
    """Hold the gate; 65 where it fails."""
    report = decisions.hold_gate(load_profile(), a.model, a.version)
    _show_gate(report)
    return 0 if report.passed else EXIT_DATA


def promote(a: Namespace) -> int:
    """Make a version champion."""
    profile, before = load_profile(), _history(a)
    made = decisions.promote(profile, a.model, a.version, who=a.who, override=a.override, reason=a.reason or "")
    return _decided(made, f"version {made.to_version} is champion (before: {made.from_version or 'none'})", before)


def reject(a: Namespace) -> int:
    """Refuse a version."""
    profile, before = load_profile(), _history(a)
    made = decisions.reject(profile, a.model, a.version, who=a.who, reason=a.reason)
    return _decided(
        made, f"version {made.to_version} is rejected; champion stays {made.from_version or 'none'}", before
    )


def rollback(a: Namespace) -> int:
    """Go back to the champion before."""
    made = decisions.rollback(load_profile(), a.model, who=a.who, reason=a.reason)
    return _decided(made, f"version {made.to_version} is champion again (before: {made.from_version})")


def announce(a: Namespace) -> int:
    """Tell Airflow of the last decision again: it was down when it was made."""
    return _say(airflow_events.announce(load_profile(), a.model))


def history(a: Namespace) -> int:
    """Show the ledger, and who is (or was) champion."""
    ledger = Promotions(load_profile())
    decided = ledger.history(a.model, a.at)
    if not decided:
        gate_file.load_gate(a.model)  # a model that nobody knows is a slip of the pen, not one without a history
    lines = []
    for row in decided:
        if row.report is None:
            held = "overridden, not held" if row.override else ""
        else:
            held = "passed" if row.report.passed else "failed"
            held += f", simulated market {row.report.market}" if row.report.market else ""
            held += ", overridden" if row.override else ""
        lines.append((row.at, row.who, row.decision, row.from_version, row.to_version, held, row.reason))
    print_table(("at (UTC)", "who", "decision", "from", "to", "gate", "reason"), lines, "No decision was made.")
    when = a.at.isoformat() if a.at else "now"
    return _say(f"champion of {a.model} ({when}): {ledger.champion(a.model, a.at) or 'none'}")


def compare(a: Namespace) -> int:
    """Show champion and challenger beside each other."""
    rows = decisions.compare(load_profile(), a.model, a.version)
    first = next(row for row in rows if row.gain is not None)
    failed = f" ({first.samples - first.scored} of them not scored by both)" if first.scored < first.samples else ""
    _say(f"{a.model}: {first.samples} samples{failed}, {first.origin} data, intervals by {first.unit}")
    lines = [
        (row.metric, *(show(one) if one else "not measured" for one in (row.champion, row.challenger, row.gain)))
        for row in rows
    ]
    print_table(("metric", "champion", "challenger", "gain (paired)"), lines, "")
    return 0


def serve(_: Namespace) -> int:
    """Run MLflow's server on loopback."""
    store.serve(load_profile())
    return 0


def _history(a: Namespace) -> list[Decision]:
    return Promotions(load_profile()).history(a.model)


def _decided(made: Decision, text: str, before: Sequence[Decision] = ()) -> int:
    """The decision stands, whether Airflow hears of it or not. What was decided `before` is not decided twice."""
    _say(f"{made.model}: {text}")
    if made.report and made.report.beside:
        _say(made.report.beside)
    if made.id in {decision.id for decision in before}:
        since = f"{made.decision} by {made.who}, {made.at:%Y-%m-%d %H:%M} UTC"
        _say(f"It was so already ({since}): the ledger has no new row, and {made.who}'s reason stays.")
    try:
        return _say(airflow_events.announce(load_profile(), made.model))
    except PlumblineError as error:
        again = f"python -m registry announce --model {made.model}"
        sys.stderr.write(f"The decision stands, but no DAG follows it yet.\n{error}\nLater: {again}\n")
        return 0


def _show_gate(report: GateReport) -> None:
    against = f"champion {report.champion}" if report.champion else "no other champion"
    failed = f" ({report.samples - report.scored} of them failed)" if report.scored < report.samples else ""
    _say(f"{report.model} version {report.version}, {against}, {report.samples} samples{failed}, {report.origin} data")
    lines = [
        (
            check.name,
            number(check.value),
            number(check.threshold),
            check.verdict.replace("failed", "FAILED"),
            check.reason,
        )
        for check in report.checks
    ]
    print_table(("check", "value", "threshold", "", "reason"), lines, "")
    if report.told_sentence:
        _say(f"not shown: {report.told_sentence}")
    _say("gate passed" if report.passed else f"gate failed: {', '.join(check.name for check in report.failed)}")


def _say(text: str) -> int:
    print(text)
    return 0


def _reason(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("say why: it is kept in the ledger")
    return text


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m registry", description=__doc__)
    commands, known = parser.add_subparsers(required=True), gate_file.models()
    for command in (gate, promote, reject, rollback, announce, history, compare):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--model", default=known[0] if len(known) == 1 else None, required=len(known) != 1)
        if command in (gate, promote, reject, compare):
            sub.add_argument("--version", help="default: the newest version that no decision has named")
        if command in (promote, reject, rollback):
            sub.add_argument("--who", default=getpass.getuser(), help="who decides (default: the user of this machine)")
            sub.add_argument("--reason", type=_reason, required=command is not promote, help="kept in the ledger")
        if command is promote:
            sub.add_argument("--override", action="store_true", help="although the gate has not passed; needs --reason")
        if command is history:
            sub.add_argument("--at", type=moment, help="as of this ISO time (UTC unless it says otherwise)")
    commands.add_parser(serve.__name__, help=serve.__doc__).set_defaults(command=serve)
    return parser


if __name__ == "__main__":
    exit_with_reason(main)
