"""The tables `judge_training_set`, `judge_pairs` and `items`, read into columns (`examples`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.core.catalogue import item_text, read_catalogue
from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, is_main_process, read_batches, read_table
from training.core.tables import EmptyTable, refuse_nulls
from training.semantic_judge.examples import (
    SUBSETS,
    Cases,
    Catalogue,
    Examples,
    Floats,
    Hindsight,
    Ints,
    Item,
    Pairs,
    States,
)

EXAMPLES, PAIRS = "judge_training_set", "judge_pairs"
MEAN_RATING, EVENTS = "item_daily__mean_rating_365d", "item_daily__events_365d"
PROFILE_TEXT = "user_profile__profile_text"
TIME = pa.timestamp("us", "UTC")
EXAMPLE_COLUMNS: Mapping[str, pa.DataType] = {
    "user_id": pa.string(),
    "as_of": TIME,
    "item_id": pa.string(),
    "kinds": pa.list_(pa.string()),
    "rating": pa.float64(),
    "history_item_ids": pa.list_(pa.string()),
    "history_ratings": pa.list_(pa.float64()),
    "later_item_ids": pa.list_(pa.string()),
    "context": pa.string(),
    "split_time": pa.string(),
    MEAN_RATING: pa.float64(),
    EVENTS: pa.int64(),
    PROFILE_TEXT: pa.string(),
}
"""What is read of `judge_training_set`."""
PAIR_COLUMNS: Mapping[str, pa.DataType] = {
    "user_id": pa.string(),
    "as_of": TIME,
    "preferred_item_id": pa.string(),
    "other_item_id": pa.string(),
    "source": pa.string(),
    "split_time": pa.string(),
}
"""What is read of `judge_pairs`."""
_DAY = 86_400_000_000
_WAIT = "wait for more events"
_NULLABLE = ("rating", "context", MEAN_RATING, EVENTS, PROFILE_TEXT)


def read_items(spec: StageSpec) -> Catalogue:
    """The catalogue of the sources that the examples are of, with prices. LeftOut where no example is of an item."""
    prices = read_table(spec, "items", {"item_id": pa.string(), "price": pa.float64()})
    try:
        asked = read_table(spec, EXAMPLES, {"item_id": pa.string()})["item_id"]
    except EmptyTable as error:
        raise LeftOut("there is no example", where=EXAMPLES, do=_WAIT) from error
    if not pc.any(pc.is_in(asked, prices["item_id"].combine_chunks())).as_py():
        raise LeftOut("no example is of an item of the catalogue", where=EXAMPLES, do=_WAIT)
    rows = read_catalogue(spec, (), EXAMPLES)
    price = dict(zip(prices["item_id"].to_pylist(), prices["price"].to_pylist(), strict=True))
    return Catalogue([item_of({**row, "price": price[row["item_id"]]}) for row in rows])


def item_of(row: Mapping[str, Any]) -> Item:
    """A row of the table `items`, with its price."""
    kind = (row["category"] or "").rpartition(" > ")[2] or None
    return Item(row["item_id"], row["title"] or None, row["brand"] or None, kind, row["price"], item_text(row, None))


def read_examples(spec: StageSpec, catalogue: Catalogue) -> Examples:
    """All examples whose item is in the catalogue, in the order of the files; the log says how many others there are.

    A history of the catalogue's items alone: others are passed over. Raises LeftOut where no example is for training,
    DataError for rows that break the table's contract.
    """
    ids = pa.array([item.item_id for item in catalogue.items], pa.string())
    parts, gone = list[_Part](), 0
    for batch in read_batches(spec, EXAMPLES, EXAMPLE_COLUMNS):
        refuse_nulls(EXAMPLES, batch, [name for name in EXAMPLE_COLUMNS if name not in _NULLABLE])
        known = batch.filter(pc.is_in(batch["item_id"], ids))
        gone += len(batch) - len(known)
        if len(known):
            parts.append(_part(known.combine_chunks(), ids))
    if gone and is_main_process():
        sys.stderr.write(f"warning: {gone} examples are of items that are not in the catalogue, and are not judged\n")
    if not parts:
        raise LeftOut("no example is of an item of the catalogue", where=EXAMPLES, do=_WAIT)
    found = _joined(parts, catalogue)
    if not len(found.rows_of("train")):
        raise LeftOut("no example is for training", where=EXAMPLES, do="check the cut dates of the split")
    return found


def read_pairs(spec: StageSpec, examples: Examples) -> Pairs:
    """The pairs both of whose members are examples; the log says how many others there are. None in a young shop."""
    try:
        table = read_table(spec, PAIRS, PAIR_COLUMNS)
    except EmptyTable:
        nothing = np.empty(0, dtype=np.int64)
        return Pairs(nothing, nothing, np.empty(0, dtype=np.str_), np.empty(0, dtype=np.int8))
    refuse_nulls(PAIRS, table, PAIR_COLUMNS)
    users, days = table["user_id"].to_pylist(), _days(table["as_of"])
    preferred, other = (examples.find(users, days, table[name].to_pylist()) for name in _MEMBERS)
    there = (preferred >= 0) & (other >= 0)
    if is_main_process() and not there.all():
        sys.stderr.write(f"warning: of {int((~there).sum())} of {len(there)} pairs a member is no example\n")
    source = np.array(table["source"].to_pylist(), dtype=np.str_)
    return Pairs(preferred, other, source, _subsets(table["split_time"], PAIRS)).chosen(there)


_MEMBERS = ("preferred_item_id", "other_item_id")


def keys_of(examples: Examples, rows: Ints) -> pa.Table:
    """`user_id`, `as_of`, `item_id` of the examples at these places: what names one in every table."""
    cases = examples.cases.chosen(rows)
    ids = pa.array([item.item_id for item in cases.catalogue.items], pa.string())
    users, days = pa.array(cases.states.users, pa.string()), cases.states.days[cases.state]
    columns = users.take(pa.array(cases.state)), pa.array(days * _DAY).cast(TIME), ids.take(pa.array(cases.item))
    return pa.table(dict(zip(("user_id", "as_of", "item_id"), columns, strict=True)))


def found_by_key(examples: Examples, table: pa.Table) -> Ints:
    """The place of the example that each row's `user_id`, `as_of`, `item_id` name; -1 where there is none: [rows]."""
    return examples.find(table["user_id"].to_pylist(), _days(table["as_of"]), table["item_id"].to_pylist())


