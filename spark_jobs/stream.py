"""The landing folder as a stream: each file of some tables is handed over once, as it comes.

Spark's Structured Streaming lists the files and remembers them (a checkpoint); it parses none, as nowhere here. What a
batch has had is remembered when it is done: killed before, the same files come again under the same number. A file is
known by its path: one that is written to later does not come again, and is told.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pyspark.sql import DataFrame, SparkSession

from common.folders import make_folder
from common.sentences import some_of
from infra.errors import TransientError
from spark_jobs.landing.files import is_hidden, landing_paths

_SHAPE = "path string, modificationTime timestamp, length bigint, content binary"
# Spark would leave out, without a word, what is older than a week beside the newest file.
_ANY_AGE = "36500d"
_GLOB = re.compile(r"([\[\]{}*?\\])")
_BATCHES = "org.apache.spark.sql.execution.streaming.runtime.MicroBatchExecution"
_PROXY_FAILED = "There was an exception while executing the Python Proxy on the Python Side."
Listing = dict[str, list[int]]


@dataclass(frozen=True)
class NewFiles:
    """A batch: its number, from 0, its files by table (names below the landing folder), and when the newest of them
    was written: what a record says of later is no time."""

    number: int
    names: dict[str, list[str]]
    written: datetime


@dataclass(frozen=True)
class LandingStream:
    """The files of `tables` below `landing`; `folder` is where it remembers what was handed over."""

    landing: Path
    tables: Sequence[str]
    folder: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other reader of this stream out. TransientError where there is one."""
        make_folder(self.folder)
        try:
            with FileLock(self.folder / "lock", timeout=0):
                yield
        except Timeout as error:
            raise TransientError(
                "The stream is being read by another process.", where=str(self.folder), do="Wait for it."
            ) from error

    def listing(self) -> Listing:
        """Size and time of change of each file, by name."""
        found = {}
        for table in self.tables:
            for name, path in landing_paths(self.landing, table)[0].items():
                stat = path.stat()
                found[name] = [stat.st_size, stat.st_mtime_ns]
        return found

    def seen(self) -> Listing:
        """The listing that `remember` was given last."""
        file = self.folder / "seen.json"
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def remember(self, listing: Listing) -> None:
        """All of it was handed over: while nothing is added, there is no need to start Spark."""
        draft = self.folder / "seen.json.draft"
        draft.write_text(json.dumps(listing))
        draft.replace(self.folder / "seen.json")

    def each(self, spark: SparkSession, handle: Callable[[NewFiles], None]) -> None:
        """Give all files that are there and were not handed over; what `handle` raises ends it, and comes out."""
        raised: list[Exception] = []

        def batch(frame: DataFrame, number: int) -> None:
            rows = frame.select("path", "modificationTime").collect()
            try:
                if rows:
                    handle(self._new(number, rows))
            except Exception as error:
                raised.append(error)
                raise

        _leave_failures_to_us(spark)
        source = spark.readStream.format("binaryFile").schema(_SHAPE).option("recursiveFileLookup", "true")
        frame = source.option("maxFileAge", _ANY_AGE).load(self._pattern()).select("path", "modificationTime")
        writer = frame.writeStream.foreachBatch(batch).option("checkpointLocation", str(self.folder / "checkpoint"))
        query = writer.trigger(availableNow=True).start()
        try:
            query.awaitTermination()
        except Exception:
            if raised:
                raise raised[0] from None
            raise
        finally:
            query.stop()

    def changed(self, listing: Listing) -> str:
        """A sentence on the files that were written to after they were handed over; empty without any."""
        seen = self.seen()
        names = [name for name, now in listing.items() if name in seen and seen[name] != now]
        if not names:
            return ""
        return f"written to after they were read, and not read again: {some_of(names)}; ingest reads all of them"

    def _pattern(self) -> str:
        places = ",".join(f"{table},{table}.*" for table in self.tables)
        root = _GLOB.sub(r"\\\1", str(self.landing.absolute()))
        return f"file:{root}/{{{places}}}"

    def _new(self, number: int, rows: Sequence[Any]) -> NewFiles:
        names: dict[str, list[str]] = {table: [] for table in self.tables}
        root = str(self.landing.absolute())
        for row in rows:
            name = os.path.relpath("/" + row["path"].removeprefix("file:").lstrip("/"), root)
            if not is_hidden(name):
                names[name.split("/")[0].split(".")[0]].append(name)
        written = max(row["modificationTime"] for row in rows)
        return NewFiles(number, {table: sorted(own) for table, own in names.items()}, _utc(written))


def _leave_failures_to_us(spark: SparkSession) -> None:
    """What a batch raises comes out of `each`: before that py4j and Spark would tell it in two stacks of theirs."""
    logging.getLogger("py4j.clientserver").addFilter(_is_news)
    log4j = spark.sparkContext._jvm.org.apache.logging.log4j
    log4j.core.config.Configurator.setLevel(_BATCHES, log4j.Level.OFF)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg != _PROXY_FAILED


def _utc(moment: datetime) -> datetime:
    """Spark gives times of the machine's zone, without saying so."""
    return datetime.fromtimestamp(moment.timestamp(), UTC)
