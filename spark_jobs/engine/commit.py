"""From built rows to a published table: check the rows, let Great Expectations check partitions, stage, publish."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from common.sentences import some_of
from infra.contracts import UNDATED, Contract, RowRule
from infra.errors import EXIT_DATA, PlumblineError
from infra.lake import Lake, publish
from infra.ledger import Ledger
from infra.partitions import QUARANTINE_SUFFIX, Attempt, PartitionWrite, RuleResult, stand_in
from infra.quality import Refusal, validate_partitions, write_failing_keys
from infra.quality.rules import bad_rows, rules_of, why_stopped
from spark_jobs.engine.row_checks import CheckedRows, aggregate, check_rows, empty_row, raising_rules, rule_results
from spark_jobs.engine.staging import FAULT_KEY, JUDGED, stage_good, stage_refused


@dataclass(frozen=True)
class Batch:
    """Built rows of several partitions on their way into one table.

    `keys` names the partitions and their run keys. `rules` come before the contract's; `tie_break` are the columns that
    say which row of one key came first. `landed` rows come from files: an undated one could be of any day, so the share
    of bad undated rows is taken over all rows of the batch; what the live version has refused was judged with its own
    batch. `needed`: where the table would stay empty, good rows stand in for a partition
    with too many bad ones. `audit` raises to stop the batch as a whole.
    """

    contract: Contract
    frame: DataFrame
    keys: Mapping[date, str]
    inputs: Mapping[date, tuple[str, ...]]
    config_hash: str
    up_to_date: int
    started: float
    rules: tuple[RowRule, ...] = ()
    tie_break: tuple[str, ...] = ()
    landed: bool = False
    needed: bool = False
    audit: Callable[[DataFrame], None] | None = None


@dataclass(frozen=True)
class Stopped:
    """A partition that was not published: its old version stays, or its good rows stand in where there is none.

    `files` are landing files that are therefore in no table.
    """

    partition: date
    why: str
    files: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """Why, and of which files nothing is in the table."""
        return self.why + (f" ({some_of(self.files)})" if self.files else "")


@dataclass(frozen=True)
class JobReport:
    """What a run did. `up_to_date` partitions were committed already under their expected key; `problems` are landing
    files that could not be used at all; `messages` are for people."""

    table: str
    up_to_date: int = 0
    published: tuple[PartitionWrite, ...] = ()
    stopped: tuple[Stopped, ...] = ()
    problems: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or 65 where a partition was stopped or a landing file could not be used."""
        return EXIT_DATA if self.refusals else 0

    @property
    def refusals(self) -> list[str]:
        """The files and partitions that were left out, and why."""
        return [*self.problems, *(f"{self.table} {stop.partition} stopped: {stop.said}" for stop in self.stopped)]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        rows = [sum(getattr(w, name) for w in self.published) for name in ("rows_in", "rows_out", "rows_quarantined")]
        head = (
            f"{self.table}: {len(self.published)} partitions published, {self.up_to_date} up to date, "
            f"{len(self.stopped)} stopped; rows in {rows[0]}, out {rows[1]}, quarantined {rows[2]} "
            f"({self.seconds:.1f} s)"
        )
        return [head, *self.messages, *self.refusals]


def commit(batch: Batch, lake: Lake, ledger: Ledger) -> JobReport:
    """Check, stage and publish a batch; a partition that is stopped keeps its old version."""
    contract = batch.contract
    attempt = ledger.open_attempt(contract.table, sorted(batch.keys))
    checked, rows = _checked(batch)
    try:
        if batch.audit:
            batch.audit(checked.frame.where(~checked.refused))
        expected = validate_partitions(lake.profile, contract, list(rows.values()))
        rules = {day: rule_results(row, checked) + expected[day] for day, row in rows.items()}
        stopped = {day: why for day in rows if (why := why_stopped(contract, rows[day], rules[day]))}
        standing = _standing_in(batch, ledger, rows, stopped)
        keys = {day: stand_in(key) if day in standing else key for day, key in batch.keys.items()}
        writes = _staged(replace(batch, keys=keys), lake, attempt, checked, rows, rules)
    finally:
        checked.frame.unpersist()
    quarantined = {write.partition: write.quarantine_files for write in writes}
    refused = write_failing_keys(lake.profile, contract, quarantined, _live_refusals(batch, lake))
    passed = tuple(write for write in writes if write.partition in standing or write.partition not in stopped)
    if passed:
        publish(lake, ledger, contract.table, passed, attempt)
    return JobReport(
        contract.table,
        batch.up_to_date,
        published=passed,
        stopped=tuple(Stopped(day, f"{why}{standing.get(day, '')}") for day, why in stopped.items()),
        messages=(*(_explained(refusal, checked) for refusal in refused), *_warnings(checked, rules)),
        seconds=time.monotonic() - batch.started,
    )


def _live_refusals(batch: Batch, lake: Lake) -> list[str]:
    """The files with the undated rows that the live version has refused."""
    quarantine = lake.files(f"{batch.contract.table}{QUARANTINE_SUFFIX}") if batch.landed else []
    return [file.path for file in quarantine if file.partition == UNDATED]


