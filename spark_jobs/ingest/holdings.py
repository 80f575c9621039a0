"""Which landing file holds rows of which day, and so what is missing. Pure: no Spark, no disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from infra.ledger import LandingFile as Remembered
from spark_jobs.landing.files import LandingFile


@dataclass(frozen=True)
class Holding:
    """The content of a landing file and the days of its rows; `file` is None where it is gone, or broken since."""

    name: str
    sha256: str
    days: frozenset[date]
    file: LandingFile | None


@dataclass(frozen=True)
class Holdings:
    """All contents that the table is made of. `released` are days of replaced files: they may hold nothing any more."""

    contents: tuple[Holding, ...]
    released: frozenset[date]

    @property
    def days(self) -> list[date]:
        """Every day that has rows, or had."""
        return sorted(self.released.union(*(holding.days for holding in self.contents)))

    def of(self, day: date) -> list[Holding]:
        """What holds rows of a day, in order of name, which is the order in which rows of one key count."""
        return [holding for holding in self.contents if day in holding.days]

    def out_of_reach(self, day: date) -> str:
        """Name of a file that a rebuild of the day would need and that cannot be read; empty where there is none."""
        return next((holding.name for holding in self.of(day) if holding.file is None), "")

    def files(self, days: Iterable[date]) -> list[LandingFile]:
        """The files that hold rows of any of `days`."""
        wanted = frozenset(days)
        return [holding.file for holding in self.contents if holding.file is not None and holding.days & wanted]


def take_stock(
    readable: Sequence[LandingFile], remembered: Sequence[Remembered], fresh_days: Mapping[str, frozenset[date]]
) -> Holdings:
    """Bring together the files that are there and those the ledger remembers.

    `fresh_days` gives the days of contents (by hash) that the ledger does not know. Content decides, not the name: a
    renamed file is no change. A remembered name with other content was replaced; one that is gone keeps its days.
    """
    known = {entry.sha256: frozenset(entry.partitions) for entry in remembered} | dict(fresh_days)
    names = {file.name for file in readable}
    contents: dict[str, Holding] = {}
    for file in readable:
        contents.setdefault(file.sha256, Holding(file.name, file.sha256, known[file.sha256], file))
    present = set(contents)
    released: set[date] = set()
    for entry in remembered:
        if entry.sha256 in present:
            continue
        if entry.name in names:
            released.update(entry.partitions)
        else:
            contents[entry.sha256] = Holding(entry.name, entry.sha256, frozenset(entry.partitions), None)
    return Holdings(tuple(sorted(contents.values(), key=lambda h: h.name)), frozenset(released))
