"""What failed, and who owns it: partitions with broken rules, files left out, days that are out of date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from infra.contracts import Contract
from infra.report.marts import Marts, Sources

TITLE = "What failed"


@dataclass(frozen=True)
class FailingPartition:
    """One partition with a broken rule or rows in quarantine."""

    table: str
    owner: str
    origin: str
    partition: date
    rows_in: int
    rows_quarantined: int
    rules: str
    keys: tuple[tuple[str, str, str], ...]
    csv: str | None


def read(sources: Sources) -> dict[str, Any]:
    """Failing partitions, landing files that were left out, and days whose files have changed since."""
    ledger, contracts = sources.ledger, sources.contracts
    return {
        "failures": failing_partitions(sources.marts, contracts, sources.folder / "quarantine"),
        "left_out": ledger.landings.left_out(),
        "overdue": [(table, day, files) for table in contracts for day, files in sorted(ledger.overdue(table).items())],
    }


def failing_partitions(marts: Marts, contracts: dict[str, Contract], csv_folder: Path) -> list[FailingPartition]:
    """Partitions with a broken rule or quarantined rows, newest first, with up to 20 failing keys each."""
    rows = marts.rows(
        """select asset, partition_date, rows_in, rows_quarantined, coalesce(failing_rules, '') rules
           from fct_partition_quality
           where has_failures order by partition_date desc, asset"""
    )
    return [_one_failure(marts, contracts[row["asset"]], row, csv_folder) for row in rows if row["asset"] in contracts]


def _one_failure(marts: Marts, contract: Contract, row: dict[str, Any], csv_folder: Path) -> FailingPartition:
    csv = csv_folder / f"{contract.table}-{row['partition_date']}.csv"
    return FailingPartition(
        table=contract.table,
        owner=contract.owner,
        origin=contract.origin,
        partition=row["partition_date"],
        rows_in=row["rows_in"],
        rows_quarantined=row["rows_quarantined"],
        rules=row["rules"],
        keys=_failing_keys(marts, contract, row["partition_date"]),
        csv=f"{csv_folder.name}/{csv.name}" if csv.is_file() else None,
    )


def _failing_keys(marts: Marts, contract: Contract, partition: date) -> tuple[tuple[str, str, str], ...]:
    # Both names come from a contract file, never from data.
    rows = marts.rows(
        f"""select rule, key_json, coalesce(source_file, '') || ':' || coalesce(source_row::varchar, '') source
            from lake."{contract.table}_quarantine" where "{contract.partition}" = ?
            order by rule, key_json limit 20""",  # noqa: S608
        [partition],
    )
    return tuple((row["rule"], row["key_json"], row["source"]) for row in rows)
