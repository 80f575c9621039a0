"""Row rules and aggregates: every row is checked once, and one aggregation counts all that Great Expectations will ask.

What a row breaks is a bit mask, one bit a rule. Grouping by partition and mask counts any number of rules for the price
of one count: most rows share the mask 0. A mask is an `int`, whose machine code is shorter than that of a `bigint`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from infra.contracts import Contract, RowRule
from infra.partitions import RuleResult
from infra.quality.rules import (
    EXACT_COPY,
    UNIQUE_KEY,
    asked_measures,
    exact_copy,
    partition_row,
    row_results,
    unique_key,
)

_WORD = 30
_MEASURES: Mapping[str, Callable[[str], Column]] = {"null_share": F.count, "min": F.min, "max": F.max}


@dataclass(frozen=True)
class CheckedRows:
    """The checked frame: the built rows plus mask columns; `rules` in bit order; `broken` are rules that raised."""

    frame: DataFrame
    rules: tuple[RowRule, ...]
    broken: dict[str, RowRule] = field(default_factory=dict)

    @property
    def masks(self) -> list[str]:
        """Names of the mask columns, one for every 30 rules."""
        words = max(1, -(-len(self.rules) // _WORD))
        return [f"_mask{word}" for word in range(words)]

    @property
    def refused(self) -> Column:
        """True for a row that breaks a `fail` or a `drop` rule."""
        bits = [0] * len(self.masks)
        for i, rule in enumerate(self.rules):
            bits[i // _WORD] |= (rule.level != "warn") << (i % _WORD)
        return F.expr(" or ".join(f"({name} & {word}) != 0" for name, word in zip(self.masks, bits, strict=True)))

    @property
    def first_broken(self) -> Column:
        """Name of the first rule that refuses a row."""
        found = []
        for i, rule in enumerate(self.rules):
            if rule.level != "warn":
                broken = F.expr(f"(_mask{i // _WORD} & {1 << (i % _WORD)}) != 0")
                found.append(F.when(broken, F.lit(rule.name)))
        return F.coalesce(*found)

    def failed(self, masks: Sequence[int]) -> list[RowRule]:
        """The rules whose bit is set."""
        return [rule for i, rule in enumerate(self.rules) if masks[i // _WORD] >> (i % _WORD) & 1]


def check_rows(
    frame: DataFrame, contract: Contract, rules: Sequence[RowRule], tie_break: Sequence[str] = ()
) -> CheckedRows:
    """Add the masks and bring each partition into one task, sorted by key; of one key, the first by `tie_break` stays.

    Where a tie is broken, rows are somebody's delivery, and exact copies of the first are told from other repetitions.
    A rule that Spark cannot compile is left out and listed in `broken`.
    """
    unique = (*(exact_copy(contract) if tie_break else ()), *unique_key(contract))
    checked = mask(frame, (*rules, *unique))
    arranged = checked.frame.repartition(contract.partition)
    if unique:
        return replace(checked, frame=_mark_duplicates(arranged, contract, checked, tie_break))
    return replace(checked, frame=arranged.sortWithinPartitions(contract.partition))


def mask(frame: DataFrame, rules: Sequence[RowRule]) -> CheckedRows:
    """Add the masks; nothing moves."""
    sound, broken = _compile(frame, rules)
    checked = CheckedRows(frame, tuple(sound), broken)
    return replace(checked, frame=frame.select("*", *_mask_columns(sound, len(checked.masks))))


def raising_rules(frame: DataFrame, rules: Sequence[RowRule]) -> dict[str, RowRule]:
    """The rules that raise on this data, found by running each alone; the slow path, taken after a failure only."""
    return {rule.name: rule for rule in rules if _raises(frame, rule)}


def aggregate(checked: CheckedRows, contract: Contract) -> list[dict[str, Any]]:
    """One dictionary a partition: counts, rows failed per rule, and what the contract's expectations ask of columns.

    Shares of nulls, minima and maxima are over the rows that go on.
    """
    asked = [_MEASURES[measure](column).alias(name) for name, (measure, column) in asked_measures(contract).items()]
    measures = [F.count(F.lit(1)).alias("rows"), *asked]
    groups = checked.frame.groupBy(contract.partition, *checked.masks).agg(*measures).collect()
    by_day: dict[date, list[dict[str, Any]]] = {}
    for group in groups:
        by_day.setdefault(group[contract.partition], []).append(group.asDict())
    return [_partition_row(day, by_day[day], checked, contract) for day in sorted(by_day)]


def empty_row(day: date, checked: CheckedRows, contract: Contract) -> dict[str, Any]:
    """The aggregates of a partition with no row."""
    return _partition_row(day, [], checked, contract)


def rule_results(row: dict[str, Any], checked: CheckedRows) -> tuple[RuleResult, ...]:
    """The ledger's rows about the rules of one partition; a rule that raised is there once, as an error."""
    errors = tuple(RuleResult(r.name, r.level, 0, "error") for r in checked.broken.values())
    return row_results(checked.rules, row) + errors


