"""Signals: who has just done something that calls for new hints, with what they did last (AIGQ u2q, section 2.7).

Landing files of events and searches are read as they come (`spark_jobs.stream`), by the reader and the rules of the
ingest, which keeps all that is refused; here it is counted and told. Of each person and batch the newest event that
calls for hints is a signal, unless it lies within the cool-down behind their last one, or before it; an event that
comes later than `late_minutes` behind the newest of the stream calls for none, and is told among the behaviours like
any other (all INFERRED; the paper says only that there is a module that watches).

What the files hold of the last days is kept beside the stream's checkpoint: the tables do not have it before the day is
ingested. Ids are digests of what was done, and a row that is there stays: a batch that is read again after a kill, and
an event that is delivered twice, change nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from common.folders import make_folder
from infra.contracts import load_contract
from infra.lake import Lake, current_keys
from infra.ledger import Ledger
from infra.partitions import run_key
from infra.profile import Profile
from infra.quality import import_ahead
from infra.quality.rules import rules_of
from spark_jobs.behaviours import behaviours, with_last
from spark_jobs.engine.commit import Batch, JobReport, commit
from spark_jobs.engine.job import config_hash, on_days, read_files
from spark_jobs.engine.row_checks import CheckedRows, mask
from spark_jobs.engine.spark import spark_session
from spark_jobs.engine.staging import SOURCE_FILE
from spark_jobs.ingest.catalogue import Catalogue
from spark_jobs.ingest.reading import read_landing
from spark_jobs.ingest.typing_rules import typed_rows, typing_rules
from spark_jobs.landing.files import LandingFile
from spark_jobs.landing.read import TALLY, tally_of
from spark_jobs.landing.tables import TABLES, Landed
from spark_jobs.stream import LandingStream, NewFiles

TABLE, VERSION = "signals", 1
CONFIG: Mapping[str, Any] = {
    "actions": ["view", "click", "cart", "purchase", "search"],
    "cool_down_minutes": 10,
    "late_minutes": 1440,
    "length": 50,
    "lookback_days": 30,
    "longest": 120,
    "kept_days": 3,  # that files are kept for, behind the newest event: so long the ingest may take
}
_DONE = pa.schema(
    {
        "user_id": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "action": pa.string(),
        "content": pa.string(),
    }
)
_EPOCH = datetime.fromtimestamp(0, UTC)


def stream_of(profile: Profile) -> LandingStream:
    """The stream that signals are read from, with all that it keeps."""
    return LandingStream(profile.landing, ("events", "searches"), profile.home / "streams" / TABLE)


def update(profile: Profile, config: Mapping[str, Any] = CONFIG) -> JobReport:
    """Find the signals in the files that have landed since; Spark starts only where there is one.

    Raises:
        DataError: no item was ever ingested.
        TransientError: another process reads the stream.
    """
    started, stream = time.monotonic(), stream_of(profile)
    with stream.alone():
        listing = stream.listing()
        told = tuple(f"{TABLE}: {line}" for line in [stream.changed(listing)] if line)
        if listing == stream.seen():
            return JobReport(TABLE, messages=(f"{TABLE}: nothing new has landed; read nothing",))
        import_ahead()
        reader = _Reader(profile, spark_session(profile), stream.folder, config, started)
        stream.each(reader.spark, reader.read)
        stream.remember(listing)
    return reader.report(told)


def build(
    new: DataFrame, done: DataFrame, signals: DataFrame, newest: datetime, config: Mapping[str, Any]
) -> DataFrame:
    """The signals of a batch.

    Args:
        new: behaviours (`user_id`, `time`, `action`, `content`) of the batch.
        done: all that are known, those of the batch among them, each once.
        signals: those that there are, of each person at least the newest.
        newest: when the newest behaviour of the stream was.
    """
    floor = F.lit(newest - timedelta(minutes=config["late_minutes"]))
    calls = F.col("action").isin(*config["actions"]) & (F.col("time") >= floor) & (F.col("content") != "")
    order = Window.partitionBy("user_id").orderBy(*(F.desc(name) for name in ("time", "action", "content")))
    last = new.where(calls).withColumn("place", F.row_number().over(order)).where("place = 1")
    before = signals.groupBy("user_id").agg(F.max("signal_time").alias("before"))
    rest = F.make_interval(mins=F.lit(config["cool_down_minutes"]))
    kept = last.join(before, "user_id", "left").where(F.isnull("before") | (F.col("time") >= F.col("before") + rest))
    digest = F.sha2(F.concat_ws("\x1f", "user_id", F.unix_micros("time").cast("string"), "action", "content"), 256)
    called = kept.select(
        F.to_date("time").alias("signal_date"),
        "user_id",
        digest.alias("signal_id"),
        F.col("time").alias("signal_time"),
        *("action", "content"),
        F.timestamp_micros(F.unix_micros("time") + 1).alias("as_of"),
    ).localCheckpoint()
    theirs = done.join(F.broadcast(called.select("user_id").distinct()), "user_id", "left_semi")
    known = with_last(called, theirs, config["length"], config["lookback_days"])
    return known.select(*load_contract(TABLE).names)


@dataclass
class _Reader:
    """Batch after batch of the stream, and what is to be told of them."""

    profile: Profile
    spark: SparkSession
    folder: Path
    config: Mapping[str, Any]
    started: float
    reports: list[JobReport] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def read(self, files: NewFiles) -> None:
        """One batch: behaviours are kept first, then signals published; both may be done again."""
        lake = Lake(self.profile)
        typed = {
            table: checked
            for table, names in files.names.items()
            if names and (checked := self._typed(lake, TABLES[table], names, files.written))
        }
        try:
            new = self._new(typed)
            latest = new.agg(F.max(F.unix_micros("time"))).first()
            if latest is not None and latest[0] is not None:
                self._publish(lake, *self._keep(files.number, new, latest[0]), files)
        finally:
            for checked in typed.values():
                checked.frame.unpersist()

    def report(self, told: Sequence[str]) -> JobReport:
        """All batches as one."""
        published = tuple(write for report in self.reports for write in report.published)
        stopped = tuple(stop for report in self.reports for stop in report.stopped)
        lines = [*told, *self.messages, *(line for report in self.reports for line in report.messages)]
        seconds = time.monotonic() - self.started
        return JobReport(TABLE, published=published, stopped=stopped, messages=tuple(lines), seconds=seconds)

    def _typed(self, lake: Lake, landed: Landed, names: Sequence[str], written: datetime) -> CheckedRows | None:
        """The rows of files that can be used, judged as the ingest judges them; None without any.

        What is not yet, to the ingest, is here what is later than the newest file: a batch that is read again after a
        kill is judged alike.
        """
        files = [LandingFile(name, self.profile.landing / name, "") for name in names]
        written += timedelta(seconds=1)  # Spark tells the second that a file was written in
        raw = typed_rows(read_landing(self.spark, files, landed.wanted), landed, written)
        # Files that come every few seconds are many and small: a task for each costs more than its rows.
        raw = raw.coalesce(self.spark.sparkContext.defaultParallelism).persist(StorageLevel.MEMORY_AND_DISK)
        partition, days, unusable = landed.contract.partition, set[date](), set[str]()
        for name, tally, day in raw.select(SOURCE_FILE, TALLY, partition).distinct().collect():
            if tally is None:
                days.add(day)
            elif problem := tally_of(tally).problem:
                unusable.add(name)
                self._say(f"{landed.table}: {' '.join(str(problem).split())}")
        self._say(f"{landed.table}: {len(files) - len(unusable)} new landing files")
        if not days:
            return None
        rows = raw.where(raw[TALLY].isNull() & ~raw[SOURCE_FILE].isin(*unusable, "")).drop(TALLY)
        catalogue = Catalogue(lake, landed)
        marked = catalogue.mark(self.spark, rows, partition, sorted(days))
        rules = (*typing_rules(landed, written), *catalogue.rules, *rules_of(landed.contract))
        checked = mask(marked, rules)
        checked.frame.persist(StorageLevel.MEMORY_AND_DISK)
        raw.unpersist()
        self._tell_refused(landed.table, checked)
        return checked

    def _tell_refused(self, table: str, checked: CheckedRows) -> None:
        refused = checked.frame.where(checked.refused).groupBy(checked.first_broken.alias("rule")).count().collect()
        for rule, count in sorted(map(tuple, refused)):
            self._say(f"{table}: {count} rows refused by rule {rule}; ingest puts them into quarantine")

    def _say(self, line: str) -> None:
        self.messages.append(line)

    def _new(self, typed: Mapping[str, CheckedRows]) -> DataFrame:
        """The behaviours of a batch, each once."""
        none = {name: read_files(self.spark, load_contract(name), []) for name in ("events", "searches")}
        good = {name: checked.frame.where(~checked.refused) for name, checked in typed.items()}
        frames = {**none, **good}
        return behaviours(frames["events"], frames["searches"], self.config["longest"]).distinct()

    def _keep(self, number: int, new: DataFrame, latest: int) -> tuple[DataFrame, datetime]:
        """The new behaviours, kept in a file of the batch's number, and when the newest of the stream was; `latest`:
        of the batch, in microseconds. Files without a behaviour of the days that are kept go."""
        folder = make_folder(self.folder / "behaviours")
        before = {file: int(json.loads(file.read_text())) for file in folder.glob("*.json")}
        newest = max([latest, *before.values()])
        moment = _EPOCH + timedelta(microseconds=newest)
        floor = moment - timedelta(days=self.config["kept_days"])
        rows = new.where(F.col("time") >= F.lit(floor)).toArrow().cast(_DONE)
        late = pc.sum(pc.less(rows["time"], pa.scalar(self._on_time(moment), _DONE.field("time").type))).as_py() or 0
        if late:
            self._say(f"{late} behaviours came late: they are told, and call for no hints")
        _written(folder / f"{number:09d}.parquet", lambda draft: pq.write_table(rows, draft))
        _written(folder / f"{number:09d}.json", lambda draft: draft.write_text(json.dumps(newest)))
        for file, its_newest in before.items():
            if _EPOCH + timedelta(microseconds=its_newest) < floor:
                file.with_suffix(".parquet").unlink(missing_ok=True)
                file.unlink()
        return self.spark.createDataFrame(rows), moment

    def _on_time(self, newest: datetime) -> datetime:
        return newest - timedelta(minutes=self.config["late_minutes"])

    def _publish(self, lake: Lake, new: DataFrame, newest: datetime, files: NewFiles) -> None:
        ledger, contract = Ledger(self.profile), load_contract(TABLE)
        first = self._on_time(newest) - timedelta(minutes=self.config["cool_down_minutes"])
        there = read_files(self.spark, contract, lake.files(TABLE, first=first.date()))
        fresh = build(new, self._done(lake, newest), there, newest, self.config).toArrow()
        days, ids = sorted(set(fresh["signal_date"].to_pylist())), sorted(fresh["signal_id"].to_pylist())
        self._say(f"{TABLE}: {len(ids)} new, the newest event of the stream is of {newest:%Y-%m-%d %H:%M:%S}")
        if not days:
            return
        live = current_keys(lake, ledger, TABLE)
        names = tuple(f"landing/{name}" for own in files.names.values() for name in own)
        batch = Batch(
            contract=contract,
            frame=there.where(on_days("signal_date", days)).unionByName(self.spark.createDataFrame(fresh)),
            keys={day: run_key(TABLE, day, [live.get(day, ""), *ids], self.config, VERSION) for day in days},
            inputs=dict.fromkeys(days, names),
            config_hash=config_hash(self.config, VERSION),
            up_to_date=0,
            started=self.started,
        )
        self.reports.append(commit(batch, lake, ledger))

    def _done(self, lake: Lake, newest: datetime) -> DataFrame:
        """All that is known of the last days, each once: of the tables, and of the files that were kept."""
        since = (newest - timedelta(days=self.config["lookback_days"])).date()
        events, searches = (
            read_files(self.spark, load_contract(name), lake.files(name, first=since))
            for name in ("events", "searches")
        )
        kept = [str(file) for file in sorted((self.folder / "behaviours").glob("*.parquet"))]
        landed = self.spark.read.parquet(*kept).select(*_DONE.names)
        return behaviours(events, searches, self.config["longest"]).unionByName(landed).distinct()


def _written(file: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all."""
    draft = file.with_name(f"{file.name}.draft")
    write(draft)
    draft.replace(file)
