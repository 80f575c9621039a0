"""Next-item samples in columns: ids are numbers, and a row is made when it is looked at.

A sample with 20 items of history is about 700 bytes as Python objects and 110 in columns; a year of a shop is millions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.next_item.store_features import StoreFeatures

_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class NextItem:
    """`history`: what the user did strictly before the day `as_of`, oldest first; `item_id`: what the user did then.

    `store_features`: what the feature store says of the user as of that day, where it was asked for."""

    user_id: str
    as_of: date
    item_id: str
    history: tuple[str, ...]
    subset: str
    store_features: StoreFeatures = field(default_factory=dict, hash=False)


class Words:
    """Words by number, in the order in which they first come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def numbered(self, column: pa.Array) -> NDArray[np.int32]:
        """The number of each word of a column without nulls: [rows]."""
        encoded = column.dictionary_encode()
        own = [self.numbers.setdefault(word, len(self.numbers)) for word in encoded.dictionary.to_pylist()]
        numbers: NDArray[np.int32] = np.array(own, dtype=np.int32)[encoded.indices.to_numpy()]
        return numbers


@dataclass(frozen=True, eq=False)
class Samples(Sequence[NextItem]):
    """`rows` [n]: the places of the samples in the columns, in their order. A subset or another order copies no column.

    `users`, `items`, `days` (since 1970), `subsets` [all] are the columns, as numbers of `user_ids`, `item_ids` and
    `subset_names`; row r has the items `history[starts[r] : starts[r + 1]]` before it. `store_features` [all], by name:
    what the feature store says of the user as of the row, NaN where it is unknown.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    subset_names: Sequence[str]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    days: NDArray[np.int32]
    subsets: NDArray[np.int32]
    history: NDArray[np.int32]
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    store_features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Sequence[NextItem]) -> Samples:
        """These samples in columns; they themselves where they are."""
        if isinstance(samples, Samples):
            return samples
        words = {name: [getattr(one, name) for one in samples] for name in ("user_id", "item_id", "subset")}
        table = pa.table(
            {name: pa.array(column, pa.string()) for name, column in words.items()}
            | {"day": pa.array([one.as_of for one in samples], pa.date32())}
            | {"history": pa.array([one.history for one in samples], pa.list_(pa.string()))}
        )
        table = table.select(["user_id", "day", "item_id", "history", "subset"])
        for name in dict.fromkeys(name for one in samples for name in one.store_features):
            table = table.append_column(name, pa.array([one.store_features.get(name) for one in samples], pa.float32()))
        return cls.of_tables([table])

    @classmethod
    def of_tables(cls, tables: Iterable[pa.Table]) -> Samples:
        """The rows of tables whose columns are user, day, item, history and subset, without nulls, in that order, and
        then what the feature store says, if anything: the same in all of them."""
        users, items, subsets = Words(), Words(), Words()
        columns: list[tuple[NDArray[np.int32], ...]] = []
        store: dict[str, list[NDArray[np.float32]]] = {}
        for table in tables:
            user, day, item, history, subset = (column.combine_chunks() for column in table.columns[:5])
            for name in table.column_names[5:]:
                store.setdefault(name, []).append(_floats(table[name]))
            columns.append(
                (
                    users.numbered(user),
                    items.numbered(item),
                    day.cast(pa.int32()).to_numpy(),
                    subsets.numbered(subset),
                    items.numbered(pc.list_flatten(history)),
                    pc.list_value_length(history).to_numpy(),
                )
            )
        of_users, of_items, days, of_subsets, history, lengths = map(np.concatenate, zip(*columns, strict=True))
        starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        words = tuple(users.numbers), tuple(items.numbers), tuple(subsets.numbers)
        told = {name: np.concatenate(parts) for name, parts in store.items()}
        return cls(*words, of_users, of_items, days, of_subsets, history, starts, np.arange(len(lengths)), told)

    def chosen(self, rows: NDArray[np.int64]) -> Samples:
        """The samples at these places in the columns."""
        return replace(self, rows=rows)

    def sorted(self, times: NDArray[np.int64]) -> Samples:
        """By user, time ([all], of the columns) and item; what is equal stays in its order."""
        by = (_places(self.item_ids)[self.items], times, _places(self.user_ids)[self.users])
        return self.chosen(self.rows[np.lexsort([column[self.rows] for column in by])])

    def once_a_day(self) -> Samples:
        """The first of those that have user, day and item in common; the others in their order."""
        keys = np.stack([column[self.rows] for column in (self.users, self.days, self.items)])
        order = np.lexsort(keys)  # what is equal stays in its order
        differs = (np.diff(keys[:, order], prepend=-1) != 0).any(axis=0)
        return self.chosen(self.rows[np.sort(order[differs])])

    def of_subset(self, subset: str) -> Samples:
        """The samples of one subset, in their order."""
        number = self.subset_names.index(subset) if subset in self.subset_names else -1
        return self.chosen(self.rows[self.subsets[self.rows] == number])

    def within(self, catalogue: Collection[str]) -> Samples:
        """The samples whose item the catalogue has, with what it has of their histories."""
        has = np.array([item in catalogue for item in self.item_ids], dtype=bool)
        kept = has[self.history]
        starts = np.concatenate(([0], np.cumsum(kept, dtype=np.int64)))[self.starts]
        rows = self.rows[has[self.items[self.rows]]]
        return replace(self, history=self.history[kept], starts=starts, rows=rows)

    def told(self) -> Iterator[tuple[str, date, str]]:
        """User, day and item of each, without the history."""
        columns = (column[self.rows].tolist() for column in (self.users, self.days, self.items))
        for user, day, item in zip(*columns, strict=True):
            yield self.user_ids[user], date.fromordinal(_EPOCH + day), self.item_ids[item]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> NextItem: ...
    @overload
    def __getitem__(self, place: slice) -> Samples: ...
    def __getitem__(self, place: int | slice) -> NextItem | Samples:
        return self.chosen(self.rows[place]) if isinstance(place, slice) else self._row(int(self.rows[place]))

    def __iter__(self) -> Iterator[NextItem]:
        return map(self._row, self.rows.tolist())

    def _row(self, row: int) -> NextItem:
        past = self.history[self.starts[row] : self.starts[row + 1]].tolist()
        told = {name: float(column[row]) for name, column in self.store_features.items() if not np.isnan(column[row])}
        return NextItem(
            self.user_ids[self.users[row]],
            date.fromordinal(_EPOCH + int(self.days[row])),
            self.item_ids[self.items[row]],
            tuple([self.item_ids[item] for item in past]),
            self.subset_names[self.subsets[row]],
            told,
        )


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Numbers or flags as numbers, null as NaN: [rows]."""
    found: NDArray[np.float32] = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)
    return found


def _places(words: Sequence[str]) -> NDArray[np.int64]:
    """The place of each word among all of them sorted: [words]."""
    found = np.empty(len(words), dtype=np.int64)
    found[sorted(range(len(words)), key=words.__getitem__)] = np.arange(len(words))
    return found
