"""What a contract asks of rows and of a partition, said once: whoever checks rows, Spark or DuckDB, asks here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from infra.contracts import Contract, RowRule
from infra.partitions import RuleResult
from infra.quality.checkpoint import EXPECTATION

UNIQUE_KEY, EXACT_COPY = "unique_key", "exact_copy"
# What an expectation may ask of a column, as `<measure>_<column>`; nothing is measured that no expectation asks for.
_MEASURES = ("null_share", "min", "max")


def rules_of(contract: Contract, quote: str = "`") -> tuple[RowRule, ...]:
    """The contract's row rules, preceded by what `required` says without words; `quote` is the dialect's, for names."""
    written = {rule.name for rule in contract.row_rules}
    required = (
        RowRule(f"{c.name}_present", f"{quote}{c.name}{quote} is not null", "fail", f"{c.name} is required.")
        for c in contract.columns
        if c.required
    )
    return (*(rule for rule in required if rule.name not in written), *contract.row_rules)


def unique_key(contract: Contract) -> tuple[RowRule, ...]:
    """The rule that a key says without words, where there is one; no expression can tell it."""
    return (RowRule(UNIQUE_KEY, "true", "fail", f"One row per {', '.join(contract.key)}."),) if contract.key else ()


def exact_copy(contract: Contract) -> tuple[RowRule, ...]:
    """The rule about a row that repeats an earlier one of the same key in every column: two exports overlap."""
    return (RowRule(EXACT_COPY, "true", "drop", "A row is delivered once."),) if contract.key else ()


def asked_measures(contract: Contract) -> dict[str, tuple[str, str]]:
    """Measure and column of each aggregate of a column that an expectation names."""
    named = {str(expectation.kwargs.get("column", "")) for expectation in contract.expectations}
    pairs = ((measure, column) for measure in _MEASURES for column in contract.names)
    return {f"{measure}_{column}": (measure, column) for measure, column in pairs if f"{measure}_{column}" in named}


def partition_row(
    day: date, rows_in: int, rows_out: int, failed: Mapping[str, int], rows_dropped: int = 0
) -> dict[str, Any]:
    """The aggregates that expectations may ask of every partition; `failed`: rows that broke a rule, by its name.

    `rows_dropped` are those in quarantine that are not bad.
    """
    refused = rows_in - rows_out
    end_of_day = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return {
        "partition": day,
        "rows_in": rows_in,
        "rows_out": rows_out,
        "rows_quarantined": refused,
        "rows_dropped": rows_dropped,
        **bad_rows(refused - rows_dropped, rows_in - rows_dropped),
        "duplicate_keys": failed.get(UNIQUE_KEY, 0),
        "age_hours": (datetime.now(UTC) - end_of_day).total_seconds() / 3600,
        **{f"rule_{name}": count for name, count in failed.items()},
    }


def bad_rows(bad: int, checked: int) -> dict[str, Any]:
    """The aggregates about bad rows: how many, of how many that are not dropped, and their share."""
    return {"bad": bad, "bad_of": checked, "bad_share": bad / checked if checked else 0.0}


def row_results(rules: Sequence[RowRule], row: Mapping[str, Any]) -> tuple[RuleResult, ...]:
    """The ledger's rows about `rules` that were checked, of one partition's aggregates."""
    counts = [(rule, row[f"rule_{rule.name}"]) for rule in rules]
    return tuple(RuleResult(rule.name, rule.level, n, "failed" if n else "ok") for rule, n in counts)


def why_stopped(contract: Contract, row: Mapping[str, Any], results: Sequence[RuleResult]) -> str:
    """Why a partition may not be published: its aggregates and all results. Empty where it may."""
    if row["bad_share"] > contract.max_bad_share:
        worst = max((r for r in results if r.level == "fail"), key=lambda r: r.rows_failed)
        aside = f" beside {row['rows_dropped']} that are set aside" if row["rows_dropped"] else ""
        return (
            f"{row['bad']} of {row['bad_of']} rows are bad{aside} ({row['bad_share']:.1%}, at most "
            f"{contract.max_bad_share:.1%}), most often by rule {worst.rule} ({worst.rows_failed})"
        )
    errors = [r.rule for r in results if r.level == "fail" and r.status == "error"]
    if errors:
        return f"rule {errors[0]} could not be evaluated; correct it in the contract (try_cast instead of cast?)"
    failed = [r.rule for r in results if r.level == "fail" and r.status == "failed" and r.rule.startswith(EXPECTATION)]
    return f"not met: {failed[0].removeprefix(EXPECTATION)}" if failed else ""
