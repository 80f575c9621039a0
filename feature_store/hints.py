"""Hints for somebody from both sides: lists written for the person (u2q), and the index by what they did last (x2q).

The person's own lists are written minutes after a signal and are of all that they did; the index is of the night, and
answers at once to what they did a second ago (AIGQ, section 2.7). The two take turns, and the index takes turns among
the triggers, the last thing done first (INFERRED: the paper leaves the order to the ranker behind). Each query stands
once, with every reason why it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, zip_longest
from typing import Any, Literal

from common.query_text import normalised
from feature_store.definitions import EVENT_TIME, TRIGGER_QUERIES, USER_HINTS
from feature_store.index import key_of, version_in_force
from feature_store.online import online_rows

SEARCH, ITEM = "search", "item"
MODEL = "model"
TRIGGERS = 10
"""So many of the last things done are looked up at most."""
Side = Literal["u2q", "x2q"]


@dataclass(frozen=True)
class Why:
    """Where a hint came from: the `side`, and what was done, by its `kind` (`search`, `item`) and key. `source`:
    `model`, or a row that counts. `version`: of the model that wrote the person's newest list, or of the index.
    `score`: of the index; None for the person's own lists, which have only an order."""

    side: Side
    kind: str
    trigger: str
    source: str
    version: str
    score: float | None = None


@dataclass(frozen=True)
class Found:
    """A query of one list, and why."""

    query: str
    why: Why


@dataclass(frozen=True)
class Shown:
    """A hint, and all that speaks for it; the first is what it has its place by."""

    query: str
    why: tuple[Why, ...]


def trigger_of(action: str, content: str) -> tuple[str, str]:
    """The kind and the key that something done is looked up by: an item by its id, a search by its one form."""
    return (SEARCH, normalised(content)) if action == SEARCH else (ITEM, content)


def merged(own: Sequence[Found], by_trigger: Sequence[Sequence[Found]], most: int, asked: str = "") -> list[Shown]:
    """At most `most` hints, each once whatever its case and spaces, as the first that has it writes it.

    Args:
        own: the person's lists, the newest first.
        by_trigger: the list of each trigger, that of the last thing done first.
        asked: the one form of what was searched for just now: who has it before them needs no hint of it.
    """
    reasons, words = dict[str, list[Why]](), dict[str, str]()
    for found in _in_turn([own, list(_in_turn(by_trigger))]):
        key = normalised(found.query)
        if key and key != asked:
            words.setdefault(key, found.query)
            reasons.setdefault(key, []).append(found.why)
    return [Shown(words[key], tuple(dict.fromkeys(why))) for key, why in list(reasons.items())[:most]]


def _in_turn(lists: Iterable[Sequence[Found]]) -> Iterable[Found]:
    return (found for found in chain.from_iterable(zip_longest(*lists)) if found is not None)


def hints_of(
    store: Any, user_id: str, done: Sequence[tuple[str, str]], most: int = 10, now: datetime | None = None
) -> list[Shown]:
    """The hints of a person who did `done` (action and content, oldest first), read of an opened online store.

    What they searched for last of all is none of them. Each side may be empty, and so may both: nobody has written for
    the person of late, no night has an index yet, or nothing was tied to what they did. All that is read of the index
    is of one version.
    """
    last = list(dict.fromkeys(trigger_of(*one) for one in reversed(done)))[:TRIGGERS]
    asked = next((key for kind, key in last[:1] if kind == SEARCH), "")
    return merged(own_lists(store, user_id, now or datetime.now(UTC)), of_triggers(store, last), most, asked)


def own_lists(store: Any, user_id: str, now: datetime) -> list[Found]:
    """The person's own lists, the newest first; none where they are older than the view lets them be."""
    row = online_rows(store, USER_HINTS, [user_id]).get(user_id)
    if row is None or row[EVENT_TIME] + USER_HINTS.ttl < now:
        return []
    done = [trigger_of(*one) for one in zip(row["trigger_actions"], row["trigger_contents"], strict=True)]
    lines = zip(row["queries"], row["sources"], (done[number] for number in row["lists"]), strict=True)
    version = row["model_version"]
    return [Found(query, Why("u2q", kind, trigger, source, version)) for query, source, (kind, trigger) in lines]


def of_triggers(store: Any, triggers: Sequence[tuple[str, str]]) -> list[list[Found]]:
    """The list of each trigger in the index in force."""
    version = version_in_force(store)
    if version is None or not triggers:
        return [[] for _ in triggers]
    keys = [key_of(version, *trigger) for trigger in triggers]
    rows = online_rows(store, TRIGGER_QUERIES, keys)
    nothing = dict.fromkeys(TRIGGER_QUERIES.listed, ())
    return [
        [
            Found(query, Why("x2q", kind, trigger, MODEL, version, score))
            for query, score in zip(row["query"], row["score"], strict=True)
        ]
        for (kind, trigger), row in zip(triggers, (rows.get(key, nothing) for key in keys), strict=True)
    ]
