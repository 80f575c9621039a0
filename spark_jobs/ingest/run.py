"""Bring a landed table up to date with the landing folder: only partitions whose files changed are read again.

The ledger remembers, for every landing file, its content hash, the records that it holds, and the days its rows belong
to. A partition's run key is made of the hashes of the files that hold rows of it. A file that is gone or broken freezes
its days: their old version stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from common.sentences import some_of
from infra.contracts import UNDATED, quarantine_contract
from infra.lake import Lake, current_keys
from infra.ledger import Ledger, Stop, named_input, named_inputs
from infra.partitions import QUARANTINE_SUFFIX, run_key, stand_in
from infra.profile import Profile, code_commit
from infra.quality import import_ahead
from spark_jobs.engine.commit import Batch, JobReport, Stopped, commit
from spark_jobs.engine.job import config_hash, on_days, read_files
from spark_jobs.engine.plan import days_between
from spark_jobs.engine.spark import spark_session
from spark_jobs.engine.staging import JUDGED, SOURCE_FILE, SOURCE_JSON, SOURCE_ROW
from spark_jobs.ingest.catalogue import Catalogue
from spark_jobs.ingest.fresh import Fresh, FreshReader, content_of
from spark_jobs.ingest.holdings import Holdings, memory, take_stock
from spark_jobs.ingest.reading import read_landing
from spark_jobs.ingest.typing_rules import typed_rows, typing_rules
from spark_jobs.landing.files import Found, LandingFile, landing_files, nothing_landed
from spark_jobs.landing.read import TALLY
from spark_jobs.landing.tables import TABLES, Landed

VERSION = 2
_LOG = logging.getLogger("plumbline.ingest")


def ingest(table: str, profile: Profile, first: date | None = None, last: date | None = None) -> JobReport:
    """Ingest what is new in the landing folder; with a range, only its days, undated rows, and late rows.

    Late rows are those of a day before the range that is committed already: the day is built again. Days of the range
    on which nothing happened are committed as empty partitions.

    Raises:
        DataError: there is no file of the table, or the items it refers to are not there.
        StaleAttempt: the same task was started again in the meantime; nothing was changed.
    """
    return _Ingest(TABLES[table], profile, datetime.now(UTC), time.monotonic()).run(first, last)


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
        return spark_session(self.profile)

    @cached_property
    def catalogue(self) -> Catalogue | None:
        return Catalogue(self.lake, self.table) if self.table.refers_to_items else None

    @cached_property
    def judge(self) -> str:
        """Stands for the code and the contract that read and judge: what they have refused they refuse again."""
        parts = [VERSION, code_commit(self.profile), repr(self.table.contract)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def run(self, first: date | None, last: date | None) -> JobReport:
        name = self.table.table
        found = landing_files(self.profile.landing, name)
        remembered = self.ledger.landings.files(name)
        if not found.files and not found.problems and not remembered:
            return self._nothing_landed()
        known, names = set(map(content_of, remembered)), {entry.name for entry in remembered}
        reader = FreshReader(self.table, self.judge, self.ledger.landings.left_out(name), self._rows)
        fresh = reader.read(found, known, names)
        try:
            contents = known | set(map(content_of, fresh.contents.values()))
            readable = [file for file in found.files if content_of(file) in contents]
            used = {day: named_inputs(commit.inputs) for day, commit in self.ledger.committed(name).items()}
            stock = take_stock(readable, remembered, fresh.days, used)
            # Before anything is published: a content that a commit names and nobody remembers counts as replaced.
            self.ledger.landings.record(name, *memory(stock, remembered, fresh.contents.values()))
            self.ledger.landings.record_left_out(name, fresh.left_out)
            report = self._bring_up_to_date(stock, fresh, first, last)
        finally:
            if fresh.rows is not None:
                fresh.rows.unpersist()
        waiting = {one.day: one.files for one in self.ledger.unsettled(name)} if report.stopped else {}
        return replace(
            report,
            stopped=tuple(
                replace(stop, files=waiting.get(stop.partition, ()))
                for stop in sorted(report.stopped, key=lambda stop: stop.partition)
            ),
            problems=tuple(file.problem for file in fresh.left_out),
            messages=(*fresh.messages(name), *self._forgotten(stock, found), *report.messages),
        )

    def _forgotten(self, stock: Holdings, found: Found) -> Iterator[str]:
        delivered_again = found.problems.keys() | {file.name for file in found.files}
        for name, days in stock.forgotten.items():
            if name not in delivered_again:
                yield f"{self.table.table}: {name} is gone; nothing of it was in the table of {some_of(days)}"

    def _nothing_landed(self) -> JobReport:
        name = self.table.table
        if self.table.needed_always:
            raise nothing_landed(self.profile.landing, name)
        return JobReport(name, messages=(f"{name}: no landing file; nothing to do",))

    def _rows(self, files: Sequence[LandingFile]) -> DataFrame:
        """All rows of these files, and a tally for each."""
        return typed_rows(read_landing(self.spark, files, self.table.wanted), self.table, self.now)

    def _rows_of(self, files: Sequence[LandingFile], fresh: Fresh) -> DataFrame:
        """The rows of these files: of the new ones as they were read, of the others read again."""
        rows = self._rows([file for file in files if file.sha256 not in fresh.contents])
        if fresh.rows is not None:
            rows = rows.unionByName(fresh.rows.where(fresh.rows[SOURCE_FILE].isin([file.name for file in files])))
        return rows.where(rows[TALLY].isNull()).drop(TALLY)

    def _bring_up_to_date(self, stock: Holdings, fresh: Fresh, first: date | None, last: date | None) -> JobReport:
        name = self.table.table
        days = stock.days if fresh.left_out else [*stock.days, *self._quiet_days(stock, first, last)]
        keys = {day: self._key(day, stock) for day in days}
        live = current_keys(self.lake, self.ledger, name)
        late = {day for day in self._late(stock, first) if live.get(day) != keys[day]}
        low, high = first or date.min, last or date.max
        asked = late.union(day for day in keys if day == UNDATED or low <= day <= high)
        other = {day for day, key in keys.items() if live.get(day) not in (key, stand_in(key))}
        missing = {day: key for day, key in keys.items() if day in asked and live.get(day) != key}
        report = self._report(stock, fresh, missing, len(asked) - len(missing), has_version=bool(live))
        stops = [
            Stop(day, keys[day], stop.why, "" if stock.out_of_reach(day) else self.judge, _inputs(stock, day))
            for stop in report.stopped
            for day in [stop.partition]
        ]
        settled = {day for day, key in keys.items() if live.get(day) == key}
        passed_over = self._passed_over(stock, keys, other - asked)
        self.ledger.stops.replace(name, {*asked, *settled, *(stop.day for stop in passed_over)}, [*stops, *passed_over])
        again = sorted(late & {write.partition for write in report.published})
        told = tuple(f"{name}: {day} is built again: its landing files have changed since its run" for day in again)
        messages = (*told, *report.messages, *self._waiting(sorted(other - asked)), *self._strangers(report))
        return replace(report, messages=messages)

    def _report(
        self, stock: Holdings, fresh: Fresh, missing: Mapping[date, str], up_to_date: int, *, has_version: bool
    ) -> JobReport:
        """Build the missing days, but for those that a file out of reach is needed for.

        Where all that is to be built was stopped before, by the same rules, it is told again and nothing is read.
        """
        stuck = {day: lost for day in missing if (lost := stock.out_of_reach(day))}
        stopped = [
            Stopped(day, f"{lost} holds rows of it and is gone or unreadable; put it back")
            for day, lost in stuck.items()
        ]
        todo = {day: key for day, key in missing.items() if day not in stuck}
        if has_version or not self.table.stands_in:
            known = self.ledger.stops.of(self.table.table)
            judged = [
                stop
                for day, key in todo.items()
                if (stop := known.get(day)) and (stop.run_key, stop.judge) == (key, self.judge)
            ]
            if len(judged) == len(todo):
                stopped += [Stopped(stop.day, stop.why) for stop in judged]
                todo = {}
        if todo:
            report = self._commit(stock, fresh, todo, up_to_date)
            return replace(report, stopped=(*report.stopped, *stopped))
        name, seconds = self.table.table, time.monotonic() - self.started
        message = f"{name}: nothing new in {len(stock.contents)} landing files; read nothing"
        if fresh.contents:
            message = f"{name}: {len(fresh.contents)} new landing files hold no row of a day that was asked for"
        return JobReport(name, up_to_date, stopped=tuple(stopped), messages=(message,), seconds=seconds)

    def _passed_over(self, stock: Holdings, keys: Mapping[date, str], days: Set[date]) -> list[Stop]:
        """Of days that would be built otherwise now, and that nobody asked for, those whose files have not changed."""
        committed = self.ledger.committed(self.table.table)
        return [
            Stop(day, keys[day], "built with an earlier catalogue or ingest", "", inputs)
            for day in sorted(days & committed.keys())
            if _contents(inputs := _inputs(stock, day)) == _contents(committed[day].inputs)
        ]

    def _waiting(self, days: Sequence[date]) -> tuple[str, ...]:
        """What nobody asked for and is not up to date, and how to ask for it."""
        if not days:
            return ()
        name, first, last = self.table.table, days[0], days[-1]
        number = f"{first} is" if first == last else f"{len(days)} days from {first} to {last} are"
        command = f"`python -m spark_jobs {name} --from {first} --partition {last}`"
        return (f"{name}: {number} not up to date, and outside of the range; {command} builds what is missing",)

    def _strangers(self, report: JobReport) -> Iterator[str]:
        """Where days were stopped while a delivery of items is stopped too, that may be the cause."""
        items = self.ledger.unsettled("items") if self.catalogue and report.stopped else []
        if days := [one.day for one in items if one.why]:
            yield f"{self.table.table}: items of {some_of(days)} were stopped: rows of new items are refused until then"

    def _late(self, stock: Holdings, first: date | None) -> list[date]:
        """Committed days before the range whose landing files are not those that they were made of."""
        if first is None:
            return []
        committed = self.ledger.committed(self.table.table)
        closed = [day for day in stock.days if day < first and day != UNDATED and day in committed]
        return [day for day in closed if _contents(committed[day].inputs) != _contents(_inputs(stock, day))]

    def _quiet_days(self, stock: Holdings, first: date | None, last: date | None) -> list[date]:
        """Days of the range on which nothing happened: rows of a later day have landed, so they are not just late."""
        if first is None or last is None or not self.table.has_quiet_days or not stock.days:
            return []
        return sorted(set(days_between(first, min(last, max(stock.days)))) - set(stock.days))

    def _key(self, day: date, stock: Holdings) -> str:
        contents = [holding.sha256 for holding in stock.of(day)]
        catalogue = self.catalogue.inputs(day) if self.catalogue and contents else []
        return run_key(self.table.table, day, contents + catalogue, {}, VERSION)

    def _commit(self, stock: Holdings, fresh: Fresh, todo: dict[date, str], up_to_date: int) -> JobReport:
        contract, files = self.table.contract, stock.files(todo)
        _LOG.info("%s: building %d partitions of %d files", contract.table, len(todo), len(files))
        rows = self._rows_of(files, fresh)
        rows, rules = rows.where(on_days(contract.partition, todo)), typing_rules(self.table, self.now)
        if self.catalogue:
            rows = self.catalogue.mark(self.spark, rows, contract.partition, list(todo))
            rules = (*rules, *self.catalogue.rules)
        if UNDATED in todo:
            rows = self._mark_judged(rows)
        batch = Batch(
            contract=contract,
            frame=rows,
            keys=todo,
            inputs={day: _inputs(stock, day) for day in todo},
            config_hash=config_hash({}, VERSION),
            up_to_date=up_to_date,
            started=self.started,
            rules=rules,
            tie_break=(SOURCE_FILE, SOURCE_ROW),
            landed=True,
            needed=self.table.stands_in,
        )
        return commit(batch, self.lake, self.ledger)

    def _mark_judged(self, rows: DataFrame) -> DataFrame:
        """Add `JUDGED`, true for the undated rows that the live version refused."""
        quarantine = f"{self.table.table}{QUARANTINE_SUFFIX}"
        files = [file for file in self.lake.files(quarantine) if file.partition == UNDATED]
        before = read_files(self.spark, quarantine_contract(self.table.contract), files)
        place = {"source_file": SOURCE_FILE, "source_row": SOURCE_ROW, "row_json": SOURCE_JSON}
        judged = before.select(*[before[name].alias(column) for name, column in place.items()]).distinct()
        return rows.join(judged.withColumn(JUDGED, F.lit(True)), list(place.values()), "left")


def _inputs(stock: Holdings, day: date) -> tuple[str, ...]:
    return tuple(named_input(holding.name, holding.sha256) for holding in stock.of(day))


def _contents(inputs: Iterable[str]) -> Set[str]:
    return named_inputs(inputs).keys()
