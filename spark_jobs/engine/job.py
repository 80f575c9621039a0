"""One way to run a job: resolve inputs and run keys, find what is missing, read, build, check, stage, publish.

A job module defines `build` (a pure function of its frames) and `JOB`. A range of partitions is one Spark pass and one
commit. What is committed under its expected run key is not done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from common.sentences import some_of
from common.truth import refuse_truth
from infra.contracts import Contract, load_contract, spark_ddl
from infra.errors import DataError
from infra.lake import Lake, current_keys
from infra.ledger import Ledger, Stop
from infra.partitions import DataFile, due_again
from infra.profile import Profile
from infra.quality import import_ahead
from spark_jobs.engine.commit import Batch, JobReport, commit
from spark_jobs.engine.plan import Input, InputFiles, days_between, expected_keys, uncommitted
from spark_jobs.engine.spark import spark_session

__all__ = ["Input", "Job", "JobReport", "run"]

Build = Callable[[SparkSession, Mapping[str, DataFrame], Sequence[date], Mapping[str, Any]], DataFrame]


@dataclass(frozen=True)
class Job:
    """A table that is made of tables. Raise `version` whenever `build` would give other rows for the same inputs.

    `audit` sees the rows that are about to be published and the frames they were built of; it raises to stop the run.
    `settings` names the section of the profile whose values join `config`. A committed partition is looked at `again`
    so many days after its own, as more of what it reads ahead is there: by the run whose range holds that day.
    """

    table: str
    version: int
    inputs: tuple[Input, ...]
    config: Mapping[str, Any]
    build: Build
    audit: Callable[[DataFrame, Mapping[str, DataFrame]], None] | None = None
    settings: str | None = None
    again: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        refuse_truth((source.table for source in self.inputs), self.table, f"the Spark job {self.table}")

    def resolved_config(self, profile: Profile) -> dict[str, Any]:
        """`config` and the profile's settings of this job, as plain JSON values."""
        section = getattr(profile, self.settings).model_dump(mode="json") if self.settings else {}
        return {**self.config, **section}


def run(job: Job, first: date, last: date, profile: Profile) -> JobReport:
    """Bring the partitions [first, last] of the job's table up to date, and the earlier ones that are due `again`.

    Raises:
        StaleAttempt: the same task was started again in the meantime; nothing was changed.
        DataError: the job's audit refused the rows, or an input was never published; nothing was changed.
    """
    started = time.monotonic()
    lake, ledger = Lake(profile), Ledger(profile)
    snapshots = {source.table: lake.snapshot(source.table) for source in job.inputs}
    inputs = []
    for source in job.inputs:
        snapshot = snapshots[source.table]
        inputs.append(InputFiles(source, [] if snapshot is None else lake.files(source.table, snapshot=snapshot)))
    own = days_between(first, last)
    gaps = _gaps(job, own, ledger)
    asked = [*due_again(first, last, job.again, ledger.committed(job.table)), *own]
    config = job.resolved_config(profile)
    keys = expected_keys(job.table, asked, inputs, config, job.version)
    live = current_keys(lake, ledger, job.table)
    missing = {day: key for day, key in keys.items() if live.get(day) != key}
    contract = load_contract(job.table)
    if not missing:
        ledger.stops.replace(job.table, asked, ())
        return JobReport(job.table, up_to_date=len(asked), messages=gaps, seconds=time.monotonic() - started)
    import_ahead()
    spark = spark_session(profile)
    frames = {i.source.table: read_files(spark, load_contract(i.source.table), i.files(list(missing))) for i in inputs}
    audit = job.audit
    batch = Batch(
        contract=contract,
        frame=job.build(spark, frames, list(missing), config),
        keys=missing,
        inputs=dict.fromkeys(missing, tuple(f"{table}@{at}" for table, at in snapshots.items() if at is not None)),
        config_hash=config_hash(config, job.version),
        up_to_date=len(asked) - len(missing),
        started=started,
        audit=None if audit is None else lambda rows: audit(rows, frames),
    )
    report = commit(batch, lake, ledger)
    ledger.stops.replace(
        job.table, asked, [Stop(one.partition, keys[one.partition], one.why) for one in report.stopped]
    )
    return replace(report, messages=gaps + report.messages)


def read_files(spark: SparkSession, contract: Contract, files: Iterable[DataFile]) -> DataFrame:
    """The rows of these files with the contract's types; no file gives a typed empty frame."""
    paths = [file.path for file in files]
    if not paths:
        # Spark sees from the filter that it is empty, and skips what would be joined to it.
        return spark.createDataFrame([], spark_ddl(contract)).where("false")
    return spark.read.schema(spark_ddl(contract)).parquet(*paths)


def on_days(column: str, days: Iterable[date]) -> Column:
    """Whether the column is one of `days`; as one text, for each literal alone would be a call of the JVM."""
    listed = ", ".join(f"DATE'{day.isoformat()}'" for day in days)
    return F.expr(f"`{column}` IN ({listed})" if listed else "false")


def config_hash(config: Mapping[str, Any], version: int) -> str:
    """Short hash of a job's configuration and version, for the ledger."""
    return hashlib.sha256(json.dumps([config, version], sort_keys=True).encode()).hexdigest()[:16]


def _gaps(job: Job, asked: Sequence[date], ledger: Ledger) -> tuple[str, ...]:
    """A message for every input that lacks days of its own which the asked partitions read.

    Raises:
        DataError: nothing was ever published to an input that is not optional.
    """
    messages = []
    for source in job.inputs:
        committed = ledger.committed(source.table)
        if not committed and source.optional:
            continue
        if not committed:
            raise DataError(
                f"{job.table} is made of {source.table}, and nothing was ever published to that.",
                do=f"Run `python -m spark_jobs {source.table}` for the same days first, and mend what it refuses.",
            )
        if days := uncommitted(source, asked, committed):
            messages.append(f"{job.table}: built without {source.table} of {some_of(days)}: not committed yet")
    return tuple(messages)
