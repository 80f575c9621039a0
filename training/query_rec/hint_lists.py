"""The lists that each row of the comparison shows on the same days: counted ones, and those of models of hints.

What a model writes once has some ten queries; `samples` of its lists are merged, the first of each before the second of
any, which is what Query HR@30 is of (the paper asks for ten and measures thirty; merging is INFERRED).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from training.core.choice import Choice
from training.core.progress import Progress
from training.query_rec.counting import QueryCounts
from training.query_rec.examples import Example
from training.query_rec.hint_model import HintModel
from training.query_rec.hints import MODEL, Hint, HintFilter, Written
from training.query_rec.list_grammar import grammar_of

_AT_ONCE = 32


@dataclass(frozen=True)
class SampleConfig:
    """How lists are drawn (temperature and nucleus INFERRED), and how many hints of them are measured."""

    samples: int = 3
    temperature: float = 0.7
    top_p: float = 0.95
    depth: int = 30


@dataclass(frozen=True)
class WrittenLists:
    """What a model wrote: of each day its merged queries, and the share of its answers that are answers."""

    queries: Sequence[Sequence[Written]]
    valid: Sequence[float]


def write_lists(name: str, model: HintModel, days: Sequence[Example], config: SampleConfig, seed: int) -> WrittenLists:
    """Draw and merge the lists of all days; the progress is shown."""
    queries, valid = list[list[Written]](), list[float]()
    allowed = grammar_of(model.answers, model.model.get_output_embeddings().weight.shape[0])
    choice = Choice(config.temperature, top_p=config.top_p, allowed=allowed)
    with Progress(len(days), f"write {name}", "day") as progress:
        for start in range(0, len(days), _AT_ONCE):
            people = [one.told for one in days[start : start + _AT_ONCE]]
            answers = model.write(people, choice, config.samples, (seed, start))
            for lists in model.written(people, answers):
                queries.append(merged(lists, config.depth))
                valid.append(sum(map(bool, lists)) / len(lists))
            progress.advance(len(people))
    return WrittenLists(queries, valid)


def merged(lists: Sequence[Sequence[Written]], depth: int) -> list[Written]:
    """The first query of each list, then the second ones; each once, whatever its case, the first `depth`."""
    found: dict[str, Written] = {}
    for rank in zip_longest(*lists):
        for own in rank:
            if own is not None:
                found.setdefault(own.query.lower(), own)
    return list(found.values())[:depth]


def as_written(lists: WrittenLists) -> list[list[Hint]]:
    """All that was written, nothing filtered."""
    return [[Hint(own.query, MODEL) for own in day] for day in lists.queries]


def shown_lists(
    lists: WrittenLists, days: Sequence[Example], counts: QueryCounts, hints: HintFilter, depth: int
) -> list[list[Hint]]:
    """What stays of it, filled up by the rows that count."""
    return [
        hints.shown(written, day.told, counts.rows(day.person.items, depth), depth)
        for written, day in zip(lists.queries, days, strict=True)
    ]


def counted_lists(counts: QueryCounts, days: Sequence[Example], depth: int) -> Mapping[str, list[list[Hint]]]:
    """The lists of each row that counts."""
    found: dict[str, list[list[Hint]]] = {}
    for day in days:
        for name, queries in counts.rows(day.person.items, depth).items():
            found.setdefault(name, []).append([Hint(query, name) for query in queries])
    return found
