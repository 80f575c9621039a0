"""What the run ledger says about the data behind a version: do the rows add up, and did every rule run."""

from __future__ import annotations

from collections.abc import Collection

from infra.ledger import Commit, Ledger
from infra.partitions import stands_in
from registry.gates import DataQuality

_SHOWN = 5


def check_data(ledger: Ledger, tables: Collection[str]) -> DataQuality:
    """Check the live partitions of `tables` and of every table they were built from.

    Rows that broke a rule are in the quarantine, within the share that the contract allows, or the partition would not
    have been published; so red is what is beyond that: rows neither out nor in quarantine, a rule that raised, or a
    first version that stands in for one within that share.
    """
    assets = _upstream(ledger, tables)
    live = [commit for asset in sorted(assets) for commit in assets[asset]]
    if not live:
        return DataQuality(("the ledger knows of no data behind this version",), 0)
    lost = [
        f"{found.asset} {found.of}: {found.lost} of {found.rows_in} rows are neither out nor in quarantine"
        for found in ledger.reconcile(sorted(assets))
    ]
    problems = lost + _rule_errors(live) + _standing_in(live)
    if len(problems) > _SHOWN:
        problems = [*problems[:_SHOWN], f"and {len(problems) - _SHOWN} more"]
    return DataQuality(tuple(problems), len(live))


def _upstream(ledger: Ledger, tables: Collection[str]) -> dict[str, list[Commit]]:
    """`tables` and their ancestors, each with its live commits, whose inputs are `table@snapshot`, or landing files,
    which end the way."""
    found: dict[str, list[Commit]] = {}
    ahead = set(tables)
    while ahead:
        asset = ahead.pop()
        found[asset] = list(ledger.committed(asset).values())
        inputs = {name for commit in found[asset] for name in commit.inputs}
        ahead |= {name.partition("@")[0] for name in inputs if "@" in name} - set(found)
    return found


def _rule_errors(commits: Collection[Commit]) -> list[str]:
    return [
        f"rule {rule.rule} of {commit.asset} raised on {commit.partition}"
        for commit in commits
        for rule in commit.rules
        if rule.status == "error"
    ]


def _standing_in(commits: Collection[Commit]) -> list[str]:
    return [
        f"{commit.asset} {commit.partition}: more rows were refused than its contract allows, "
        f"{commit.rows_quarantined} of {commit.rows_in}"
        for commit in commits
        if stands_in(commit.run_key)
    ]
