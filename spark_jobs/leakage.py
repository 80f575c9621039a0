"""The leakage audit: no ingredient of a sample may come from its own day or later. It fails the run.

The rules follow from a table's columns, so every sample table is audited the same way:

* `history_item_ids`: each item of a history must be among the user's events strictly before `as_of`, as often as it
  is used. The audit counts in `events` itself and takes no word from the job that built the history.
* `*available_at`: a feature must have been available at or before `as_of`.
* `*last_event_time`: what a feature counted must have happened before `as_of`.
* `split_time`: all of `train` lies before all of `valid`, and that before all of `test`; no ingredient of a train row
  comes from the days of the later splits. A row lies on its `outcome_date`, or on the day of `as_of` without one.
* `later_item_ids`: each was taken by the user from `as_of` on, and before the next part of the split begins.

A job audits the rows it is about to publish (`Job.audit`); `python -m spark_jobs leakage --table T` audits all of T.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from infra.contracts import load_contract
from infra.errors import DataError
from infra.lake import Lake
from infra.profile import Profile
from spark_jobs.engine.job import read_files
from spark_jobs.engine.spark import spark_session

_SPLITS = ("train", "valid", "test")
_NAMED = ("user_id", "as_of")
_ALSO_NAMED = ("item_id", "request_id", "query")  # in an example, where a sample has them


@dataclass(frozen=True)
class Leak:
    """One broken rule: how many units break it (what a unit is, the rule's name says), and one of them."""

    rule: str
    count: int
    example: str


class LeakageError(DataError):
    """A sample table holds something that was not known at its `as_of`."""


def require_no_leak(table: str, samples: DataFrame, events: DataFrame | None) -> None:
    """Audit `samples` against `events`, which must reach back as far as the histories do; None for samples without.

    Raises:
        LeakageError: naming each broken rule with its count and an example.
    """
    leaks = audit(samples, events)
    if leaks:
        found = "; ".join(f"{leak.rule}: {leak.count}, such as {leak.example}" for leak in leaks)
        raise LeakageError(
            f"Table {table!r} leaks later data into samples.",
            where=table,
            why=found,
            do="Find the job that built these rows, correct it, raise its VERSION and run the partitions again.",
        )


def audit_table(table: str, profile: Profile) -> int:
    """Audit all live rows of a published table; returns how many they are.

    Raises:
        LeakageError: as `require_no_leak`.
        DataError: the table holds no samples.
    """
    contract, lake, spark = load_contract(table), Lake(profile), spark_session(profile)
    if not set(_NAMED) <= set(contract.names):
        raise DataError(f"Table {table!r} holds no samples.", do=f"Name a table with {', '.join(_NAMED)}.")
    samples = read_files(spark, contract, lake.files(table)).persist()
    try:
        require_no_leak(table, samples, read_files(spark, load_contract("events"), lake.files("events")))
        rows: int = samples.count()
        return rows
    finally:
        samples.unpersist()


def audit(samples: DataFrame, events: DataFrame | None) -> list[Leak]:
    """All leaks of `samples`; empty where there are none. One pass over the events and a few over the samples."""
    columns = set(samples.columns)
    leaks = _item_leaks(samples, events) if events is not None else []
    for name in sorted(column for column in columns if column.endswith("available_at")):
        leaks.append(_leak(f"{name}_after_as_of", _named(samples.where(F.col(name) > F.col("as_of")), name)))
    for name in sorted(column for column in columns if column.endswith("last_event_time")):
        leaks.append(_leak(f"{name}_not_before_as_of", _named(samples.where(F.col(name) >= F.col("as_of")), name)))
    if "split_time" in columns:
        leaks.append(_leak("split_not_in_time_order", _outside_split(samples)))
    return [leak for leak in leaks if leak.count]


def _item_leaks(samples: DataFrame, events: DataFrame) -> list[Leak]:
    columns, leaks = set(samples.columns), []
    met = events.groupBy("user_id", "item_id", F.col("event_date").alias("day")).agg(F.count(F.lit(1)).alias("met"))
    if {"history_item_ids", "later_item_ids"} <= columns:
        met = met.localCheckpoint(eager=False)  # both ask it
    if "history_item_ids" in columns:
        leaks.append(_leak("history_item_not_before_as_of", _unknown_history(samples, met)))
    if "later_item_ids" in columns:
        leaks.append(_leak("later_item_not_in_its_time", _unknown_later(samples, met)))
    return leaks


def _named(offenders: DataFrame, *more: str | Column) -> DataFrame:
    return offenders.select(*_NAMED, *(name for name in _ALSO_NAMED if name in offenders.columns), *more)


def _leak(rule: str, offenders: DataFrame) -> Leak:
    row = offenders.agg(F.count(F.lit(1)).alias("n"), F.first(F.to_json(F.struct("*"))).alias("example")).head()
    return Leak(rule, row["n"], row["example"] or "")


def _unknown_history(samples: DataFrame, met: DataFrame) -> DataFrame:
    """User, day and item where a history uses the item more often than the user met it before that day.

    `met`: how often on each day. Uses and days share one running count per user and item, uses first within a day:
    linear, where a join of each use with all earlier events is not.
    """
    histories = samples.select("user_id", F.to_date("as_of").alias("day"), "history_item_ids").distinct()
    used = (
        histories.select("*", F.explode("history_item_ids").alias("item_id"))
        .groupBy("user_id", "item_id", "day", "history_item_ids")
        .agg(F.count(F.lit(1)).alias("used"))
        .groupBy("user_id", "item_id", "day")
        .agg(F.max("used").alias("used"), F.lit(0).alias("met"))
    )
    days = met.withColumn("used", F.lit(0))
    uses_first = Window.partitionBy("user_id", "item_id").orderBy("day", "met")
    met_before = F.sum("met").over(uses_first.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    counted = used.unionByName(days).withColumn("met_before", met_before)
    return counted.where(F.col("used") > F.col("met_before")).drop("met")


def _unknown_later(samples: DataFrame, met: DataFrame) -> DataFrame:
    """User, day and item of hindsight that the user did not take between that day and the next part of the split."""
    day = F.to_date("as_of")
    told = samples.select("user_id", day.alias("day"), F.explode("later_item_ids").alias("item_id")).distinct()
    starts = F.array(*map(F.lit, _starts(samples).values())).cast("array<date>")
    end = F.array_min(F.filter(starts, lambda start: start > F.col("day")))
    took = met.select("user_id", "item_id", F.col("day").alias("taken_on"))
    in_time = (F.col("taken_on") >= F.col("day")) & (F.col("end").isNull() | (F.col("taken_on") < F.col("end")))
    same = [F.col(f"told.{name}") == F.col(f"took.{name}") for name in ("user_id", "item_id")]
    return told.withColumn("end", end).alias("told").join(took.alias("took"), [*same, in_time], "left_anti")


def _own_day(samples: DataFrame) -> Column:
    return F.col("outcome_date") if "outcome_date" in samples.columns else F.to_date("as_of")


def _starts(samples: DataFrame) -> dict[str, date]:
    """The first day of each part of the split that has samples."""
    firsts = samples.groupBy("split_time").agg(F.min(_own_day(samples)).alias("day")).collect()
    return {row["split_time"]: row["day"] for row in firsts}


def _outside_split(samples: DataFrame) -> DataFrame:
    """Samples with an ingredient (its own day or the newest event of the history) from the time of a later split."""
    own = _own_day(samples)
    newest = F.greatest(own, "history_last_date") if "history_last_date" in samples.columns else own
    starts = _starts(samples)
    too_late = F.lit(False)
    for place, split in enumerate(_SPLITS):
        later = [starts[name] for name in _SPLITS[place + 1 :] if name in starts]
        if later:
            too_late = too_late | ((F.col("split_time") == split) & (newest >= F.lit(min(later))))
    return _named(samples.where(too_late), "split_time", newest.alias("newest_ingredient"))
