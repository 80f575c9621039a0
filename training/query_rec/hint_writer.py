"""Hints for people, from the model to what is shown: lists are drawn, merged, filtered and filled up.

What a model writes once has some ten queries; `samples` of its lists are merged, the first of each before the second of
any, which is what Query HR@30 is of (the paper asks for ten and measures thirty; merging is INFERRED).

Two models are packaged with one catalogue, filter and fill: Direct writes lists, for whoever does something (u2q), and
Think interests, of which an index by triggers is made (x2q).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Final

from common.config import parse_config
from training.core.choice import Choice
from training.core.decoding import REQUESTS_AT_ONCE
from training.core.errors import DataError
from training.core.files import write_json
from training.core.progress import Progress
from training.query_rec.counting import AGAIN, QueryCounts
from training.query_rec.examples import read_searches, write_searches
from training.query_rec.hint_model import Form, HintModel
from training.query_rec.hints import MODEL, FilterConfig, Hint, HintFilter, Written
from training.query_rec.interest_lists import Interest
from training.query_rec.list_grammar import grammar_of
from training.query_rec.people import Person
from training.query_rec.prompts import Behaviours
from training.query_rec.shop_words import ShopWords

FORMS: Final[tuple[Form, Form]] = ("direct", "think")
"""What a writer has a model of, each in a folder of this name."""
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
    choice = choice_of(model, config)
    with Progress(len(people), f"write {name}", "person") as progress:
        for start in range(0, len(people), REQUESTS_AT_ONCE):
            part = people[start : start + REQUESTS_AT_ONCE]
            for lists in model.written(part, model.write(part, choice, config.samples, (seed, start))):
                queries.append(merged(lists, config.depth))
                valid.append(sum(map(bool, lists)) / len(lists))
            progress.advance(len(part))
    return WrittenLists(queries, valid)


def choice_of(model: HintModel, config: SampleConfig) -> Choice:
    """How the next token of an answer is drawn within the grammar; at a temperature of 0 it is the likeliest one."""
    allowed = grammar_of(model.answers, model.model.get_output_embeddings().weight.shape[0])
    return Choice(config.temperature, top_p=config.top_p, allowed=allowed)


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

    def shown(
        self, written: Sequence[Written], person: Person, told: Behaviours, depth: int, asked: str = ""
    ) -> list[Hint]:
        """What somebody has searched for before, then what stays of what was written, filled up by the other rows that
        count: nothing is searched for as surely as what was (measured: docs/LOG.md). `asked`: what they have searched
        for just now, which is no hint."""
        counted = self.counts.rows(person.items, person.searches, depth)
        first = {AGAIN: counted[AGAIN], MODEL: self.hints.kept(written, told)}
        return self.hints.shown({**first, **counted}, depth, asked)

    def counted(self, person: Person, depth: int) -> Mapping[str, list[Hint]]:
        """What each row that counts says, nothing filtered."""
        rows = self.counts.rows(person.items, person.searches, depth)
        return {name: [Hint(query, name) for query in queries] for name, queries in rows.items()}


def as_written(written: Sequence[Written]) -> list[Hint]:
    """All that was written, nothing filtered."""
    return [Hint(own.query, MODEL) for own in written]


@dataclass(frozen=True)
class HintWriter:
    """What is packaged: a model of each form, the catalogue of its day, and the searches that empty places are filled
    from."""

    direct: HintModel
    think: HintModel
    shop: ShopWords
    searches: Sequence[tuple[str, str | None]]
    config: WriterConfig

    @cached_property
    def fill(self) -> Fill:
        """Counted once."""
        return Fill(QueryCounts.of(self.searches, self.shop.things), HintFilter(self.config.hints, self.shop.words))

    def hints(self, people: Sequence[Person], seed: int = 0, asked: Sequence[str] | None = None) -> list[list[Hint]]:
        """The hints of each person by Direct, the best first; `asked`: what each has searched for just now, empty where
        they have not, which is none of them."""
        told = self._told(self.direct, people)
        config = self.config.samples
        lists = write_lists("hints", self.direct, told, config, seed)
        return [
            self.fill.shown(written, one, own, config.depth, query)
            for written, own, one, query in zip(lists.queries, told, people, asked or [""] * len(people), strict=True)
        ]

    def interests(self, people: Sequence[Person], seed: int = 0) -> list[list[Interest]]:
        """The interests of each person by Think, one answer each, with those of its queries that may be shown.

        Their triggers count the person's `Person.triggers(shop.phrases, think.lists.behaviours)`, from 1. Who did
        nothing has none, as has an answer that is none.
        """
        told, found = self._told(self.think, people), list[list[Interest]]()
        answers = self.think.write(told, choice_of(self.think, self.config.samples), 1, (seed,))
        for who, (answer,), (own,) in zip(told, answers, self.think.written(told, answers), strict=True):
            read, kept = self.think.planned.read(answer), set(self.fill.hints.kept(own, who))
            found.append(
                [
                    Interest(one.triggers, queries)
                    for one in (read.found if read and who.contents else ())
                    if (queries := tuple(query for query in one.queries if query in kept))
                ]
            )
        return found

    def _told(self, model: HintModel, people: Sequence[Person]) -> list[Behaviours]:
        return [one.told(self.shop.phrases, model.lists.behaviours) for one in people]

    def save(self, folder: Path, models: Mapping[Form, Path]) -> None:
        """Write what `load` reads; `models`: the folder of the model of each form."""
        for form in FORMS:
            shutil.copytree(models[form], folder / form)
        self.shop.save(folder / _ITEMS)
        write_searches(folder, self.searches)
        write_json(folder / _FILE, asdict(self.config))

    @classmethod
    def load(cls, folder: Path) -> HintWriter:
        """Read what `save` wrote; DataError for another folder."""
        if not is_writer(folder):
            raise DataError("the folder holds no writer of hints", where=str(folder), do="give the packaged `model`")
        config = parse_config(WriterConfig, json.loads((folder / _FILE).read_text()), str(folder / _FILE))
        direct, think = (HintModel.load(folder / form) for form in FORMS)
        return cls(direct, think, ShopWords.load(folder / _ITEMS), read_searches(folder), config)


def is_writer(folder: Path) -> bool:
    """Whether a folder holds what `HintWriter.save` wrote."""
    return (folder / _FILE).is_file()
