"""What failed, and who owns it: broken rules, files and days left out, days that are out of date."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from infra.contracts import Contract
from infra.ledger import Unsettled
from infra.report.marts import Marts, Sources

TITLE = "What failed"
_KEYS_TOLD, _PARTITIONS_TOLD = 20, 100
_OUTCOMES = ("stands in", "error", "quarantine", "set aside", "warn")  # the causes before what follows from them


@dataclass(frozen=True)
class FailingPartition:
    """One partition in which a rule was broken, with the file of its refused rows if there is one."""

    partition: date
    rows_failed: int
    rows_in: int
    csv: str | None


@dataclass(frozen=True)
class BrokenRule:
    """One rule of a table, over all partitions that broke it: their number, and the newest of them."""

    table: str
    owner: str
    origin: str
    rule: str
    outcome: str
    rows: int
    count: int
    partitions: tuple[FailingPartition, ...]
    first: date
    last: date
    keys: tuple[tuple[str, str], ...]


def read(sources: Sources) -> dict[str, Any]:
    """Broken rules, landing files that were left out, and days that are not in their table as they were delivered, by
    table and by whether an older version is live, newest first."""
    ledger = sources.ledger
    unsettled: dict[tuple[str, bool], list[Unsettled]] = defaultdict(list)
    for one in reversed(ledger.all_unsettled()):
        unsettled[one.asset, one.live].append(one)
    return {
        "broken": broken_rules(sources.marts, sources.contracts, sources.folder / "quarantine"),
        "left_out": ledger.landings.left_out(),
        "unsettled": dict(sorted(unsettled.items())),
        "days_told": _PARTITIONS_TOLD,
    }


def broken_rules(marts: Marts, contracts: dict[str, Contract], csv_folder: Path) -> list[BrokenRule]:
    """Rules that were broken, by what came of it, each with its newest partitions and first failing keys."""
    by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in marts.rows(
        """select asset, coalesce(rule, '') as rule, outcome, sum(rows_failed)::bigint as rows, count(*) as count,
                  min(partition_date) as first, max(partition_date) as last
           from fct_broken_rules group by all"""
    ):
        by_table[row.pop("asset")].append(row)
    found = [
        rule
        for table, rows in by_table.items()
        if table in contracts
        for rule in _of_table(marts, contracts[table], rows, csv_folder)
    ]
    return sorted(found, key=lambda rule: (_OUTCOMES.index(rule.outcome), -rule.rows, rule.table, rule.rule))


def _of_table(marts: Marts, contract: Contract, rows: list[dict[str, Any]], csv_folder: Path) -> list[BrokenRule]:
    keys, partitions = _keys(marts, contract), _partitions(marts, contract, csv_folder)
    return [
        BrokenRule(
            table=contract.table,
            owner=contract.owner,
            origin=contract.origin,
            partitions=tuple(partitions[row["rule"]]),
            keys=tuple(keys[row["rule"]]),
            **row,
        )
        for row in rows
    ]


def _partitions(marts: Marts, contract: Contract, csv_folder: Path) -> dict[str, list[FailingPartition]]:
    found: dict[str, list[FailingPartition]] = defaultdict(list)
    for row in marts.rows(
        """select coalesce(rule, '') as rule, partition_date, rows_failed, rows_in, rows_quarantined
           from fct_broken_rules where asset = ?
           qualify row_number() over (partition by rule order by partition_date desc) <= ?
           order by partition_date desc""",
        [contract.table, _PARTITIONS_TOLD],
    ):
        csv = csv_folder / f"{contract.table}-{row['partition_date']}.csv"
        href = f"{csv_folder.name}/{csv.name}" if row["rows_quarantined"] and csv.is_file() else None
        found[row["rule"]].append(FailingPartition(row["partition_date"], row["rows_failed"], row["rows_in"], href))
    return found


def _keys(marts: Marts, contract: Contract) -> dict[str, list[tuple[str, str]]]:
    """The first failing keys of each rule, and where they were delivered: one reading of a table's whole quarantine."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    # Both names come from a contract file, never from data.
    for row in marts.rows(
        f"""select rule, key_json, coalesce(source_file, '') || ':' || coalesce(source_row::varchar, '') as source
            from lake."{contract.table}_quarantine"
            qualify row_number() over (partition by rule order by "{contract.partition}" desc, key_json) <= ?
            order by "{contract.partition}" desc, key_json""",  # noqa: S608
        [_KEYS_TOLD],
    ):
        found[row["rule"]].append((row["key_json"], row["source"]))
    return found
