"""What answers for a packaged folder: `load(folder).predict(frame, params)`, as the registry asks.

A folder with a hint ranker says of each row's person and query how likely a click is, as at the first place; one with a
writer says the hints of each row's person, by its Direct model.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.core.files import new_folder, write_json
from training.query_rec.hint_model import Form
from training.query_rec.hint_questions import OF_USER
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.hint_writer import HintWriter, is_writer
from training.query_rec.people import Person

if TYPE_CHECKING:
    import pandas as pd

HINT_RANKER = "hint_ranker"
"""The name of the ranker's row."""
_STRINGS = {"type": "array", "items": {"type": "string"}}
_LONGS = {"type": "array", "items": {"type": "long"}}
_PERSON = [
    {"name": "days_ago", "required": True, **_LONGS},
    {"name": "actions", "required": True, **_STRINGS},
    {"name": "contents", "required": True, **_STRINGS},
]
_SIGNATURE = {
    "inputs": [
        *_PERSON,
        {"name": "query", "type": "string", "required": True},
        *({"name": name, "type": "double", "required": False} for name in OF_USER),
    ],
    "outputs": [
        {"name": "chance", "type": "double", "required": True},
        {"name": "version", "type": "string", "required": True},
    ],
}
_WRITER_SIGNATURE = {
    "inputs": _PERSON,
    "outputs": [{"name": "hints", "required": True, **_STRINGS}, {"name": "sources", "required": True, **_STRINGS}],
}
_EXAMPLE = {
    "days_ago": [[3, 0], []],
    "actions": [["search", "search"], []],
    "contents": [["pens", "blue pens"], []],
    "query": ["blue pens", "🎁"],
}


def package(trained: Path, folder: Path) -> None:
    """Make `folder` of what the stage left, with its signature and an example; whole or not at all."""
    with new_folder(folder) as scratch:
        shutil.copytree(trained, scratch, dirs_exist_ok=True)
        _describe(scratch, _SIGNATURE, _EXAMPLE)


def package_writer(writer: HintWriter, models: Mapping[Form, Path], folder: Path) -> None:
    """The same of a writer of hints; `models`: the folder of the model of each form."""
    with new_folder(folder) as scratch:
        writer.save(scratch, models)
        _describe(scratch, _WRITER_SIGNATURE, {name: own for name, own in _EXAMPLE.items() if name != "query"})


def _describe(folder: Path, signature: dict[str, Any], example: dict[str, Any]) -> None:
    write_json(folder / "signature.json", signature)
    kinds = {"days_ago": pa.list_(pa.int64()), "query": pa.string()}
    arrays = {name: pa.array(own, kinds.get(name, pa.list_(pa.string()))) for name, own in example.items()}
    pq.write_table(pa.table(arrays), folder / "example.parquet")


def load(folder: str | Path) -> ServedRanker | ServedWriter:
    """What answers for a packaged folder; DataError for one that holds neither."""
    if is_writer(Path(folder)):
        return ServedWriter(HintWriter.load(Path(folder)))
    return ServedRanker(HintRanker.load(Path(folder)))


@dataclass(frozen=True)
class ServedRanker:
    """A ranker that is asked in tables."""

    ranker: HintRanker

    def predict(self, frame: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
        """`chance` of each row, and the `version` that says so."""
        import pandas as pd

        people = [_person(row) for row in frame.to_dict("records")]
        told = self.ranker.chances(people, [[query] for query in frame["query"]])
        chances = [float(one[0]) for one in told]
        return pd.DataFrame({"chance": chances, "version": [self.ranker.version] * len(chances)}, index=frame.index)


@dataclass(frozen=True)
class ServedWriter:
    """A writer that is asked in tables."""

    writer: HintWriter

    def predict(self, frame: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
        """The `hints` of each row, the best first, and the `sources` that each came from."""
        import pandas as pd

        found = self.writer.hints([_person(row) for row in frame.to_dict("records")])
        texts, sources = ([[getattr(hint, name) for hint in own] for own in found] for name in ("query", "source"))
        return pd.DataFrame({"hints": texts, "sources": sources}, index=frame.index)


def _person(row: dict[str, Any]) -> Person:
    days, actions, contents = (tuple(row[name]) for name in ("days_ago", "actions", "contents"))
    features = {name: float(row[name]) for name in OF_USER if row.get(name) is not None}
    return Person("", datetime.fromtimestamp(0, UTC), days, actions, contents, features)
