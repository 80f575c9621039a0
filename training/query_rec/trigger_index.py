"""From what people did to queries (AIGQ x2q, section 2.7): interests of many people, turned around and ranked.

An interest of a person says which of their behaviours lead to which queries. Every trigger leads to all queries of its
interest; over all people a trigger x has its queries q in the order of

    S(x, q) = alpha S_rel(x, q) + (1 - alpha) S_eff(q)

S_rel is the share of the trigger's people by their logarithm, log(1 + n(x, q)) over the largest of x. S_eff is what a
query is worth to the shop: the mean of how often it was searched for, by its logarithm, and of the chance of a click
that the hint ranker gave it for the people it was written for, each over the largest of the night (all INFERRED).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.query_text import normalised
from training.query_rec.interest_lists import Interest

BY_ITEM, BY_SEARCH = "item", "search"
"""The kinds of triggers: a thing that was acted on, by its id, and words that were searched for."""
TIES = pa.schema({"kind": pa.string(), "trigger": pa.string(), "query": pa.string(), "chance": pa.float64()})
"""A row for each person, trigger and query."""
INDEX = pa.schema(
    {
        "kind": pa.string(),
        "trigger": pa.string(),
        "place": pa.int64(),
        "query": pa.string(),
        "score": pa.float64(),
        "relevance": pa.float64(),
        "worth": pa.float64(),
        "people": pa.int64(),
    }
)
"""A row for each trigger and place, from 1."""
_KEY = ["kind", "trigger", "query"]


@dataclass(frozen=True)
class IndexConfig:
    """`alpha`: the weight of relevance, between 0 and 1 (INFERRED); `top`: so many queries of a trigger."""

    alpha: float = 0.6
    top: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.top < 1:
            raise ValueError(f"alpha lies between 0 and 1, and top is at least 1: {self}")


@dataclass(frozen=True)
class Trigger:
    """What somebody did: the kind and the key under which its queries are looked up."""

    kind: str
    key: str


def ties(
    done: Sequence[Trigger | None], interests: Iterable[Interest], shown: Mapping[str, float]
) -> Iterator[tuple[str, str, str, float]]:
    """Rows of `TIES` of one person, each trigger and query once, however it is written.

    Args:
        done: their behaviours as the numbers of the triggers count them, from 1; None is no trigger (any more).
        interests: what the model wrote; a number beyond `done` is no trigger.
        shown: the queries that may be shown, with the chance of a click by this person.
    """
    found: dict[tuple[str, str, str], tuple[str, float]] = {}
    for interest in interests:
        queries = [query for query in interest.queries if query in shown]
        for number in interest.triggers:
            if 1 <= number <= len(done) and (trigger := done[number - 1]):
                for query in queries:
                    found.setdefault((trigger.kind, trigger.key, normalised(query)), (query, shown[query]))
    return ((kind, key, *shown_as) for (kind, key, _), shown_as in found.items())


def index_of(tied: pa.Table, searched: Mapping[str, int], config: IndexConfig) -> pa.Table:
    """The queries of each trigger, the best first; of one score the query of more people, then by the alphabet.

    A query is one however it is written, and stands as it was written most often.

    Args:
        tied: rows of `TIES`.
        searched: how often each query, normalised, was searched for; 0 where it is not named.
    """
    counted = _as_most_written(tied).group_by(_KEY).aggregate([("chance", "count"), ("chance", "mean")])
    people = counted["chance_count"].to_numpy()
    strength = np.log1p(people)
    owner = _owners(counted)
    relevance = strength / _largest(strength, owner)[owner] if len(strength) else strength
    worth = _worth(counted, searched)
    # Sums differ in their last digits by the order of people, which must not be that of the queries.
    score = np.round(config.alpha * relevance + (1 - config.alpha) * worth, 12)
    rows = pa.table(
        {
            **{name: counted[name] for name in _KEY},
            "score": score,
            "relevance": relevance,
            "worth": worth,
            "people": people,
        }
    )
    order = [("kind", "ascending"), ("trigger", "ascending"), ("score", "descending"), ("people", "descending")]
    ranked = rows.sort_by([*order, ("query", "ascending")])
    place = _places(_owners(ranked))
    return ranked.append_column("place", pa.array(place)).filter(pa.array(place <= config.top)).select(INDEX.names)


def _as_most_written(tied: pa.Table) -> pa.Table:
    """Of equally many ways to write a query the first in the order of the alphabet."""
    query = tied["query"].combine_chunks().dictionary_encode()
    ways, at = query.dictionary.to_pylist(), query.indices.to_numpy()
    times, forms = np.bincount(at, minlength=len(ways)), [normalised(way) for way in ways]
    best: dict[str, int] = {}
    for way in sorted(range(len(ways)), key=lambda way: (-times[way], ways[way])):
        best.setdefault(forms[way], way)
    most = np.array([best[form] for form in forms], dtype=np.int64)
    return tied.set_column(_KEY.index("query"), "query", query.dictionary.take(pa.array(most[at])))


def _worth(counted: pa.Table, searched: Mapping[str, int]) -> NDArray[np.float64]:
    """Of each row's query, 0 to 1: the same whatever trigger it belongs to."""
    query = counted["query"].combine_chunks().dictionary_encode()
    names, at = query.dictionary.to_pylist(), query.indices.to_numpy()
    views = np.log1p([searched.get(normalised(name), 0) for name in names])
    people, chance = counted["chance_count"].to_numpy(), counted["chance_mean"].to_numpy()
    chances = np.bincount(at, people * chance, len(names)) / np.maximum(np.bincount(at, people, len(names)), 1)
    each = (_over_largest(views) + _over_largest(chances)) / 2
    return np.asarray(each[at], dtype=np.float64)


def _over_largest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    most = values.max(initial=0.0)
    return values / most if most > 0 else np.zeros_like(values)


def _owners(rows: pa.Table) -> NDArray[np.int64]:
    """[rows] numbers of the triggers, equal for equal ones."""
    keys = pc.binary_join_element_wise(rows["kind"], rows["trigger"], "\x1f")
    return np.asarray(keys.combine_chunks().dictionary_encode().indices.to_numpy(), dtype=np.int64)


def _largest(values: NDArray[np.float64], owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """[owners]"""
    found = np.zeros(owner.max() + 1)
    np.maximum.at(found, owner, values)
    return found


def _places(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """[rows] places from 1 within runs of one owner."""
    if not len(owner):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    lengths = np.diff([*starts, len(owner)])
    return np.arange(1, len(owner) + 1, dtype=np.int64) - np.repeat(starts, lengths)
