"""New contents of the landing folder, each read once; those that turn out to be unusable are named and left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date

from pyspark import StorageLevel
from pyspark.sql import DataFrame

from infra.errors import PlumblineError
from infra.ledger import LandingFile as Remembered
from infra.ledger import LeftOut
from spark_jobs.engine.staging import SOURCE_FILE
from spark_jobs.landing.files import Found, LandingFile, kind_of
from spark_jobs.landing.read import TALLY, Tally, tally_of
from spark_jobs.landing.tables import Landed

_LOG = logging.getLogger("plumbline.ingest")

Content = tuple[str, str | None]


def content_of(file: LandingFile | Remembered) -> Content:
    """What a file holds: its bytes, and what its name says they are. `items.bak` does not stand for `items.csv`."""
    return file.sha256, kind_of(file.name)


@dataclass(frozen=True)
class Fresh:
    """New contents, each read once: what each holds (by hash), and their rows, persisted.

    `left_out` are the files that cannot be used; `copies` are names of files that are equal to another one.
    """

    contents: Mapping[str, Remembered] = field(default_factory=dict)
    rows: DataFrame | None = None
    left_out: Sequence[LeftOut] = ()
    copies: Mapping[str, str] = field(default_factory=dict)

    @property
    def days(self) -> dict[str, frozenset[date]]:
        """The days of each content."""
        return {sha256: frozenset(content.rows) for sha256, content in self.contents.items()}

    def messages(self, table: str) -> tuple[str, ...]:
        """What a person should know beside the problems."""
        return tuple(f"{table}: {name} is equal to {first}: read once" for name, first in sorted(self.copies.items()))


@dataclass(frozen=True)
class FreshReader:
    """Reads what the ledger does not know of a table; `rows` gives the rows of files and a tally for each.

    `reader` stands for the code and the contract that read: what they could not use is not read again.
    """

    table: Landed
    reader: str
    left_out: Sequence[LeftOut]
    rows: Callable[[Sequence[LandingFile]], DataFrame]

    def read(self, found: Found, known: Set[Content], names: Set[str]) -> Fresh:
        """Read the contents of `found` that are not `known`, all of each; `names` are those of the last run."""
        table = self.table.table
        left_out = [LeftOut(table, file, str(problem)) for file, problem in found.problems.items()]
        told = {(one.name, one.sha256): one for one in self.left_out if one.reader == self.reader}
        again = {file.name: told[file.name, file.sha256] for file in found.files if (file.name, file.sha256) in told}
        left_out += again.values()
        unusable = {content_of(file): file.name for file in found.files if file.name in again}
        files = [file for file in found.files if file.name not in again]
        copies = _late_copies([file for file in files if content_of(file) in known], names)
        firsts: dict[Content, LandingFile] = {}
        for file in files:
            content = content_of(file)
            if content in unusable:
                left_out.append(self._twin(file.name, unusable[content]))
            elif content not in known and (first := firsts.setdefault(content, file)) is not file:
                copies[file.name] = first.name
        fresh = self._read(list(firsts.values()), copies) if firsts else Fresh(copies=copies)
        return replace(fresh, left_out=sorted([*left_out, *fresh.left_out], key=lambda one: one.name))

    def _twin(self, name: str, first: str) -> LeftOut:
        return LeftOut(self.table.table, name, f"{name} is equal to {first}, which is left out.")

    def _read(self, files: Sequence[LandingFile], copies: Mapping[str, str]) -> Fresh:
        _LOG.info("%s: reading %d new files", self.table.table, len(files))
        rows = self.rows(files).persist(StorageLevel.MEMORY_AND_DISK)
        per_day: dict[str, dict[date, int]] = {file.name: {} for file in files}
        tallies: dict[str, Tally] = {}
        for name, tally, day, count in (
            rows.groupBy(SOURCE_FILE, TALLY, self.table.contract.partition).count().collect()
        ):
            if tally is None:
                per_day[name][day] = count
            else:
                tallies[name] = tally_of(tally)
        unusable = {
            file.name: LeftOut(self.table.table, file.name, str(problem), file.sha256, self.reader)
            for file in files
            if (problem := tallies[file.name].problem)
        }
        contents = {
            file.sha256: Remembered(file.name, file.sha256, tallies[file.name].records, per_day[file.name])
            for file in reversed(files)  # of two names of one content the first counts
            if file.name not in unusable
        }
        _check_counts(contents.values())
        twins = [self._twin(name, first) for name, first in copies.items() if first in unusable]
        good = {name: first for name, first in copies.items() if first not in unusable}
        return Fresh(contents, rows, [*unusable.values(), *twins], good)


def _check_counts(contents: Iterable[Remembered]) -> None:
    """Refuse to go on where Spark has not all the records that were counted in a file, or more."""
    for content in contents:
        if content.records != sum(content.rows.values()):
            raise PlumblineError(
                f"{content.name} holds {content.records} records, and {sum(content.rows.values())} were handed on.",
                why="That is a fault of the reader, not of the file.",
                do="Nothing was published; report it, with the file.",
            )


def _late_copies(files: Iterable[LandingFile], names: Set[str]) -> dict[str, str]:
    """New names of contents that lie there under a name of the last run too: each with that one."""
    by_content: dict[Content, list[str]] = {}
    for file in files:
        by_content.setdefault(content_of(file), []).append(file.name)
    copies: dict[str, str] = {}
    for held in by_content.values():
        first = next((name for name in held if name in names), held[0])
        copies |= {name: first for name in held if name not in names and name != first}
    return copies
