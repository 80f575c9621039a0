"""Which landing file holds rows of which day, and so what is missing. Pure: no Spark, no disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from infra.ledger import LandingFile as Remembered
from infra.ledger import short_hash
from spark_jobs.landing.files import LandingFile


@dataclass(frozen=True)
class Holding:
    """The content of a landing file and the days of its rows; `file` is None where it is gone, or broken since.

    `names` are all under which it lies there, the first of them its own.
    """

    name: str
    sha256: str
    days: frozenset[date]
    file: LandingFile | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holdings:
    """All contents that the table is made of. `released` are committed days of contents that were replaced: they may
    hold nothing any more. `forgotten` are files that have gone since the last run, each with the days of which it had
    rows and nothing is in the table.
    """

    contents: tuple[Holding, ...]
    released: frozenset[date]
    forgotten: Mapping[str, Sequence[date]] = field(default_factory=dict)

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
    readable: Sequence[LandingFile],
    remembered: Sequence[Remembered],
    fresh_days: Mapping[str, frozenset[date]],
    used: Mapping[date, Mapping[str, str]],
) -> Holdings:
    """Bring together the files that are there and those the ledger remembers.

    `fresh_days` gives the days of contents (by hash) that the ledger does not know, `used` the contents that each
    committed day is made of (by short hash, with the name of the file). Content decides, not the name: a renamed file
    is no change. What lay under a name that is there with other content was replaced; what is gone keeps the days that
    it is in.
    """
    known = {entry.sha256: frozenset(entry.partitions) for entry in remembered} | dict(fresh_days)
    names = {file.name for file in readable}
    held: dict[str, list[LandingFile]] = {}
    for file in readable:
        held.setdefault(file.sha256, []).append(file)
    contents = {
        sha256: Holding(files[0].name, sha256, known[sha256], files[0], tuple(file.name for file in files))
        for sha256, files in held.items()
    }
    forgotten = {}
    for entry in remembered:
        if entry.sha256 in contents or entry.name in names:
            continue
        short = short_hash(entry.sha256)
        days = frozenset(day for day in entry.partitions if short in used.get(day, ()))
        if days:
            contents[entry.sha256] = Holding(entry.name, entry.sha256, days, None)
        if entry.there and (unused := sorted(set(entry.partitions) - days)):
            forgotten[entry.name] = unused
    all_held = {short_hash(sha256) for sha256 in contents}
    released: set[date] = set()
    for day, made_of in used.items():
        for short, name in made_of.items():
            if short in all_held:
                continue
            if name in names:
                released.add(day)
            else:  # what replaced it is gone too
                lost = contents.get(short)
                contents[short] = Holding(name, short, (lost.days if lost else frozenset()) | {day}, None)
    return Holdings(tuple(sorted(contents.values(), key=lambda h: h.name)), frozenset(released), forgotten)


def memory(
    stock: Holdings, remembered: Sequence[Remembered], fresh: Iterable[Remembered]
) -> tuple[list[Remembered], set[str], set[str]]:
    """What the ledger is to remember beyond what it does, the names to forget, and those of files that are gone.

    Each name that is there, with its content; and names of contents that are gone and still in the table.
    """
    by_content = {entry.sha256: entry for entry in (*remembered, *fresh)}
    there = {
        name: replace(by_content[holding.sha256], name=name, there=True)
        for holding in stock.contents
        for name in holding.names
    }
    known = {entry.name for entry in remembered}
    gone = {holding.name for holding in stock.contents if holding.file is None} & known
    new = [entry for entry in there.values() if entry not in remembered]
    return new, known - there.keys() - gone, gone - there.keys()
