"""A simulated shop for the benchmark of the training stages: the tables that they read, made column by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.next_item.public_sets import ITEMS_SCHEMA
from training.semantic_judge.example_tables import (
    EVENTS,
    EXAMPLE_COLUMNS,
    EXAMPLES,
    MEAN_RATING,
    PAIR_COLUMNS,
    PAIRS,
    PROFILE_TEXT,
    TIME,
)
from training.semantic_judge.examples import SUBSETS, Ints

Flags = NDArray[np.bool_]
Words = NDArray[np.str_]

_EACH, _STATES_OF_USER, _HISTORY, _LATER = 4, 3, 20, 10
_KINDS, _BRANDS = 400, 3000
_DAY = 86_400_000_000
_FIRST = 20_000  # days since 1970
_WORDS = [
    "pen",
    "desk",
    "lamp",
    "paper",
    "ink",
    "steel",
    "oak",
    "blue",
    "clamp",
    "refill",
    "board",
    "whisk",
    "office",
    "drawer",
    "folder",
    "label",
    "roll",
    "set",
    "pack",
]


def write_tables(folder: Path, items: int, examples: int, pairs: int) -> None:
    """`items`, `judge_training_set` and `judge_pairs` into `folder`: four examples for each user state, three states
    for each user, histories of 20, and what is liked hangs on kind and price, on each more or less by user.

    Users are parted 6 : 1 : 3. Titles are of some twelve words, profiles of some forty.
    """
    rng = np.random.default_rng(17)
    states = examples // _EACH
    user = np.arange(states) // _STATES_OF_USER
    kind, price = np.arange(items) % _KINDS, rng.uniform(1, 90, items)
    history, asked = rng.integers(0, items, (states, _HISTORY)), rng.integers(0, items, (states, _EACH))
    likes, dear = user % _KINDS, rng.random(user[-1] + 1)[user]
    near = np.abs((kind[asked] - likes[:, None] + _KINDS // 2) % _KINDS - _KINDS // 2) < _KINDS // 4
    cheap = price[asked] < 45
    liked = np.where(rng.random(asked.shape) < dear[:, None], cheap, near) ^ (rng.random(asked.shape) < 0.1)
    part = np.array(SUBSETS)[np.searchsorted([60, 70], np.arange(user[-1] + 1) % 100, side="right")][user]
    days = (_FIRST + np.arange(states) % 300) * _DAY
    tables = {
        "items": _catalogue(items, kind, price, rng),
        EXAMPLES: _examples(user, days, part, history, asked, liked, rng),
        PAIRS: _pairs(user, days, part, asked, liked, pairs),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        pq.write_table(rows.replace_schema_metadata({"origin": "simulated"}), folder / f"{name}.parquet")


def _texts(rows: int, words: int, rng: np.random.Generator) -> list[str]:
    return [" ".join(row) for row in np.array(_WORDS)[rng.integers(0, len(_WORDS), (rows, words))].tolist()]


def _catalogue(items: int, kind: Ints, price: NDArray[np.float64], rng: np.random.Generator) -> pa.Table:
    columns = {name: pa.nulls(items, ITEMS_SCHEMA.field(name).type) for name in ITEMS_SCHEMA.names}
    titles = [f"{words} {number}" for number, words in enumerate(_texts(items, 11, rng))]
    columns |= {"item_id": pa.array([f"i{n}" for n in range(items)]), "title": pa.array(titles)}
    columns |= {"brand": pa.array([f"brand {n % _BRANDS}" for n in range(items)]), "price": pa.array(price)}
    columns |= {"category": pa.array([f"Shop > kind {n}" for n in kind.tolist()]), "source": pa.array(["shop"] * items)}
    return pa.table(columns).cast(ITEMS_SCHEMA)


def _examples(
    user: Ints, days: Ints, part: Words, history: Ints, asked: Ints, liked: Flags, rng: np.random.Generator
) -> pa.Table:
    """Three of four are taken, with stars; the last was drawn."""
    size, row = asked.size, np.repeat(np.arange(len(user)), _EACH)
    taken = np.arange(size) % _EACH < _EACH - 1
    stars, profiles = rng.choice([1.0, 2.0, 5.0], history.shape), _texts(len(user), 40, rng)
    known = rng.random(size) < 0.8
    columns = {
        "user_id": _names("u", user[row]),
        "as_of": pa.array(days[row]).cast(TIME),
        "item_id": _names("i", asked.ravel()),
        "kinds": pa.array([["taken"] if one else ["drawn"] for one in taken.tolist()]),
        "rating": pa.array(np.where(liked.ravel(), 5.0, 1.0), mask=~taken),
        "history_item_ids": _lists(_names("i", history[row].ravel()), _HISTORY),
        "history_ratings": _lists(pa.array(stars[row].ravel()), _HISTORY),
        "later_item_ids": _lists(_names("i", rng.integers(0, asked.max() + 1, size * _LATER)), _LATER),
        "context": pa.nulls(size, pa.string()),
        "split_time": pa.array(part[row].tolist()),
        MEAN_RATING: pa.array(rng.uniform(1, 5, size), mask=~known),
        EVENTS: pa.array(rng.integers(1, 99, size), mask=~known),
        PROFILE_TEXT: pa.array(profiles).take(pa.array(row)),
    }
    return pa.table(columns).cast(pa.schema(dict(EXAMPLE_COLUMNS)))


def _pairs(user: Ints, days: Ints, part: Words, asked: Ints, liked: Flags, limit: int) -> pa.Table:
    """Of the first states whose first two items are not liked alike."""
    chosen = np.flatnonzero(liked[:, 0] != liked[:, 1])[:limit]
    first = liked[chosen, 0]
    columns = {
        "user_id": _names("u", user[chosen]),
        "as_of": pa.array(days[chosen]).cast(TIME),
        "preferred_item_id": _names("i", np.where(first, asked[chosen, 0], asked[chosen, 1])),
        "other_item_id": _names("i", np.where(first, asked[chosen, 1], asked[chosen, 0])),
        "source": pa.array(["rating"] * len(chosen)),
        "split_time": pa.array(part[chosen].tolist()),
    }
    return pa.table(columns).cast(pa.schema(dict(PAIR_COLUMNS)))


def _names(letter: str, numbers: Ints) -> pa.Array:
    return pa.array([f"{letter}{number}" for number in numbers.tolist()])


def _lists(values: pa.Array, length: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32)), values)
