"""Whatever is delivered, renamed, copied, replaced, taken away and put back, in any order: no row leaves in silence.

A landing folder, the ledger's memory and the days of a table, without Spark: a content is the set of days it holds.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from infra.ledger import LandingFile as Remembered
from spark_jobs.ingest.holdings import memory, take_stock
from spark_jobs.landing.files import LandingFile

DAYS = [date(2024, 3, n) for n in range(1, 4)]
NAMES = ["a", "b", "c", "latest"]
_DAYS = st.frozensets(st.sampled_from(DAYS), min_size=1)
_NAMES = st.sampled_from(NAMES)


class Deliveries(RuleBasedStateMachine):
    """`folder` is what lies there, `remembered` what the ledger knows, `table` the contents of each committed day."""

    def __init__(self) -> None:
        super().__init__()
        self.folder: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        self.days: dict[str, frozenset[date]] = {}
        self.remembered: list[Remembered] = []
        self.table: dict[date, dict[str, str]] = {}

    @rule(name=_NAMES, days=_DAYS)
    def deliver(self, name: str, days: frozenset[date]) -> None:
        """A new file, or another one under a name that is there."""
        content = f"{len(self.days):012d}"
        self.days[content] = days
        self.folder[name] = content

    @rule(old=_NAMES, new=_NAMES, copy=st.booleans())
    def rename(self, old: str, new: str, copy: bool) -> None:
        """A file under a further name, or another one."""
        if old in self.folder and new not in self.folder:
            self.folder[new] = self.folder[old] if copy else self.folder.pop(old)

    @rule(name=_NAMES)
    def take_away(self, name: str) -> None:
        """A file is gone."""
        if name in self.folder:
            self.taken[name] = self.folder.pop(name)

    @rule(name=_NAMES)
    def put_back(self, name: str) -> None:
        """What was taken away comes back under its name."""
        if name in self.taken and name not in self.folder:
            self.folder[name] = self.taken.pop(name)

    @rule(asked=_DAYS)
    def run(self, asked: frozenset[date]) -> None:
        """An ingest of some days."""
        readable = [LandingFile(name, Path(name), content) for name, content in sorted(self.folder.items())]
        known = {entry.sha256 for entry in self.remembered}
        fresh = {content: self.days[content] for content in self.folder.values() if content not in known}
        stock = take_stock(readable, self.remembered, fresh, self.table)
        for day in set(stock.days) & asked:
            made_of = {holding.sha256: holding.name for holding in stock.of(day)}
            if not stock.out_of_reach(day):
                for content, name in self.table.get(day, {}).items():
                    assert content in made_of or name in self.folder, "rows of a file that nobody replaced are lost"
                self.table[day] = made_of
        entries = [
            Remembered(f.name, f.sha256, 1, dict.fromkeys(fresh[f.sha256], 1)) for f in readable if f.sha256 in fresh
        ]
        new, forget, gone = memory(stock, self.remembered, entries)
        kept = [e for e in self.remembered if e.name not in forget | {n.name for n in new}]
        self.remembered = [replace(entry, there=entry.name not in gone) for entry in kept + new]

    @invariant()
    def what_lies_there_is_in_the_table_after_a_run_of_all_days(self) -> None:
        """On a copy of the state: all that lies there is in its days, but for those that wait for a file."""
        before = (dict(self.table), list(self.remembered))
        self.run(frozenset(DAYS))
        waits = {day for day, made_of in self.table.items() if not made_of.keys() <= set(self.folder.values())}
        for content in self.folder.values():
            assert self.days[content] - waits <= {day for day in DAYS if content in self.table.get(day, ())}
        self.table, self.remembered = before


Deliveries.TestCase.settings = settings(max_examples=300, stateful_step_count=20, deadline=None)
TestDeliveries = Deliveries.TestCase
