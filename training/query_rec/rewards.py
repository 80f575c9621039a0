"""Rewards of a list of queries (AIGQ, arXiv 2603.19710, section 2.6), as terms of IL-GRPO.

Terms with a value for each query: `ctr`, what the hint ranker says of it; `rouge`, how near it is to the reference at
its place; `length`. Of the whole list: `format` and `repetition`. What is no list has no queries: its `format` alone
tells, by all its tokens.

Position matching punishes a right query at a wrong place: `found` is watched beside it, whatever the place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.core.policy.groups import Group
from training.core.policy.rewards import Term, by_group
from training.query_rec.query_lists import QueryLists

ClickChances = Callable[[int, Sequence[str]], NDArray[np.float32]]
"""How likely a click on each query is, for who stands at this place among the requests: [queries], 0 to 1."""
QueryValues = Callable[[Group, Sequence[str]], Sequence[float]]
"""A value of each query of one list of a group."""
_ALIKE = 0.8  # Jaccard of letter pairs from which on two queries are nearly the same (INFERRED)


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the terms and their shape. All INFERRED: the paper prints none.

    `scale` (gamma) and `cap` (beta) of the click's chance: clip(gamma p, 0, beta); `shortest` and `longest` are the 5th
    and 95th percentile of the length of logged queries, in characters.
    """

    ctr: float = 0.5
    rouge: float = 0.4
    length: float = 0.1
    scale: float = 1.0
    cap: float = 1.0
    shortest: int = 3
    longest: int = 40


def query_terms(lists: QueryLists, chances: ClickChances, config: RewardConfig) -> tuple[Term, ...]:
    """The terms with a value [G, slots] for each query, NaN where a list has no such query. A request's `context` are
    its reference queries, in order."""
    named: dict[str, tuple[float, QueryValues]] = {
        "ctr": (config.ctr, partial(_clicks, chances=chances, config=config)),
        "rouge": (config.rouge, _rouge),
        "length": (config.length, partial(_length, config=config)),
    }
    return tuple(
        Term(name, weight, by_group(partial(_by_query, lists=lists, values=values)))
        for name, (weight, values) in named.items()
    )


def list_terms(lists: QueryLists) -> tuple[Term, ...]:
    """The terms with one value [G] for a list: 0 or less, and `found`, which is watched."""
    values = {"format": (1.0, _format), "repetition": (1.0, _repetition), "found": (0.0, _found)}
    return tuple(
        Term(name, weight, by_group(partial(_by_list, lists=lists, value=value)))
        for name, (weight, value) in values.items()
    )


def rouge_l(query: str, reference: str) -> float:
    """ROUGE-L, the F-measure of the longest common subsequence of two texts' words, whatever their case: 0 to 1."""
    return rouge_of(query.lower().split(), reference.lower().split())


def rouge_of(one: Sequence[object], other: Sequence[object]) -> float:
    """The same of two sequences; 0 where one is empty."""
    if not one or not other:
        return 0.0
    row = [0] * (len(other) + 1)
    for left in one:
        before = row
        row = [0]
        for place, right in enumerate(other):
            row.append(before[place] + 1 if left == right else max(before[place + 1], row[place]))
    return 2.0 * row[-1] / (len(one) + len(other))


def repeated(queries: Sequence[str]) -> float:
    """The share of the queries that say nearly what one before them says, by their pairs of letters: 0 to 1."""
    pairs = [_pairs(query) for query in queries]
    again = [any(_jaccard(own, other) >= _ALIKE for other in pairs[:place]) for place, own in enumerate(pairs)]
    return sum(again) / max(len(queries), 1)


def length_reward(length: int, shortest: int, longest: int) -> float:
    """1 inside, and outside falling to 0: in a straight line to no letter, or to twice the longest (INFERRED)."""
    if length < shortest:
        return length / shortest
    return 1.0 if length <= longest else max(0.0, 2.0 - length / longest)


def _by_query(group: Group, lists: QueryLists, values: QueryValues) -> Tensor:
    rows = [lists.read(response.tokens) or () for response in group.responses]
    found = torch.full((len(rows), max(map(len, rows), default=0)), torch.nan)
    for row, queries in enumerate(rows):
        found[row, : len(queries)] = torch.tensor(values(group, queries), dtype=torch.float32)
    return found


def _by_list(group: Group, lists: QueryLists, value: Callable[[Group, Sequence[str] | None], float]) -> Tensor:
    return torch.tensor([value(group, lists.read(response.tokens)) for response in group.responses])


def _clicks(group: Group, queries: Sequence[str], chances: ClickChances, config: RewardConfig) -> Sequence[float]:
    told = chances(group.request.place, queries) if queries else np.zeros(0, dtype=np.float32)
    return [float(value) for value in np.clip(config.scale * told, 0.0, config.cap)]


def _rouge(group: Group, queries: Sequence[str]) -> Sequence[float]:
    """Of a query behind the last reference 0: nothing is known of it."""
    references = (*group.request.context, *[""] * len(queries))
    return [rouge_l(query, reference) for query, reference in zip(queries, references, strict=False)]


def _length(group: Group, queries: Sequence[str], config: RewardConfig) -> Sequence[float]:
    return [length_reward(len(query), config.shortest, config.longest) for query in queries]


def _format(group: Group, queries: Sequence[str] | None) -> float:
    return -1.0 if queries is None else 0.0


def _repetition(group: Group, queries: Sequence[str] | None) -> float:
    return -repeated(queries or ())


def _found(group: Group, queries: Sequence[str] | None) -> float:
    """The share of the references that are among the queries."""
    wanted = {reference.lower() for reference in group.request.context}
    return len(wanted.intersection(query.lower() for query in queries or ())) / max(len(wanted), 1)


def _pairs(query: str) -> frozenset[str]:
    """Pairs of letters; of a single letter itself."""
    letters = query.lower()
    return frozenset(letters[place : place + 2] for place in range(max(len(letters) - 1, 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
