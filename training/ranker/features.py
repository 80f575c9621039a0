"""What the ranker knows of a candidate: a table of numbers, a row per pair; NaN is what nobody knows.

A feature's name begins with its group, before the first dot: what a recommendation is explained by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.ranker.candidates import Candidates
from training.ranker.signals.base import Floats, Ints, Learnt, Pairs, Questions, Signal

STORE = "store"
"""The group of what the feature store says of the user: the same for all candidates of a question, so it says which of
the other features to believe."""
_FOR, _AGAINST = ("score", "share", "of_the_last", "behind_the_first"), ("rank",)


@dataclass(frozen=True)
class Facts:
    """What is known of the items, [catalogue] each. `counts`: how often training took it; `ages`: days from then first
    to the end of training; `prices`: what a shop may tell; NaN: unknown. `categories` by number, -1: unknown.
    """

    counts: Floats
    ages: Floats
    prices: Floats
    categories: Ints

    @classmethod
    def of(cls, learnt: Learnt, items: Sequence[Mapping[str, Any]]) -> Self:
        """Of the items of the catalogue (`price` and `category` of each), as what is learnt from tells of them."""
        empty = np.empty(0, dtype=np.int64)
        when, taken = np.concatenate([empty, *learnt.days]), np.concatenate([empty, *learnt.sequences])
        first = np.full(learnt.catalogue, np.inf)
        np.minimum.at(first, taken, when)
        ages = np.where(np.isfinite(first), when.max(initial=0) - first, np.nan)
        kinds = [(item["category"] or "").rpartition(" > ")[2] for item in items]
        number = {kind: place for place, kind in enumerate(sorted(set(kinds) - {""}))}
        prices = np.array([np.nan if item["price"] is None else item["price"] for item in items])
        categories = np.array([number.get(kind, -1) for kind in kinds], dtype=np.int64)
        return cls(learnt.counts, ages.astype(np.float32), prices.astype(np.float32), categories)


@dataclass(frozen=True)
class Table:
    """`values` [pairs, features], with the names of the columns."""

    names: tuple[str, ...]
    values: Floats

    def directions(self, undecided: Collection[str]) -> list[int]:
        """Of each column: 1 where more of it may only speak for an item, -1 against it, 0 where a shop's data decide.

        What a signal says of an item is evidence for it, but for those that are `undecided`.
        """
        return [_direction(name, undecided) for name in self.names]


def _direction(name: str, undecided: Collection[str]) -> int:
    group, _, kind = name.partition(".")
    if group in undecided:
        return 0
    return 1 if kind in _FOR else -1 if kind in _AGAINST else 0


@dataclass
class _Columns:
    """Columns by name, those of a question repeated for each of its pairs."""

    questions: Ints
    found: dict[str, Floats] = field(default_factory=dict)

    def of_pair(self, name: str, values: NDArray[np.floating]) -> None:
        self.found[name] = values.astype(np.float32)

    def of_question(self, name: str, values: NDArray[np.floating]) -> None:
        self.found[name] = values.astype(np.float32)[self.questions]

    def table(self) -> Table:
        values = np.empty((len(self.questions), len(self.found)), dtype=np.float32)
        for place, column in enumerate(self.found.values()):
            values[:, place] = column
        return Table(tuple(self.found), values)


def features(
    signals: Mapping[str, Signal],
    found: Candidates,
    asked: Questions,
    facts: Facts,
) -> Table:
    """The features of candidates."""
    columns = _Columns(found.pairs.questions)
    for name, signal in signals.items():
        _of_signal(columns, name, signal, found)
    last = Questions([history[-1:] for history in asked.histories])
    for name, signal in signals.items():
        if signal.recalls:
            columns.of_pair(f"{name}.of_the_last", signal.scores(last, found.pairs))
    _of_repeats(columns, found.pairs, asked, len(facts.counts))
    _of_history(columns, asked, facts)
    _of_items(columns, found.pairs.items, asked, facts)
    for name, values in asked.store_features.items():
        columns.of_question(f"{STORE}.{name}", values)
    return columns.table()


def of_the_store(names: Iterable[str]) -> tuple[str, ...]:
    """Of the names of features, those that the feature store says, as it calls them."""
    return tuple(name.removeprefix(f"{STORE}.") for name in names if name.startswith(f"{STORE}."))


def _of_signal(columns: _Columns, name: str, signal: Signal, found: Candidates) -> None:
    """Its score, its rank, and the score beside the best one: as a share of the best candidate's; or, of logarithms of
    probabilities, the certainty, which is the best one's, and how far the candidate is behind it."""
    scores, questions = found.scores[name], columns.questions
    columns.of_pair(f"{name}.score", scores)
    columns.of_pair(f"{name}.rank", found.ranks[name])
    if signal.logarithms:
        columns.of_question(f"{name}.certainty", found.best[name])
        columns.of_pair(f"{name}.behind_the_first", scores - found.best[name][questions])
    else:
        best = np.zeros(questions.max(initial=-1) + 1, dtype=np.float32)
        np.maximum.at(best, questions, scores)
        columns.of_pair(f"{name}.share", scores / np.maximum(best, np.finfo(np.float32).tiny)[questions])


