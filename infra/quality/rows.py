"""The quality path of rows that Python holds: row rules in DuckDB, expectations over each partition, what is refused.

Spark jobs go the same way in `spark_jobs.engine.commit`. The contract of a table that goes this one has rules in SQL
that DuckDB and Spark read alike; a rule may look at the other rows of its partition through a window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import Contract, arrow_schema, quarantine_contract
from infra.errors import DataError, TransientError
from infra.partitions import RuleResult
from infra.profile import Profile
from infra.quality.checkpoint import validate_partitions
from infra.quality.rules import (
    UNIQUE_KEY,
    asked_measures,
    partition_row,
    row_results,
    rules_of,
    unique_key,
    why_stopped,
)

_PLACE, _RULE = "_place", "_rule"  # of a row in its partition; the first rule of level `fail` that it breaks, or null
_QUOTE = '"'
_MEMORY = "1GB"  # beyond it DuckDB goes to disk
_GOOD = f"FILTER (WHERE {_RULE} IS NULL)"
_MEASURES = {
    "null_share": "coalesce(1 - count({0}) {1} / nullif(count(*) {1}, 0), 0)",
    "min": "min({0}) {1}",
    "max": "max({0}) {1}",
}


@dataclass(frozen=True)
class CheckedRows:
    """The rows that go on, the refused ones (with `_rule` as a further column), what the ledger is told of each
    partition, and why the partitions that may not be published may not.
    """

    good: pa.Table
    refused: pa.Table
    results: Mapping[date, tuple[RuleResult, ...]]
    stopped: Mapping[date, str]


def check_table(profile: Profile, contract: Contract, rows: pa.Table) -> CheckedRows:
    """Check whole partitions, with the contract's columns; Data Docs get a page. Of rows with one key the first stays.

    Raises:
        DataError: a rule of the contract cannot be evaluated.
        TransientError: the rows at once are more than the memory given to it and the disk together hold.
    """
    with TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET temp_directory = '{scratch}'")
        connection.register("rows", rows.append_column(_PLACE, pa.array(range(len(rows)), pa.int64())))
        try:
            connection.execute(f"CREATE TABLE checked AS {_verdicts(contract)}")
            counted = connection.sql(_counts(contract)).to_arrow_table().to_pylist()
            told = connection.sql(f"SELECT {_RULE} FROM checked ORDER BY {_PLACE}").to_arrow_table()[_RULE]  # noqa: S608
        except duckdb.OutOfMemoryException as error:  # no fault of a rule
            raise TransientError(
                f"{len(rows):,} rows of {contract.table!r} could not be checked: DuckDB ran out of memory.",
                why=str(error),
                do=f"Free the disk of {scratch}, where it puts what exceeds {_MEMORY}, or check fewer days at once.",
            ) from error
        except duckdb.Error as error:
            raise DataError(
                f"A rule of {contract.table!r} cannot be evaluated.", why=str(error), do="Correct it in the contract."
            ) from error
    results, stopped = _results(profile, contract, counted)
    good = pc.is_null(told)
    refused = rows.append_column(_RULE, told).filter(pc.invert(good))
    return CheckedRows(rows.filter(good) if len(refused) else rows, refused, results, stopped)


def _results(
    profile: Profile, contract: Contract, counted: Sequence[Mapping[str, Any]]
) -> tuple[dict[date, tuple[RuleResult, ...]], dict[date, str]]:
    """All results of each partition, and why some may not be published."""
    rules = (*rules_of(contract), *unique_key(contract))
    aggregates: dict[date, dict[str, Any]] = {}  # of each partition, as expectations ask for them
    for counts in counted:
        failed = {rule.name: counts[f"rule_{rule.name}"] for rule in rules}
        row = partition_row(counts["partition"], counts["rows_in"], counts["rows_out"], failed)
        aggregates[row["partition"]] = row | {name: counts[name] for name in asked_measures(contract)}
    expected = validate_partitions(profile, contract, list(aggregates.values()))
    results = {day: row_results(rules, row) + expected[day] for day, row in aggregates.items()}
    reasons = {day: why_stopped(contract, row, results[day]) for day, row in aggregates.items()}
    return results, {day: why for day, why in reasons.items() if why}


def quarantine_rows(contract: Contract, refused: pa.Table, run_key: str) -> pa.Table:
    """Refused rows in the shape of the quarantine table."""
    lines = [
        {
            contract.partition: row[contract.partition],
            "run_key": run_key,
            "rule": row.pop(_RULE),
            "key_json": _json({name: row[name] for name in contract.key or (contract.partition,)}),
            "row_json": _json(row),
        }
        for row in refused.to_pylist()
    ]
    schema = arrow_schema(quarantine_contract(contract))
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | line for line in lines], schema=schema)


def _verdicts(contract: Contract) -> str:
    """Every row with its verdict by each rule (`_broken_0`, ...) and, of the fail rules, the first that it breaks.

    A row that is refused anyway neither repeats a key nor makes one repeated.
    """
    rules = rules_of(contract, _QUOTE)
    broken = ", ".join(f"({rule.expression}) IS NOT TRUE AS _broken_{n}" for n, rule in enumerate(rules))
    first = " ".join(f"WHEN _broken_{n} THEN '{rule.name}'" for n, rule in enumerate(rules) if rule.level == "fail")
    key = ", ".join(map(_quoted, (contract.partition, *contract.key)))
    again = f"row_number() OVER (PARTITION BY {key} ORDER BY _own IS NOT NULL, {_PLACE}) > 1"
    unique = f"CASE WHEN _own IS NULL AND {again} THEN '{UNIQUE_KEY}' END" if contract.key else "NULL"
    asked = f"SELECT *, {broken} FROM rows"  # noqa: S608  (all names come from a contract file)
    judged = f"SELECT *, coalesce(_own, {unique}) AS {_RULE} FROM (SELECT *, CASE {first} END AS _own FROM ({asked}))"  # noqa: S608
    # What is counted, and no more: a table of all columns would be as large as the rows.
    wanted = {_quoted(contract.partition), *(_quoted(column) for _, column in asked_measures(contract).values())}
    verdicts = ", ".join([*sorted(wanted), _PLACE, _RULE, *(f"_broken_{n}" for n in range(len(rules)))])
    return f"SELECT {verdicts} FROM ({judged})"  # noqa: S608


def _counts(contract: Contract) -> str:
    """One line per partition: its rows, those that go on, those that broke each rule, and what expectations ask for."""
    counts = {"partition": _quoted(contract.partition), "rows_in": "count(*)", "rows_out": f"count(*) {_GOOD}"}
    for n, rule in enumerate(rules_of(contract)):
        going_on = f" AND {_RULE} IS NULL" * (rule.level == "warn")  # nobody is warned of a row that does not
        counts[f"rule_{rule.name}"] = f"count(*) FILTER (WHERE _broken_{n}{going_on})"
    counts[f"rule_{UNIQUE_KEY}"] = f"count(*) FILTER (WHERE {_RULE} = '{UNIQUE_KEY}')"
    for name, (measure, column) in asked_measures(contract).items():
        counts[name] = _MEASURES[measure].format(_quoted(column), _GOOD)
    columns = ", ".join(f"{expression} AS {name}" for name, expression in counts.items())
    return f"SELECT {columns} FROM checked GROUP BY 1 ORDER BY 1"  # noqa: S608


def _quoted(name: str) -> str:
    return f"{_QUOTE}{name}{_QUOTE}"


def _json(row: Mapping[str, Any]) -> str:
    """JSON has no NaN and no infinity: they are put as words."""
    words = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    return json.dumps(words, default=str)
