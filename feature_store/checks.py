"""What a contract says of rows that are joined here and not in Spark: its row rules in DuckDB, then its expectations.

The rules are written in SQL that DuckDB and Spark read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from infra.contracts import Contract
from infra.errors import DataError
from infra.partitions import RuleResult
from infra.profile import Profile
from infra.quality import judge_partitions


def check(profile: Profile, rows: pa.Table, contract: Contract) -> dict[date, tuple[RuleResult, ...]]:
    """The results of all rules and expectations, for each partition with rows; Data Docs get a page.

    Raises:
        DataError: something of level `fail` failed. Rows that were joined, not landed, are wrong only if the join is:
            nothing goes on.
    """
    aggregates = aggregate(rows, contract)
    expected = judge_partitions(profile, contract, aggregates)
    verdicts = {row["partition"]: (*_row_rules(row, contract), *expected[row["partition"]]) for row in aggregates}
    for day, results in verdicts.items():
        broken = [result for result in results if result.level == "fail" and result.status != "ok"]
        if broken:
            raise DataError(
                f"{contract.table} breaks {broken[0].rule!r} ({broken[0].rows_failed} rows).",
                where=f"partition {day}",
                why="The join gave a sample what it may not have, or gave it twice.",
                do="Look at `available_at`, `last_event_time` and the keys of the tables that were joined.",
            )
    return verdicts


def aggregate(rows: pa.Table, contract: Contract) -> list[dict[str, Any]]:
    """One dictionary per partition: counts, shares of nulls, rows failed per rule; named as the Spark jobs do."""
    key = ", ".join(contract.key)
    measures = {
        "partition": contract.partition,
        "rows_in": "count(*)",
        "duplicate_keys": f"count(*) - count(DISTINCT ({key}))",
        **{f"null_share_{name}": f"1 - count({name}) / count(*)" for name in contract.names},
        **{f"rule_{r.name}": f"count(*) FILTER (WHERE ({r.expression}) IS NOT TRUE)" for r in contract.row_rules},
    }
    columns = ", ".join(f"{expression} AS {name}" for name, expression in measures.items())
    with duckdb.connect() as connection:
        connection.register("joined", rows)
        found = connection.sql(f"SELECT {columns} FROM joined GROUP BY 1 ORDER BY 1").to_arrow_table().to_pylist()  # noqa: S608
    return [{**row, "rows_out": row["rows_in"], "rows_quarantined": 0, "bad_share": _bad_share(row)} for row in found]


def _bad_share(row: dict[str, Any]) -> float:
    worst = max((failed for name, failed in row.items() if name.startswith("rule_")), default=0)
    return float(worst / row["rows_in"])


def _row_rules(row: dict[str, Any], contract: Contract) -> Sequence[RuleResult]:
    counts = [(rule, int(row[f"rule_{rule.name}"])) for rule in contract.row_rules]
    return [RuleResult(rule.name, rule.level, failed, "failed" if failed else "ok") for rule, failed in counts]