def _of_repeats(columns: _Columns, pairs: Pairs, asked: Questions, size: int) -> None:
    """How often the user has taken the item, how many events ago, and that beside how far apart the takes were: what is
    bought each month is due, and has been bought today. NaN for what was never taken, or once.
    """
    known = list(asked.known())
    lengths = np.array([len(own) for own in known], dtype=np.int64)
    keys = np.repeat(np.arange(len(known)) * size, lengths) + np.concatenate([np.empty(0, dtype=np.int64), *known])
    ages = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(keys))
    taken, newest, counts = np.unique(keys[::-1], return_index=True, return_counts=True)
    _, oldest = np.unique(keys, return_index=True)
    since, spread = ages[::-1][newest].astype(np.float32), ages[oldest] - ages[::-1][newest]
    with np.errstate(invalid="ignore", divide="ignore"):
        due = np.where(counts > 1, since / (spread / (counts - 1)), np.nan)
    wanted = pairs.questions * size + pairs.items
    place = np.minimum(np.searchsorted(taken, wanted), max(len(taken) - 1, 0))
    found = taken[place] == wanted if len(taken) else np.zeros(len(wanted), dtype=bool)
    for name, values, without in (("count", counts, 0.0), ("since", since, np.nan), ("due", due, np.nan)):
        column = np.full(len(wanted), without)
        column[found] = values[place[found]]
        columns.of_pair(f"personal.{name}", column)


def _of_history(columns: _Columns, asked: Questions, facts: Facts) -> None:
    """How long it is, how much of it are repeats, and how often its last item was taken by anyone."""
    lengths = np.array([len(history) for history in asked.histories], dtype=np.float32)
    owners, items = (
        np.repeat(np.arange(len(lengths)), lengths.astype(np.int64)),
        np.concatenate([np.empty(0, dtype=np.int64), *asked.histories]),
    )
    width = len(facts.counts)
    distinct = np.bincount(np.unique(owners * width + items) // width, minlength=len(lengths))
    last = np.array([facts.counts[history[-1]] if len(history) else np.nan for history in asked.histories])
    columns.of_question("history.length", lengths)
    columns.of_question("history.repeats", 1.0 - distinct / np.maximum(lengths, 1.0))
    columns.of_question("history.count_of_the_last", last)


def _of_items(columns: _Columns, items: Ints, asked: Questions, facts: Facts) -> None:
    """What a shop tells of no item at all is no feature."""
    questions = columns.questions
    columns.of_pair("age.days", facts.ages[items])
    if not np.isnan(facts.prices).all():
        usual = np.array([_median(facts.prices[history]) for history in asked.histories])
        columns.of_pair("price.value", facts.prices[items])
        columns.of_pair("price.to_the_usual", np.log((1.0 + facts.prices[items]) / (1.0 + usual[questions])))
    if (facts.categories >= 0).any():
        columns.of_pair("category.share", _shares(facts.categories, items, questions, asked.histories))


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _shares(categories: Ints, items: Ints, questions: Ints, histories: Sequence[Ints]) -> Floats:
    """The share of each history that is of the item's category; NaN where that is unknown or the history is empty."""
    width = int(categories.max(initial=-1)) + 2  # the last one for what is unknown
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    taken = categories[np.concatenate([np.empty(0, dtype=np.int64), *histories])] % width
    counts = np.bincount(owners * width + taken, minlength=len(histories) * width)
    lengths = np.array([len(history) for history in histories])[questions]
    own = categories[items]
    found = counts[questions * width + own % width] / np.maximum(lengths, 1)
    return np.where((own < 0) | (lengths == 0), np.nan, found).astype(np.float32)
