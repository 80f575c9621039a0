"""Rewards of a list of queries (AIGQ, arXiv 2603.19710, section 2.6), as terms of IL-GRPO.

Terms with a value for each query: `ctr`, what the hint ranker says of it; `rouge`, how near it is to the reference at
its place; `length`. Of the whole list: `format` and `repetition`. What is no list has no queries: its `format` alone
tells, by all its tokens. Think has `trigger` beside them: whether an interest was seen in the right behaviours.

Position matching punishes a right query at a wrong place: `found` is watched beside it, whatever the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.core.policy.groups import Group
from training.core.policy.rewards import RewardFunction, Term, by_group
from training.core.sequences import Tokens
from training.query_rec.interest_lists import InterestLists


class Answers(Protocol):
    """A form of answer that holds queries, flat or by interest."""

    def queries_of(self, tokens: Tokens) -> Mapping[int, str] | None:
        """The queries of an answer by their slots, from the strongest on; None where it is none."""


@dataclass(frozen=True)
class References:
    """What an answer is held against, the `context` of a request: queries by their slots, and for Think the triggers of
    each interest, rising."""

    queries: Mapping[int, str]
    triggers: Sequence[Sequence[int]] = ()


ClickChances = Callable[[Sequence[int], Sequence[Sequence[str]]], Sequence[NDArray[np.float32]]]
"""How likely a click on each query is, 0 to 1, for those who stand at these places among the requests: [queries] each.
"""
QueryValues = Callable[[Group, Mapping[int, str]], Sequence[float]]
"""A value of each query, by its slot, of one answer of a group."""
_ALIKE = 0.8  # Jaccard of letter pairs from which on two queries are nearly the same (INFERRED)


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the terms, all INFERRED: the paper prints none. `cap`: beta of clip(gamma p, 0, beta). `servability`
    and `purchases` are not of the paper: whether a query finds enough in the day's catalogue, and the share of its
    searches that a purchase follows; off, they are watched."""

    ctr: float = 0.5
    rouge: float = 0.4
    length: float = 0.1
    servability: float = 0.0
    purchases: float = 0.0
    cap: float = 1.0


@dataclass(frozen=True)
class RewardShape:
    """`scale` (gamma) of the click's chance; `shortest` and `longest`: a length, in characters, that earns all."""

    scale: float = 1.0
    shortest: int = 3
    longest: int = 40

    @classmethod
    def of(cls, queries: Sequence[str], chances: NDArray[np.float32]) -> RewardShape:
        """Of logged `queries`, whose 5th and 95th percentile of lengths bound what earns all, and of the `chances` that
        the ranker gives: gamma makes 1 of their 95th percentile (INFERRED)."""
        low, high = np.percentile([len(query) for query in queries], [5, 95])
        return cls(1.0 / max(float(np.percentile(chances, 95)), 1e-6), max(int(low), 1), max(int(high), 1))


def query_terms(
    answers: Answers,
    chances: ClickChances,
    config: RewardConfig,
    shape: RewardShape,
    servable: Callable[[str], bool],
    purchases: Callable[[str], float],
    version: str,
) -> tuple[Term, ...]:
    """The terms with a value [G, slots] for each query, NaN where an answer has no such query. The `context` of a
    request are its `References`. The name of the clicks' term has the ranker's `version`, so each log line has it."""
    plain: dict[str, tuple[float, QueryValues]] = {
        "rouge": (config.rouge, _rouge),
        "length": (config.length, partial(_length, shape=shape)),
        "servability": (config.servability, partial(_each, value=servable)),
        "purchases": (config.purchases, partial(_each, value=purchases)),
    }
    clicks = partial(_clicks, answers=answers, chances=chances, scale=shape.scale, cap=config.cap)
    return (
        Term(f"ctr@{version}", config.ctr, clicks),
        *(
            Term(name, weight, by_group(partial(_by_query, answers=answers, values=values)))
            for name, (weight, values) in plain.items()
        ),
    )


