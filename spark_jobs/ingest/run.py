"""Bring a landed table up to date with the landing folder: only partitions whose files changed are read again.

The ledger remembers, for every landing file, its content hash and the days its rows belong to. A partition's run key is
made of the hashes of the files that hold rows of it. A file that is gone or broken freezes its days: their old version
stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from infra.contracts import UNDATED
from infra.errors import DataError
from infra.lake import Lake, current_keys
from infra.ledger import Ledger
from infra.partitions import run_key
from infra.profile import Profile
from infra.quality import import_ahead
from spark_jobs.commit import Batch, JobReport, Stopped, commit
from spark_jobs.ingest.catalogue import Catalogue
from spark_jobs.ingest.holdings import Holdings, take_stock
from spark_jobs.ingest.landing import LandingFile, ReadableFile, damage, inspect, landing_files
from spark_jobs.ingest.reading import landing_session, read_raw
from spark_jobs.ingest.tables import TABLES, Landed
from spark_jobs.ingest.typing_rules import typed_rows, typing_rules
from spark_jobs.job import config_hash
from spark_jobs.plan import days_between
from spark_jobs.session import spark_session
from spark_jobs.staging import SOURCE_FILE, SOURCE_ROW

VERSION = 1
_LOG = logging.getLogger("plumbline.ingest")


def ingest(table: str, profile: Profile, first: date | None = None, last: date | None = None) -> JobReport:
    """Ingest what is new in the landing folder; with a range, only its days (and undated rows).

    Days of the range on which nothing happened are committed as empty partitions.

    Raises:
        DataError: there is no file of the table, or the items it refers to are not there.
        StaleAttempt: the same task was started again in the meantime; nothing was changed.
    """
    return _Ingest(TABLES[table], profile, datetime.now(UTC), time.monotonic()).run(first, last)


@dataclass(frozen=True)
class _Fresh:
    """New files, read: the days of each content (by hash), and their rows, persisted. `problems`: files left out."""

    files: tuple[LandingFile, ...] = ()
    days: Mapping[str, frozenset[date]] = field(default_factory=dict)
    rows: DataFrame | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Ingest:
    table: Landed
    profile: Profile
    now: datetime
    started: float

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.profile)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.profile)

    @cached_property
    def spark(self) -> SparkSession:
        import_ahead()
        return landing_session(spark_session(self.profile))

    @cached_property
    def catalogue(self) -> Catalogue | None:
        return Catalogue(self.lake, self.table.table) if self.table.refers_to_items else None

    def run(self, first: date | None, last: date | None) -> JobReport:
        name = self.table.table
        present = landing_files(self.profile.landing, name)
        remembered = self.ledger.landing_files(name)
        if not present and not remembered:
            return self._nothing_landed()
        known = {entry.sha256 for entry in remembered}
        fresh = self._fresh([file for file in present if file.sha256 not in known])
        try:
            readable = [file for file in present if file.sha256 in known or file.sha256 in fresh.days]
            stock = take_stock(readable, remembered, fresh.days)
            report = replace(self._bring_up_to_date(stock, fresh, first, last), problems=fresh.problems)
        finally:
            if fresh.rows is not None:
                fresh.rows.unpersist()
        for file in fresh.files:
            self.ledger.record_landing_file(name, file.name, file.sha256, fresh.days[file.sha256])
        return report

    def _nothing_landed(self) -> JobReport:
        name, folder = self.table.table, self.profile.landing
        if self.table.needed_always:
            raise DataError(
                f"There is no landing file of {name}.",
                where=str(folder),
                do=f"Put {name}.csv, .jsonl or .parquet there, or a folder {name}/ of such files.",
            )
        return JobReport(name, messages=(f"{name}: no landing file; nothing to do",))

    def _fresh(self, files: Sequence[LandingFile]) -> _Fresh:
        """Read new files, all of each and once; those that turn out to be unusable are named and left out."""
        usable: list[ReadableFile] = []
        problems: list[str] = []
        for file in files:
            try:
                usable.append(inspect(file, self.table))
            except DataError as error:
                problems.append(str(error))
        try:
            return self._read(usable, problems)
        except (PySparkException, Py4JJavaError):  # which of the two, depends on where Spark gave up
            damaged = {file.file.name: str(fault) for file in usable if (fault := damage(file))}
            if not damaged:
                raise
        sound = [file for file in usable if file.file.name not in damaged]
        return self._read(sound, [*problems, *damaged.values()])

    def _read(self, files: Sequence[ReadableFile], problems: Sequence[str]) -> _Fresh:
        if not files:
            return _Fresh(problems=tuple(problems))
        _LOG.info("%s: reading %d new files", self.table.table, len(files))
        rows = self._rows(files).persist(StorageLevel.MEMORY_AND_DISK)
        found: dict[str, set[date]] = {file.file.name: set() for file in files}
        for row in rows.select(SOURCE_FILE, self.table.contract.partition).distinct().collect():
            found[row[0]].add(row[1])
        days = {file.file.sha256: frozenset(found[file.file.name]) for file in files}
        return _Fresh(tuple(file.file for file in files), days, rows, tuple(problems))

    def _rows(self, files: Sequence[ReadableFile]) -> DataFrame:
        raw = read_raw(self.spark, files, self.table.accepted, self.profile.landing)
        return typed_rows(raw, self.table, self.now)

    def _rows_of(self, files: Sequence[LandingFile], fresh: _Fresh) -> DataFrame:
        """The rows of these files: of the new ones as they were read, of the others read again."""
        old = [inspect(file, self.table) for file in files if file not in fresh.files]
        if fresh.rows is None:
            return self._rows(old)
        new = fresh.rows.where(fresh.rows[SOURCE_FILE].isin([file.name for file in files]))
        return new.unionByName(self._rows(old)) if old else new

    def _bring_up_to_date(self, stock: Holdings, fresh: _Fresh, first: date | None, last: date | None) -> JobReport:
        name = self.table.table
        days = stock.days if fresh.problems else [*stock.days, *self._quiet_days(stock, first, last)]
        keys = {day: self._key(day, stock) for day in days}
        live = current_keys(self.lake, self.ledger, name)
        missing = {day: key for day, key in keys.items() if live.get(day) != key and _asked(day, first, last)}
        stuck = tuple(
            Stopped(day, f"{lost} holds rows of it and is gone or unreadable; put it back")
            for day in missing
            if (lost := stock.out_of_reach(day))
        )
        todo = {day: key for day, key in missing.items() if day not in {stop.partition for stop in stuck}}
        up_to_date = len(keys) - len(missing)
        if not todo:
            seconds = time.monotonic() - self.started
            message = f"{name}: nothing new in {len(stock.contents)} landing files; read nothing"
            return JobReport(name, up_to_date, stopped=stuck, messages=() if stuck else (message,), seconds=seconds)
        report = self._commit(stock, fresh, todo, up_to_date)
        return replace(report, stopped=report.stopped + stuck)

    def _quiet_days(self, stock: Holdings, first: date | None, last: date | None) -> list[date]:
        """Days of the range on which nothing happened: rows of a later day have landed, so they are not just late."""
        if first is None or last is None or not self.table.has_quiet_days or not stock.days:
            return []
        return sorted(set(days_between(first, min(last, max(stock.days)))) - set(stock.days))

    def _key(self, day: date, stock: Holdings) -> str:
        contents = [holding.sha256 for holding in stock.of(day)]
        catalogue = self.catalogue.inputs(day) if self.catalogue and contents else []
        return run_key(self.table.table, day, contents + catalogue, {}, VERSION)

    def _commit(self, stock: Holdings, fresh: _Fresh, todo: dict[date, str], up_to_date: int) -> JobReport:
        contract, files = self.table.contract, stock.files(todo)
        _LOG.info("%s: building %d partitions of %d files", contract.table, len(todo), len(files))
        rows = self._rows_of(files, fresh)
        rows = rows.where(rows[contract.partition].isin(list(todo)))
        if self.catalogue:
            rows = self.catalogue.mark(self.spark, rows, contract.partition, list(todo))
        batch = Batch(
            contract=contract,
            frame=rows,
            keys=todo,
            inputs={day: tuple(f"{h.name}#{h.sha256[:12]}" for h in stock.of(day)) for day in todo},
            config_hash=config_hash({}, VERSION),
            up_to_date=up_to_date,
            started=self.started,
            rules=typing_rules(self.table, self.now),
            tie_break=(SOURCE_FILE, SOURCE_ROW),
            landed=True,
        )
        return commit(batch, self.lake, self.ledger)


def _asked(day: date, first: date | None, last: date | None) -> bool:
    return day == UNDATED or ((first is None or day >= first) and (last is None or day <= last))