def _partition_row(day: date, groups: list[dict[str, Any]], checked: CheckedRows, contract: Contract) -> dict[str, Any]:
    counts = {rule.name: 0 for rule in checked.rules}
    good: list[dict[str, Any]] = []
    dropped = 0
    for group in groups:
        failed = checked.failed([group[name] for name in checked.masks])
        failed = [rule for rule in failed if rule.alone] or failed
        levels = {rule.level for rule in failed}
        if levels <= {"warn"}:
            good.append(group)
        else:
            # Nobody is warned of a row that does not go on.
            failed = [rule for rule in failed if rule.level != "warn"]
            dropped += 0 if "fail" in levels else group["rows"]
        for rule in failed:
            counts[rule.name] += group["rows"]
    rows_in, rows_out = (sum(group["rows"] for group in part) for part in (groups, good))
    row = partition_row(day, rows_in, rows_out, counts, dropped)
    for name, (measure, _) in asked_measures(contract).items():
        if measure == "null_share":
            row[name] = 1 - sum(group[name] for group in good) / rows_out if rows_out else 0.0
        else:
            values = [group[name] for group in good if group[name] is not None]
            row[name] = min(values, default=None) if measure == "min" else max(values, default=None)
    return row


def _mask_columns(rules: Sequence[RowRule], words: int) -> list[Column]:
    terms: list[list[str]] = [["0"] for _ in range(words)]
    for i, rule in enumerate(rules):
        # A rule that answers null has not said that the row is good, and `if` takes null for false.
        terms[i // _WORD].append(f"if(({rule.expression}), 0, {1 << (i % _WORD)})")
    return [F.expr(" | ".join(word)).alias(f"_mask{i}") for i, word in enumerate(terms)]


def _mark_duplicates(frame: DataFrame, contract: Contract, checked: CheckedRows, tie_break: Sequence[str]) -> DataFrame:
    # A row that is refused anyway neither is a duplicate nor makes one.
    of_one_key = Window.partitionBy(contract.partition, *contract.key).orderBy(checked.refused, *tie_break)
    again = (F.row_number().over(of_one_key) > 1) & ~checked.refused
    row = F.struct(*contract.names)
    copied = again & row.eqNullSafe(F.first(row).over(of_one_key)) if tie_break else F.lit(False)
    marked = frame.withColumns({"_again": again, "_copied": copied})
    for rule, broken in ((EXACT_COPY, F.col("_copied")), (UNIQUE_KEY, F.col("_again") & ~F.col("_copied"))):
        position = next((i for i, known in enumerate(checked.rules) if known.name == rule), None)
        if position is not None:
            mask, bit = checked.masks[position // _WORD], 1 << (position % _WORD)
            marked = marked.withColumn(mask, F.col(mask).bitwiseOR(F.when(broken, F.lit(bit)).otherwise(F.lit(0))))
    return marked.drop("_again", "_copied")


def _compile(frame: DataFrame, rules: Sequence[RowRule]) -> tuple[list[RowRule], dict[str, RowRule]]:
    # One analysis for all; one for each only where that fails.
    if _compiles(frame, rules):
        return list(rules), {}
    sound = [rule for rule in rules if _compiles(frame, [rule])]
    return sound, {rule.name: rule for rule in rules if rule not in sound}


def _compiles(frame: DataFrame, rules: Sequence[RowRule]) -> bool:
    try:
        frame.select(*[F.expr(f"if(({rule.expression}), 0, 1)") for rule in rules])
    except PySparkException:
        return False
    return True


def _raises(frame: DataFrame, rule: RowRule) -> bool:
    try:
        frame.agg(F.count_if(F.expr(rule.expression))).collect()
    except PySparkException:
        return True
    return False
