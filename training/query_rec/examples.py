"""What the language model learns from and is measured by: people in words, and their lists (stage `lists`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.config import parse_config
from training.core.errors import DataError
from training.core.files import write_json
from training.core.tables import parquet_batches
from training.query_rec.interest_lists import Interest
from training.query_rec.labels import LabelConfig
from training.query_rec.people import Person
from training.query_rec.prompts import Behaviours

_TIME = pa.timestamp("us", tz="UTC")
_TEXTS, _COUNTS = pa.list_(pa.string()), pa.list_(pa.int64())
_SCHEMA: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("user_id", "request_id", "form", "part", "profile", "reasons"), pa.string()),
    "day": pa.date32(),
    "as_of": _TIME,
    **dict.fromkeys(("days_ago", "told_days_ago"), _COUNTS),
    **dict.fromkeys(
        ("actions", "contents", "told_actions", "told_contents", "observed", "labels", "label_sources"), _TEXTS
    ),
    "triggers": pa.list_(_COUNTS),
    "queries": pa.list_(_TEXTS),
}
_EXAMPLES, _SEARCHES, _FILE = "examples.parquet", "searches.parquet", "lists.json"
_SEARCHES_SCHEMA: Mapping[str, pa.DataType] = {"query": pa.string(), "item_id": pa.string()}


@dataclass(frozen=True)
class ListConfig:
    """What the parts of an answer are counted by: the `behaviours` of a prompt at most, and the sizes of `labels`."""

    behaviours: int = 50
    labels: LabelConfig = field(default_factory=LabelConfig)


@dataclass(frozen=True)
class Example:
    """A meeting with the search box: who, what is told of them, what was `observed` to be searched for, and the list
    that is learnt, with the source of each query. `interests` and `reasons` are of Think."""

    person: Person
    told: Behaviours
    form: str
    request_id: str
    day: date
    part: str
    observed: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    interests: tuple[Interest, ...] = ()
    reasons: str = ""


@dataclass(frozen=True)
class Examples:
    """The folder of the stage `lists`."""

    folder: Path
    config: ListConfig

    @classmethod
    def open(cls, folder: Path) -> Examples:
        """DataError where it is no such folder."""
        file = folder / _FILE
        if not file.is_file():
            raise DataError("the folder holds no lists", where=str(file), do="run the stage `lists` first")
        return cls(folder, parse_config(ListConfig, json.loads(file.read_text()), str(file)))

    @classmethod
    def write(
        cls,
        folder: Path,
        config: ListConfig,
        examples: Iterable[Sequence[Example]],
        searches: Sequence[tuple[str, str | None]],
    ) -> Examples:
        """Batches of examples as they come, and the searches of training days with the item clicked."""
        write_json(folder / _FILE, asdict(config))
        with pq.ParquetWriter(folder / _EXAMPLES, pa.schema(list(_SCHEMA.items()))) as writer:
            for batch in examples:
                writer.write_table(pa.Table.from_pylist(list(map(_row, batch)), pa.schema(list(_SCHEMA.items()))))
        write_searches(folder, searches)
        return cls(folder, config)

    def read(self, form: str, parts: Collection[str], most: int | None = None) -> list[Example]:
        """The examples of a form and of these parts; at most the first `most` of each, which are drawn alike for all
        sizes."""
        counts = dict.fromkeys(parts, 0)
        found = list[Example]()
        for example in self._all():
            if example.form == form and example.part in counts and (most is None or counts[example.part] < most):
                counts[example.part] += 1
                found.append(example)
        return found

    def searches(self) -> list[tuple[str, str | None]]:
        """See `write`."""
        return read_searches(self.folder)

    def _all(self) -> Iterator[Example]:
        for table in parquet_batches("examples", [self.folder / _EXAMPLES], _SCHEMA):
            yield from map(_example, table.to_pylist())


def write_searches(folder: Path, searches: Sequence[tuple[str, str | None]]) -> None:
    """Searches, each with the item clicked or None, as a file of `folder`."""
    columns = {"query": [query for query, _ in searches], "item_id": [item for _, item in searches]}
    pq.write_table(pa.table(columns, pa.schema(list(_SEARCHES_SCHEMA.items()))), folder / _SEARCHES)


def read_searches(folder: Path) -> list[tuple[str, str | None]]:
    """Read what `write_searches` wrote."""
    table = pa.concat_tables(parquet_batches("searches", [folder / _SEARCHES], _SEARCHES_SCHEMA))
    return list(zip(table["query"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def _row(one: Example) -> dict[str, Any]:
    who = {name: getattr(one.person, name) for name in ("user_id", "as_of", "days_ago", "actions", "contents")}
    told = {f"told_{name}": list(getattr(one.told, name)) for name in ("days_ago", "actions", "contents")}
    own = ("request_id", "form", "part", "day", "observed", "labels", "reasons")
    return {
        **who,
        **told,
        **{name: getattr(one, name) for name in own},
        "profile": one.told.profile,
        "label_sources": one.sources,
        "triggers": [interest.triggers for interest in one.interests],
        "queries": [interest.queries for interest in one.interests],
    }


def _example(row: Mapping[str, Any]) -> Example:
    days_ago, actions, contents = (tuple(row[name]) for name in ("days_ago", "actions", "contents"))
    told_days, told_actions, told = (tuple(row[f"told_{name}"]) for name in ("days_ago", "actions", "contents"))
    pairs = zip(row["triggers"], row["queries"], strict=True)
    return Example(
        Person(row["user_id"], row["as_of"], days_ago, actions, contents),
        Behaviours(told_days, told_actions, told, row["profile"]),
        form=row["form"],
        request_id=row["request_id"],
        day=row["day"],
        part=row["part"],
        observed=tuple(row["observed"]),
        labels=tuple(row["labels"]),
        sources=tuple(row["label_sources"]),
        interests=tuple(Interest(tuple(triggers), tuple(queries)) for triggers, queries in pairs),
        reasons=row["reasons"],
    )