def _standing_in(
    batch: Batch, ledger: Ledger, rows: Mapping[date, Mapping[str, Any]], stopped: Collection[date]
) -> dict[date, str]:
    """The stopped partitions whose good rows are published all the same, and how to say so.

    Asked of the ledger: a retry after a kill in the middle of publishing is to publish them too.
    """
    if not batch.needed or len(stopped) < len(rows) or ledger.committed(batch.contract.table):
        return {}
    good = {day: rows[day]["rows_out"] for day in stopped if rows[day]["bad_share"] > batch.contract.max_bad_share}
    said = "; no version was there to keep, so the {} good rows stand in until it is delivered again"
    return {day: said.format(count) for day, count in good.items() if count}


def _explained(refusal: Refusal, checked: CheckedRows) -> str:
    """Where the refused rows are, what the rule asks for or the first of them lacks, and what to do."""
    rule = next((rule for rule in checked.rules if rule.name == refusal.rule), None)
    where = f"{refusal.source_file}, first in row {refusal.first_row}" if refusal.source_file else "the built rows"
    reason = json.loads(refusal.first_row_json).get(FAULT_KEY) or (rule.description if rule else "")
    if rule is not None and rule.level == "drop":
        return f"{refusal.rows} dropped by rule {refusal.rule} in {where}. {reason} Nothing is to be done here."
    return (
        f"{refusal.rows} refused by rule {refusal.rule} in {where}. {reason} "
        "They are listed in report/quarantine; correct and deliver them again."
    )


def _warnings(checked: CheckedRows, results: Mapping[date, Sequence[RuleResult]]) -> list[str]:
    """The rows that are in the table and broke a rule which only warns: how many, and what it asks for."""
    counts = Counter[str]()
    for told in results.values():
        counts.update({result.rule: result.rows_failed for result in told})
    warning = [rule for rule in checked.rules if rule.level == "warn" and counts[rule.name]]
    return [f"{counts[rule.name]} warned of by rule {rule.name}. {rule.description}" for rule in warning]


def _checked(batch: Batch) -> tuple[CheckedRows, dict[date, dict[str, Any]]]:
    rules = (*batch.rules, *rules_of(batch.contract))
    try:
        return _counted(batch, rules)
    except PySparkException:
        raising = raising_rules(batch.frame, rules)
        if not raising:
            raise
    checked, rows = _counted(batch, [rule for rule in rules if rule.name not in raising])
    return replace(checked, broken=raising), rows


def _counted(batch: Batch, rules: Sequence[RowRule]) -> tuple[CheckedRows, dict[date, dict[str, Any]]]:
    checked = check_rows(batch.frame, batch.contract, rules, batch.tie_break)
    checked = replace(checked, frame=checked.frame.persist(StorageLevel.MEMORY_AND_DISK))
    return checked, _aggregates(batch, checked)


def _aggregates(batch: Batch, checked: CheckedRows) -> dict[date, dict[str, Any]]:
    found = {row["partition"]: row for row in aggregate(checked, batch.contract)}
    strangers = sorted(set(found) - set(batch.keys), key=str)
    if strangers:
        raise PlumblineError(
            f"The build of {batch.contract.table!r} gave rows of partitions that nobody asked for.",
            where=", ".join(map(str, strangers[:5])),
            do="Filter them in `build`.",
        )
    rows = {day: found.get(day) or empty_row(day, checked, batch.contract) for day in sorted(batch.keys)}
    if batch.landed and UNDATED in rows:
        new = _new_undated(batch, checked)
        others = [row for day, row in rows.items() if day != UNDATED]
        rows[UNDATED] |= bad_rows(new["bad"], new["bad_of"] + sum(r["rows_in"] - r["rows_dropped"] for r in others))
    return rows


def _new_undated(batch: Batch, checked: CheckedRows) -> Mapping[str, Any]:
    """The aggregates of the undated rows but for those that their live version has refused."""
    frame = checked.frame.where(F.col(batch.contract.partition) == F.lit(UNDATED))
    new = frame.where(~(checked.refused & F.coalesce(JUDGED, F.lit(False))))
    found = aggregate(replace(checked, frame=new), batch.contract)
    return found[0] if found else empty_row(UNDATED, checked, batch.contract)


def _staged(
    batch: Batch,
    lake: Lake,
    attempt: Attempt,
    checked: CheckedRows,
    rows: Mapping[date, Mapping[str, Any]],
    rules: Mapping[date, tuple[RuleResult, ...]],
) -> list[PartitionWrite]:
    good = stage_good(lake, batch.contract, checked, _with_rows(batch.keys, rows, "rows_out"), attempt.token)
    bad = stage_refused(lake, batch.contract, checked, _with_rows(batch.keys, rows, "rows_quarantined"), attempt.token)
    return [
        PartitionWrite(
            partition=day,
            run_key=batch.keys[day],
            files=tuple(good.get(day, ())),
            rows_in=row["rows_in"],
            rows_out=row["rows_out"],
            quarantine_files=tuple(bad.get(day, ())),
            rows_quarantined=row["rows_quarantined"],
            inputs=batch.inputs[day],
            config_hash=batch.config_hash,
            rules=rules[day],
        )
        for day, row in rows.items()
    ]


def _with_rows(keys: Mapping[date, str], rows: Mapping[date, Mapping[str, Any]], count: str) -> dict[date, str]:
    return {day: key for day, key in keys.items() if rows[day][count] > 0}
