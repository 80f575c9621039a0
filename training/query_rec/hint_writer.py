"""Hints for people, from the model to what is shown: lists are drawn, merged, filtered and filled up.

What a model writes once has some ten queries; `samples` of its lists are merged, the first of each before the second of
any, which is what Query HR@30 is of (the paper asks for ten and measures thirty; merging is INFERRED).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from common.config import parse_config
from training.core.choice import Choice
from training.core.errors import DataError
from training.core.files import write_json
from training.core.progress import Progress
from training.query_rec.counting import QueryCounts
from training.query_rec.examples import read_searches, write_searches
from training.query_rec.hint_model import HintModel
from training.query_rec.hints import MODEL, FilterConfig, Hint, HintFilter, Written
from training.query_rec.list_grammar import grammar_of
from training.query_rec.people import Person
from training.query_rec.prompts import Behaviours
from training.query_rec.shop_words import ShopWords

_AT_ONCE = 32
_FILE, _ITEMS = "hint_writer.json", "items.parquet"


@dataclass(frozen=True)
class SampleConfig:
    """How lists are drawn (temperature and nucleus INFERRED), and how many hints are made of them."""

    samples: int = 3
    temperature: float = 0.7
    top_p: float = 0.95
    depth: int = 30


@dataclass(frozen=True)
class WriterConfig:
    """How lists are drawn, and what of them is shown."""

    samples: SampleConfig = field(default_factory=SampleConfig)
    hints: FilterConfig = field(default_factory=FilterConfig)


@dataclass(frozen=True)
class WrittenLists:
    """What a model wrote: for each person the merged queries, and the share of its answers that are answers."""

    queries: Sequence[Sequence[Written]]
    valid: Sequence[float]


def write_lists(
    name: str, model: HintModel, people: Sequence[Behaviours], config: SampleConfig, seed: int
) -> WrittenLists:
    """Draw the lists of all people within the grammar, and merge them; the progress is shown."""
    queries, valid = list[list[Written]](), list[float]()
    allowed = grammar_of(model.answers, model.model.get_output_embeddings().weight.shape[0])
    choice = Choice(config.temperature, top_p=config.top_p, allowed=allowed)
    with Progress(len(people), f"write {name}", "person") as progress:
        for start in range(0, len(people), _AT_ONCE):
            part = people[start : start + _AT_ONCE]
            for lists in model.written(part, model.write(part, choice, config.samples, (seed, start))):
                queries.append(merged(lists, config.depth))
                valid.append(sum(map(bool, lists)) / len(lists))
            progress.advance(len(part))
    return WrittenLists(queries, valid)


def merged(lists: Sequence[Sequence[Written]], depth: int) -> list[Written]:
    """The first query of each list, then the second ones; each once, whatever its case, the first `depth`."""
    found: dict[str, Written] = {}
    for rank in zip_longest(*lists):
        for own in rank:
            if own is not None:
                found.setdefault(own.query.lower(), own)
    return list(found.values())[:depth]


@dataclass(frozen=True)
class Fill:
    """Counting in a shop, with what may be shown there."""

    counts: QueryCounts
    hints: HintFilter

    def shown(self, written: Sequence[Written], person: Person, told: Behaviours, depth: int) -> list[Hint]:
        """What stays of what was written for someone, filled up by the rows that count."""
        return self.hints.shown(written, told, self.counts.rows(person.items, person.searches, depth), depth)

    def counted(self, person: Person, depth: int) -> Mapping[str, list[Hint]]:
        """What each row that counts says, nothing filtered."""
        rows = self.counts.rows(person.items, person.searches, depth)
        return {name: [Hint(query, name) for query in queries] for name, queries in rows.items()}


def as_written(written: Sequence[Written]) -> list[Hint]:
    """All that was written, nothing filtered."""
    return [Hint(own.query, MODEL) for own in written]


@dataclass(frozen=True)
class HintWriter:
    """What is packaged: a model, the catalogue of its day, and the searches that empty places are filled from."""

    model: HintModel
    shop: ShopWords
    searches: Sequence[tuple[str, str | None]]
    config: WriterConfig

    @cached_property
    def fill(self) -> Fill:
        """Counted once."""
        return Fill(QueryCounts.of(self.searches, self.shop.things), HintFilter(self.config.hints, self.shop.words))

    def hints(self, people: Sequence[Person], seed: int = 0) -> list[list[Hint]]:
        """The hints of each person, the best first."""
        told = [one.told(self.shop.phrases, self.model.lists.behaviours) for one in people]
        config = self.config.samples
        lists = write_lists("hints", self.model, told, config, seed)
        return [
            self.fill.shown(written, one, own, config.depth)
            for written, own, one in zip(lists.queries, told, people, strict=True)
        ]

    def save(self, folder: Path, model: Path) -> None:
        """Write what `load` reads; `model`: the folder of its model."""
        shutil.copytree(model, folder, dirs_exist_ok=True)
        self.shop.save(folder / _ITEMS)
        write_searches(folder, self.searches)
        write_json(folder / _FILE, asdict(self.config))

    @classmethod
    def load(cls, folder: Path) -> HintWriter:
        """Read what `save` wrote; DataError for another folder."""
        if not is_writer(folder):
            raise DataError("the folder holds no writer of hints", where=str(folder), do="give the packaged `model`")
        config = parse_config(WriterConfig, json.loads((folder / _FILE).read_text()), str(folder / _FILE))
        return cls(HintModel.load(folder), ShopWords.load(folder / _ITEMS), read_searches(folder), config)


def is_writer(folder: Path) -> bool:
    """Whether a folder holds what `HintWriter.save` wrote."""
    return (folder / _FILE).is_file()
