"""What the report shows, read from the marts (and failing keys from the lake's views)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from infra.contracts import Contract

TRAINING = "training"  # the split of what a stage measured while it trained


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


class Marts:
    """Read access to the marts; `rows` gives dictionaries."""

    def __init__(self, marts: Path, lake_views: Path) -> None:
        self._connection = duckdb.connect(str(marts), read_only=True)
        self._connection.execute("set TimeZone = 'UTC'")
        self._connection.execute(f"attach '{str(lake_views).replace(chr(39), chr(39) * 2)}' as lake (read_only)")

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """Run one query with bound parameters."""
        cursor = self._connection.execute(sql, parameters or [])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def table_quality(marts: Marts, contracts: dict[str, Contract]) -> list[TableQuality]:
    """One entry per table with commits, in the order of the contracts' names."""
    totals = marts.rows(
        """select asset, count(*) partitions, min(partition_date) first, max(partition_date) last,
                  sum(rows_in)::bigint rows_in, sum(rows_out)::bigint rows_out,
                  sum(rows_quarantined)::bigint rows_quarantined,
                  count(*) filter (where not is_balanced) unbalanced,
                  count(*) filter (where rules_failed + rules_in_error > 0) failing, max(committed_at) last_commit
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


def failing_partitions(marts: Marts, contracts: dict[str, Contract], csv_folder: Path) -> list[FailingPartition]:
    """Partitions with a broken rule or quarantined rows, newest first, with up to 20 failing keys each."""
    rows = marts.rows(
        """select asset, partition_date, rows_in, rows_quarantined, coalesce(failing_rules, '') rules
           from fct_partition_quality
           where rules_failed > 0 or rules_in_error > 0 or rows_quarantined > 0
           order by partition_date desc, asset"""
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


def catalogue(marts: Marts) -> list[dict[str, Any]]:
    """The newest catalogue by source, the largest first: its items, and how many of them lack what describes an item.

    `acted_on`: items with an event.
    """
    return marts.rows(
        """select source, max(snapshot_date) delivered, count(*) as "items",
                  count(*) filter (where coalesce(trim(title), '') = '') without_title,
                  count(*) filter (where coalesce(trim(brand), '') = '') without_brand,
                  count(*) filter (where coalesce(trim(category), '') = '') without_category,
                  count(*) filter (where n_events > 0) acted_on
           from dim_items group by source order by "items" desc, source"""
    )


# Of several evaluations of one day, the one registered last is the newest.
_NEWEST_FIRST = "logged_date desc, coalesce(try_cast(version as bigint), 0) desc, run_id desc"


def model_metrics(marts: Marts) -> list[dict[str, Any]]:
    """The metrics of each system's newest evaluation."""
    return marts.rows(
        f"""select * from fct_model_metrics where stage = 'evaluate'
            qualify dense_rank() over (partition by system, split order by {_NEWEST_FIRST}) = 1
            order by system, split, slice, metric, value desc"""  # noqa: S608
    )


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found for one metric: its rows (`value, lo, hi`) by model, all on its own `n` samples."""

    run_id: str
    logged_date: date
    version: str | None
    n: int | None
    by_model: dict[str, dict[str, Any]]


def evaluations(marts: Marts, metric: str) -> dict[tuple[str, str], list[Evaluation]]:
    """The last ten evaluations of each system and split, newest first."""
    rows = marts.rows(
        f"""select * from fct_model_metrics
            where stage = 'evaluate' and split <> ? and slice = 'all' and metric = ?
            qualify dense_rank() over (partition by system, split order by {_NEWEST_FIRST}) <= 10
            order by {_NEWEST_FIRST}""",  # noqa: S608
        [TRAINING, metric],
    )
    found: dict[tuple[str, str], dict[str, Evaluation]] = {}
    for row in rows:
        of_place = found.setdefault((row["system"], row["split"]), {})
        new = Evaluation(row["run_id"], row["logged_date"], row["version"], row["n"], {})
        of_place.setdefault(row["run_id"], new).by_model[row["model"]] = row
    return {place: list(of_place.values()) for place, of_place in found.items()}


def rungs(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `model_metrics`: one row per stage that held a gate of its own or was left out, its figures by name, in order.

    `reason` says why one was left out; None where it stands. What was left out before it began has no other figures.
    `outcome` says it in words; a stage that stands and hands on the weights that it started from is called unchanged.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in metrics:
        if row["split"] == TRAINING:
            facts = {"system": row["system"], "rung": row["model"], "origin": row["origin"], "reason": None}
            rung = found.setdefault((row["system"], row["model"]), facts)
            rung[row["metric"]] = row["value"]
            rung["reason"] = row["reason"] or rung["reason"]
    gated = (one for one in found.values() if "place" in one)  # an evaluation without a comparison has other figures
    return [one | {"outcome": _outcome(one)} for one in sorted(gated, key=lambda one: (one["system"], one["place"]))]


def _outcome(rung: Mapping[str, Any]) -> str:
    if rung["stands"]:
        return "unchanged: no step ranked better than the start" if rung.get("unmoved") else "stands"
    return ": ".join(filter(None, ("left out", rung["reason"])))  # an evaluation of before reasons were kept has none


def recommendations(marts: Marts) -> list[dict[str, Any]]:
    """The lists of the last 14 days that have any, newest first, the champion's before the challenger's.

    `days_behind`: how much newer the newest day of events is.
    """
    return marts.rows(
        """with newest as (
               select max(partition_date) as day from fct_partition_quality where asset = 'events' and rows_out > 0)
           select r.*, greatest(newest.day - r.run_date, 0) as days_behind
           from fct_recommendations r cross join newest
           qualify dense_rank() over (order by r.run_date desc) <= 14
           order by r.run_date desc, r.role desc"""
    )


def promotions(marts: Marts) -> list[dict[str, Any]]:
    """The promotion ledger, newest first."""
    return marts.rows("select * from fct_promotions order by decision_id desc")


def task_landing(marts: Marts) -> list[dict[str, Any]]:
    """The tries of the six hours before the newest one (a day's chain of runs), at most 100, in order of start."""
    return marts.rows(
        """select * from (select * from fct_task_landing
                          where started_at > (select max(started_at) from fct_task_landing) - interval 6 hours
                          order by started_at desc limit 100) order by started_at"""
    )
