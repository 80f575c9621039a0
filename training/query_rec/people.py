"""People as they were when they met the search box, and what they searched for then: rows of `query_samples`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa

from common.query_text import normalised
from training.core.stage import StageSpec, read_batches
from training.query_rec.prompts import ACTIONS, SEARCH, Behaviours
from training.query_rec.query_lists import plain
from training.query_rec.trigger_index import BY_ITEM, BY_SEARCH, Trigger

_TIME = pa.timestamp("us", tz="UTC")
_TEXTS, _COUNTS = pa.list_(pa.string()), pa.list_(pa.int64())
_COLUMNS: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("user_id", "form", "request_id", "split_time"), pa.string()),
    "sample_date": pa.date32(),
    "as_of": _TIME,
    "behaviour_days_ago": _COUNTS,
    **dict.fromkeys(("behaviour_actions", "behaviour_contents", "shown_queries", "labels", "label_sources"), _TEXTS),
    "shown_clicked": _COUNTS,
}
_LONGEST = 200  # characters of a search that are read; a prompt takes some tokens of it


@dataclass(frozen=True)
class Person:
    """Who meets the search box at `as_of`, and what they did before: lists of one length, within a day oldest first.

    `contents`: the words of a search, else the id of an item. `features`: what tables of the profile say, empty where
    none was asked for.
    """

    user_id: str
    as_of: datetime
    days_ago: tuple[int, ...]
    actions: tuple[str, ...]
    contents: tuple[str, ...]
    features: Mapping[str, float] = field(default_factory=dict)

    @property
    def items(self) -> list[str]:
        """The items that they had to do with, oldest first, as often as they did."""
        return [content for _, action, content in self._by_days() if action != SEARCH]

    @property
    def searches(self) -> list[str]:
        """What they searched for, oldest first."""
        return [content for _, action, content in self._by_days() if action == SEARCH]

    def told(self, phrases: Mapping[str, str], last: int | None = None, profile: str | None = None) -> Behaviours:
        """The `last` things that they did (None: all), in words: an item by its phrase, a search by its beginning.

        Left out is what is without words (an item that the catalogue no longer has, an empty search), an action of
        another kind, what is later than `as_of`, and the same thing told twice in a row. Days come in their order,
        whatever that of the rows.
        """
        told = self._told(phrases, last)
        days_ago, actions, contents, _ = zip(*told, strict=True) if told else ((), (), (), ())
        return Behaviours(days_ago, actions, contents, profile)

    def triggers(self, phrases: Mapping[str, str], last: int | None = None) -> list[Trigger]:
        """What the behaviours of `told` are looked up by, in the order that an answer counts them in: an item by its
        id (of several that are told alike in a row, the first), a search by its one form."""
        return [
            Trigger(BY_SEARCH, normalised(content)) if action == SEARCH else Trigger(BY_ITEM, content)
            for _, action, _, content in self._told(phrases, last)
        ]

    def _by_days(self) -> list[tuple[int, str, str]]:
        """Days ago, action and content, whatever the order of the rows."""
        return sorted(zip(self.days_ago, self.actions, self.contents, strict=True), key=lambda row: -row[0])

    def _told(self, phrases: Mapping[str, str], last: int | None) -> list[tuple[int, str, str, str]]:
        """Days ago, action, words and content of each behaviour that is told."""
        worded = (
            (days, action, _words(content) if action == SEARCH else phrases.get(content, ""), content)
            for days, action, content in self._by_days()
            if action in ACTIONS and days >= 0
        )
        alike = groupby((row for row in worded if row[2]), key=lambda row: row[:3])
        once = [next(rows) for _, rows in alike]
        return once if last is None else once[-last:]


@dataclass(frozen=True)
class Met:
    """A meeting with the search box: a request that showed hints (`direct`), or a day (`think`).

    `shown` from the top with whether each was `clicked`; `labels`: what was searched for, strongest interest first,
    with the source of each (hint, typed). `part`: train, valid or test.
    """

    person: Person
    form: str
    request_id: str
    day: date
    part: str
    shown: tuple[str, ...]
    clicked: tuple[bool, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]

    def labelled(self) -> dict[str, list[str]]:
        """The labels by their source."""
        found: dict[str, list[str]] = {}
        for query, source in zip(self.labels, self.sources, strict=True):
            found.setdefault(source, []).append(query)
        return found


def read_met(spec: StageSpec, forms: Collection[str], parts: Collection[str]) -> Iterator[Met]:
    """The meetings of these forms and parts of the split, in the order of the table `query_samples`.

    Raises DataError for a table of another schema, EmptyTable where there is none of any form.
    """
    for table in read_batches(spec, "query_samples", _COLUMNS):
        for row in table.to_pylist():
            if row["form"] in forms and row["split_time"] in parts:
                yield _met(row)


def _words(search: str) -> str:
    return plain(search[:_LONGEST])


def _met(row: Mapping[str, Any]) -> Met:
    days_ago, actions, contents = (tuple(row[f"behaviour_{name}"]) for name in ("days_ago", "actions", "contents"))
    person = Person(row["user_id"], row["as_of"], days_ago, actions, contents)
    lists = (tuple(row[name]) for name in ("shown_queries", "shown_clicked", "labels", "label_sources"))
    shown, clicked, labels, sources = lists
    told = (row["form"], row["request_id"], row["sample_date"], row["split_time"])
    return Met(person, *told, shown, tuple(map(bool, clicked)), labels, sources)