def of_lists(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The same terms with one value [G] for a list, the mean over its queries: 0 of a list without any."""
    return tuple(replace(term, function=partial(_means, function=term.function)) for term in terms)


def _means(groups: Sequence[Group], function: RewardFunction) -> Sequence[Tensor | None]:
    found = function(groups)
    return [None if value is None else value.nanmean(dim=1).nan_to_num(0.0) for value in found]


def list_terms(answers: Answers) -> tuple[Term, ...]:
    """The terms with one value [G] for a list: 0 or less, and `found`, which is watched."""
    values = {"format": (1.0, _format), "repetition": (1.0, _repetition), "found": (0.0, _found)}
    return tuple(
        Term(name, weight, by_group(partial(_by_list, answers=answers, value=value)))
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


def trigger_term(lists: InterestLists, weight: float = 1.0) -> Term:
    """Think: ROUGE-L of the triggers of each interest and those of the reference at its place [G, interests]."""
    return Term("trigger", weight, by_group(partial(_triggers, lists=lists)))


def _triggers(group: Group, lists: InterestLists) -> Tensor:
    rows = [lists.triggers_of(response.tokens) for response in group.responses]
    wanted = (*group.request.context.triggers, *[()] * lists.most)
    found = torch.full((len(rows), max(map(len, rows), default=0)), torch.nan)
    for row, own in enumerate(rows):
        found[row, : len(own)] = torch.tensor([rouge_of(one, two) for one, two in zip(own, wanted, strict=False)])
    return found


def _by_query(group: Group, answers: Answers, values: QueryValues) -> Tensor:
    rows = [answers.queries_of(response.tokens) or {} for response in group.responses]
    found = torch.full((len(rows), max((max(row, default=-1) + 1 for row in rows), default=0)), torch.nan)
    for row, queries in enumerate(rows):
        found[row, list(queries)] = torch.tensor(values(group, queries), dtype=torch.float32)
    return found


def _by_list(group: Group, answers: Answers, value: Callable[[Group, Sequence[str] | None], float]) -> Tensor:
    rows = [answers.queries_of(response.tokens) for response in group.responses]
    return torch.tensor([value(group, None if row is None else tuple(row.values())) for row in rows])


def _clicks(groups: Sequence[Group], answers: Answers, chances: ClickChances, scale: float, cap: float) -> list[Tensor]:
    """All groups are asked about at once, of each the queries once."""
    lists = [[answers.queries_of(response.tokens) or {} for response in group.responses] for group in groups]
    asked = [tuple(dict.fromkeys(query for row in rows for query in row.values())) for rows in lists]
    told = chances([group.request.place for group in groups], asked)
    known = [
        dict(zip(queries, np.clip(scale * own, 0.0, cap).tolist(), strict=True))
        for queries, own in zip(asked, told, strict=True)
    ]
    return [_by_query(group, answers, partial(_known, own)) for group, own in zip(groups, known, strict=True)]


def _known(values: Mapping[str, float], group: Group, queries: Mapping[int, str]) -> Sequence[float]:
    return [values[query] for query in queries.values()]


def _rouge(group: Group, queries: Mapping[int, str]) -> Sequence[float]:
    """Of a query without a reference 0: nothing is known of it."""
    wanted: Mapping[int, str] = group.request.context.queries
    return [rouge_l(query, wanted.get(slot, "")) for slot, query in queries.items()]


def _length(group: Group, queries: Mapping[int, str], shape: RewardShape) -> Sequence[float]:
    return [length_reward(len(query), shape.shortest, shape.longest) for query in queries.values()]


def _each(group: Group, queries: Mapping[int, str], value: Callable[[str], float]) -> Sequence[float]:
    """What is said of a query whoever it is for."""
    return [float(value(query)) for query in queries.values()]


def _format(group: Group, queries: Sequence[str] | None) -> float:
    return -1.0 if queries is None else 0.0


def _repetition(group: Group, queries: Sequence[str] | None) -> float:
    return -repeated(queries or ())


def _found(group: Group, queries: Sequence[str] | None) -> float:
    """The share of the references that are among the queries."""
    wanted = {reference.lower() for reference in group.request.context.queries.values()}
    return len(wanted.intersection(query.lower() for query in queries or ())) / max(len(wanted), 1)


def _pairs(query: str) -> frozenset[str]:
    """Pairs of letters; of a single letter itself."""
    letters = query.lower()
    return frozenset(letters[place : place + 2] for place in range(max(len(letters) - 1, 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
