"""What each table is worth: partitions, rows, quarantine, and whether its rows add up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from markupsafe import Markup

from infra.contracts import Contract
from infra.report import charts
from infra.report.marts import Marts, Sources

TITLE = "Tables"


@dataclass(frozen=True)
class TableQuality:
    """One table over all its partitions."""

    table: str
    owner: str
    origin: str
    grain: str
    partitions: int
    first: date
    last: date
    rows_in: int
    rows_out: int
    rows_quarantined: int
    unbalanced: int
    failing: int
    last_commit: datetime
    days: tuple[tuple[date, int, int], ...]


def read(sources: Sources) -> dict[str, Any]:
    """Each table with the strip of its days."""
    tables = table_quality(sources.marts, sources.contracts)
    strips = [charts.rows_per_day(table.days) if len(table.days) > 1 else "" for table in tables]
    return {"tables": [(table, Markup(strip)) for table, strip in zip(tables, strips, strict=True)]}  # noqa: S704


def table_quality(marts: Marts, contracts: dict[str, Contract]) -> list[TableQuality]:
    """One entry per table with commits, in the order of the contracts' names."""
    totals = marts.rows(
        """select asset, count(*) partitions, min(partition_date) first, max(partition_date) last,
                  sum(rows_in)::bigint rows_in, sum(rows_out)::bigint rows_out,
                  sum(rows_quarantined)::bigint rows_quarantined,
                  count(*) filter (where not is_balanced) unbalanced,
                  count(*) filter (where has_failures) failing, max(committed_at) last_commit
           from fct_partition_quality group by asset order by asset"""
    )
    return [_one_table(marts, contracts[row["asset"]], row) for row in totals if row["asset"] in contracts]


def _one_table(marts: Marts, contract: Contract, row: dict[str, Any]) -> TableQuality:
    days = marts.rows(
        """select partition_date, rows_out, rows_quarantined from fct_partition_quality
           where asset = ? and partition_date > date '1970-01-01' order by partition_date""",
        [contract.table],
    )
    fields = {name: value for name, value in row.items() if name != "asset"}
    return TableQuality(
        table=contract.table,
        owner=contract.owner,
        origin=contract.origin,
        grain=contract.grain,
        days=tuple((d["partition_date"], d["rows_out"], d["rows_quarantined"]) for d in days),
        **fields,
    )
