"""Which files a partition is made of, which run key follows, and so what is missing. Pure: no Spark, no clock.

A look-back since ever over 760 days would make 760 x 760 paths. Digests of the prefixes make it one hash a day.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from infra.contracts import UNDATED
from infra.partitions import DataFile, run_key


@dataclass(frozen=True)
class Input:
    """What partition `p` reads of a table: the files of [p - lookback_days, p - lag_days + ahead_days], both inclusive.

    `lookback_days=None` reads since ever. `latest` is for catalogues: only the newest partition up to `p - lag_days`.
    `ahead_days` is for what is learnt of a day afterwards; who reads ahead is to be built again (`Job.again`).
    `optional`: a table that a shop may not have; it is empty where nothing was ever published to it.
    """

    table: str
    lookback_days: int | None = 0
    lag_days: int = 0
    ahead_days: int = 0
    latest: bool = False
    optional: bool = False


class InputFiles:
    """The live files of one input, by day, with their prefix digests."""

    def __init__(self, source: Input, files: Sequence[DataFile]) -> None:
        by_day: dict[date, list[DataFile]] = {}
        for file in files:
            by_day.setdefault(file.partition, []).append(file)
        self.source = source
        self._days = sorted(by_day)
        self._files = [sorted(by_day[day], key=lambda f: f.path) for day in self._days]
        self._own = []
        for day_files in self._files:
            # The place of the warehouse is not part of what the data is.
            names = [f"{file.partition}/{file.run_key}/{file.path.rsplit('/', 1)[-1]}" for file in day_files]
            self._own.append(hashlib.sha256("\n".join(names).encode()).hexdigest())
        self._prefix = _running_digests(self._own)

    def span(self, partition: date) -> range:
        """Positions of the days that `partition` reads."""
        newest = partition - timedelta(days=self.source.lag_days)
        if self.source.latest:
            stop = bisect_right(self._days, newest)
            return range(max(0, stop - 1), stop)
        stop = bisect_right(self._days, newest + timedelta(days=self.source.ahead_days))
        if self.source.lookback_days is None:
            return range(0, stop)
        back = timedelta(days=self.source.lookback_days)
        first = partition - back if partition - UNDATED > back else date.min
        return range(bisect_left(self._days, first), stop)

    def digest(self, partition: date) -> str:
        """Stands for the paths of all files that `partition` reads; equal when and only when they are."""
        span = self.span(partition)
        if self.source.lookback_days is None and not self.source.latest:
            return f"{self.source.table}:since-ever:{self._prefix[span.stop]}"
        content = "\n".join(self._own[i] for i in span)
        return f"{self.source.table}:{hashlib.sha256(content.encode()).hexdigest()}"

    def files(self, partitions: Sequence[date]) -> list[DataFile]:
        """The files that any of `partitions` reads, each once, in order of day and path."""
        wanted = {position for partition in partitions for position in self.span(partition)}
        return [file for position in sorted(wanted) for file in self._files[position]]


def expected_keys(
    table: str, partitions: Sequence[date], inputs: Sequence[InputFiles], config: Mapping[str, Any], version: int
) -> dict[date, str]:
    """The run key that each partition would have if it were built now."""
    return {day: run_key(table, day, [i.digest(day) for i in inputs], config, version) for day in partitions}


def uncommitted(source: Input, asked: Sequence[date], committed: Collection[date]) -> list[date]:
    """The newest day that each asked partition reads of `source` but for days ahead, where it is not committed.

    Days further back concern the partitions that were built on those days, and days ahead need not be over. A
    catalogue has only the days of its deliveries, so it lacks none.
    """
    newest = [] if source.latest else [day - timedelta(days=source.lag_days) for day in asked]
    return [day for day in newest if day not in committed]


def days_between(first: date, last: date) -> list[date]:
    """All days of [first, last]."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _running_digests(own: Sequence[str]) -> list[str]:
    running = hashlib.sha256()
    digests = [running.hexdigest()]
    for digest in own:
        running.update(digest.encode())
        digests.append(running.hexdigest())
    return digests
