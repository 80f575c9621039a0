"""A small shop whose people look at things of one kind and search for them, with a ranker that likes that kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.core.stage import StageSpec, TableRef
from training.query_rec.hint_questions import OF_QUERY
from training.query_rec.people import Person

KINDS = ("pen", "lamp", "chair", "desk")
COLOURS = ("red", "blue", "green")
FIRST = date(2026, 1, 1)
_TIME = pa.timestamp("us", tz="UTC")


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """A direction for each kind, and a little of it for each letter."""
    found = np.zeros((len(texts), len(KINDS) + 26), dtype=np.float32)
    for row, text in enumerate(texts):
        for place, kind in enumerate(KINDS):
            found[row, place] = 3.0 * text.lower().count(kind)
        for letter in text.lower():
            if "a" <= letter <= "z":
                found[row, len(KINDS) + ord(letter) - ord("a")] += 0.1
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def known_query(**counts: int) -> NDArray[np.float32]:
    """What the feature store says of a query: so many within the year."""
    return np.array(
        [counts.get(name.removeprefix("query_daily__").removesuffix("_365d"), 0) for name in OF_QUERY], dtype=np.float32
    )


@dataclass(frozen=True)
class KindRanker:
    """A `ClickRanker`: a click is likelier on what has the kind that the person searched for last."""

    version: str = "k1"

    @property
    def known(self) -> dict[str, NDArray[np.float32]]:
        """Of `red pen` a purchase follows every second search, of `red lamp` none; of others nothing is known."""
        return {"red pen": known_query(typed=30, bought=15), "red lamp": known_query(typed=20, clicked=10)}

    def chances(self, people: Sequence[Person], queries: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """See `ClickRanker`."""
        return [
            np.array([_chance(person, query) for query in own], dtype=np.float32)
            for person, own in zip(people, queries, strict=True)
        ]


def _chance(person: Person, query: str) -> float:
    last = next((content for content in reversed(person.contents) if " " in content), "")
    return 0.3 if set(last.split()) & set(query.split()) & set(KINDS) else 0.05


def items() -> pa.Table:
    """Five things of each kind and colour; one is out of stock, one has no title."""
    rows = [
        {
            "item_id": f"{kind}-{colour}-{n}",
            "title": f"{colour.title()} {kind} no {n}",
            "brand": "Acme",
            "category": f"Home > {kind}s",
            "in_stock": True,
        }
        for kind in KINDS
        for colour in COLOURS
        for n in range(5)
    ]
    rows[0]["in_stock"], rows[1]["title"] = False, ""
    return pa.Table.from_pylist(rows)


def meetings(people: int, seed: int = 0) -> pa.Table:
    """`query_samples` of so many people, one request and one day each: who looks at a kind searches for it."""
    rng, rows = np.random.default_rng(seed), list[dict[str, Any]]()
    for number in range(people):
        kind, colour = (str(rng.choice(own)) for own in (KINDS, COLOURS))
        length, day = int(rng.integers(0, 4)), FIRST + timedelta(days=number % 20)
        part = "train" if number % 20 < 14 else "valid" if number % 20 < 17 else "test"
        as_of = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        contents = [word for n in range(length) for word in (f"{colour} {kind}", f"{kind}-{colour}-{n + 2}")]
        own = {
            "user_id": f"u{number}",
            "sample_date": day,
            "as_of": as_of,
            "split_time": part,
            "behaviour_days_ago": [1] * len(contents),
            "behaviour_actions": ["search", "click"] * length,
            "behaviour_contents": contents,
        }
        shown = [f"{colour} {kind}", "green desk", "ink"]
        clicks = [int(rng.random() < 0.7), 0, 0]
        clicked = [query for query, click in zip(shown, clicks, strict=True) if click]
        asked = [f"{colour} {kind}", f"{kind}"]
        direct = ("direct", "r", shown, clicks, clicked, ["hint"] * len(clicked))
        for form, name, seen, hits, labels, sources in (direct, ("think", "d", [], [], asked, ["typed", "typed"])):
            told = {"shown_queries": seen, "shown_clicked": hits, "labels": labels, "label_sources": sources}
            rows.append({**own, "form": form, "request_id": f"{name}{number}", **told})
    schema = pa.Table.from_pylist(rows).schema
    for name, kind_ in {"as_of": _TIME, **_LISTS}.items():
        schema = schema.set(schema.get_field_index(name), pa.field(name, kind_))
    return pa.Table.from_pylist(rows, schema)


_LISTS: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("behaviour_days_ago", "shown_clicked"), pa.list_(pa.int64())),
    **dict.fromkeys(
        ("behaviour_actions", "behaviour_contents", "shown_queries", "labels", "label_sources"), pa.list_(pa.string())
    ),
}


def spec(
    folder: Path, stage: str, config: Mapping[str, Any], tables: Mapping[str, pa.Table], **stages: Path
) -> StageSpec:
    """Of a stage in `folder`, on these tables and what these stages left."""
    refs = {}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
        refs[name] = TableRef((str(folder / f"{name}.parquet"),), origin="simulated")
    out = folder / stage
    out.mkdir(exist_ok=True)
    artifacts = {name: str(path) for name, path in stages.items()}
    return StageSpec("query_rec", stage, str(out), 17, refs, artifacts, config)