class _Part(NamedTuple):
    """Some rows: `first` [states] are the rows at which a new state stands, the others are columns by row."""

    users: list[str]
    days: Ints
    lengths: Ints
    history: Ints
    ratings: Floats
    profiles: list[str | None]
    contexts: list[str | None]
    state: Ints
    item: Ints
    mean_rating: Floats
    events: Floats
    later_lengths: Ints
    later: Ints
    rating: Floats
    taken: NDArray[np.bool_]
    passed: NDArray[np.bool_]
    subset: NDArray[np.int8]


def _part(rows: pa.Table, ids: pa.Array) -> _Part:
    state, first = _states(rows)
    states = rows.take(pa.array(first))
    history, lengths, ratings = _events(states, ids)
    later, later_lengths = _listed(rows["later_item_ids"], ids)
    taken = np.array(["taken" in kinds for kinds in rows["kinds"].to_pylist()], dtype=bool)
    return _Part(
        states["user_id"].to_pylist(),
        _days(states["as_of"]),
        lengths,
        history,
        ratings,
        states[PROFILE_TEXT].to_pylist(),
        states["context"].to_pylist(),
        state,
        pc.index_in(rows["item_id"], ids).to_numpy().astype(np.int64),
        _floats(rows[MEAN_RATING]),
        _floats(rows[EVENTS]),
        later_lengths,
        later,
        _floats(rows["rating"]),
        taken,
        ~taken & np.array(["shown" in kinds for kinds in rows["kinds"].to_pylist()], dtype=bool),
        _subsets(rows["split_time"], EXAMPLES),
    )


def _states(rows: pa.Table) -> tuple[Ints, Ints]:
    """The state of each row, and the first row of each state: who, which day, and what is looked for."""
    words = [pc.fill_null(rows[name], "").combine_chunks() for name in ("user_id", "context")]
    numbers = [word.dictionary_encode().indices.to_numpy().astype(np.int64) for word in words]
    keys = np.stack([*numbers, _days(rows["as_of"])])
    _, first, state = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    return state.reshape(-1).astype(np.int64), first.astype(np.int64)


def _events(states: pa.Table, ids: pa.Array) -> tuple[Ints, Ints, Floats]:
    """The histories of the catalogue's items one after the other, their lengths, and the ratings."""
    listed, rated = states["history_item_ids"].combine_chunks(), states["history_ratings"].combine_chunks()
    if not pc.all(pc.equal(pc.list_value_length(listed), pc.list_value_length(rated))).as_py():
        raise DataError(
            "a history has more items than ratings, or fewer", where=EXAMPLES, do="build the table with the current job"
        )
    ratings, known = _floats(pc.list_flatten(rated)), _found(pc.list_flatten(listed), ids)
    history, lengths = _listed(states["history_item_ids"], ids)
    return history, lengths, ratings[known >= 0]


def _listed(lists: pa.ChunkedArray, ids: pa.Array) -> tuple[Ints, Ints]:
    """The numbers of the catalogue's items in lists, one after the other, and how many each list has."""
    own = lists.combine_chunks()
    numbers, owner = _found(pc.list_flatten(own), ids), pc.list_parent_indices(own).to_numpy()
    return numbers[numbers >= 0], np.bincount(owner[numbers >= 0], minlength=len(own)).astype(np.int64)


def _found(items: pa.Array, ids: pa.Array) -> Ints:
    numbers: Ints = pc.fill_null(pc.index_in(items, ids), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column.cast(pa.float32()), np.nan).to_numpy(), dtype=np.float32)


def _days(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64) // _DAY


def _subsets(column: pa.ChunkedArray, table: str) -> NDArray[np.int8]:
    found = pc.index_in(column, pa.array(SUBSETS))
    if found.null_count:
        raise DataError(
            f"table {table} has rows of a split part other than {', '.join(SUBSETS)}",
            do="build it with the current job",
        )
    return np.asarray(found.to_numpy(), dtype=np.int8)


def _joined(parts: Sequence[_Part], catalogue: Catalogue) -> Examples:
    """All parts as one; a state that stands in several stays several, which costs room and changes nothing."""
    sizes = np.cumsum([0, *(len(part.users) for part in parts)])
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in _Part._fields
        if name not in ("users", "profiles", "contexts", "state")
    }
    words = {
        name: [word for part in parts for word in getattr(part, name)] for name in ("users", "profiles", "contexts")
    }
    states = States(
        words["users"],
        columns["days"],
        _starts(columns["lengths"]),
        columns["history"],
        columns["ratings"],
        words["profiles"],
        words["contexts"],
    )
    state = np.concatenate([part.state + start for part, start in zip(parts, sizes, strict=False)])
    cases = Cases(catalogue, states, state, columns["item"], columns["mean_rating"], columns["events"])
    told = (columns[name] for name in ("later", "rating", "taken", "passed"))
    hindsight = Hindsight(_starts(columns["later_lengths"]), *told)
    return Examples(cases, hindsight, columns["subset"])


def _starts(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
