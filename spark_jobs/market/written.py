"""From the numbers of the market's log to the rows of its tables' contracts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import arrow_schema
from spark_jobs.landing.tables import TABLES
from spark_jobs.market.chats import PLACES
from spark_jobs.market.lists import Ints
from spark_jobs.market.visits import VISITS

LOGS = (
    *("exposures", "events", "hint_exposures", "searches", "bids", "chats"),
    *("true_people", "true_tastes", "true_exposures", "true_requests", "true_hints", "true_chats"),
)
"""The tables that a market writes."""
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Written:
    """`words`: of a column by its name, what its numbers stand for; users and requests have ids of their numbers."""

    words: Mapping[str, pa.Array]

    def table(self, name: str, numbers: pa.Table) -> pa.Table:
        """The rows, sorted by time and key; those that are alike stay in their order."""
        landed = TABLES[name]
        keys = dict.fromkeys((landed.time, *landed.contract.key))
        order = pc.sort_indices(numbers, sort_keys=[(key, "ascending") for key in keys])
        kinds = {column.name: column.type for column in arrow_schema(landed.contract)}
        names = [name for name in landed.accepted if name in numbers.column_names]
        return pa.table({name: self._column(name, numbers[name], order).cast(kinds[name]) for name in names})

    def _column(self, name: str, numbers: pa.ChunkedArray, order: pa.Array) -> pa.ChunkedArray:
        taken = numbers.take(order).combine_chunks()
        if name in self.words:
            there = pc.if_else(pc.greater_equal(taken, 0), taken, pa.scalar(None, pa.int64()))
            return self.words[name].take(there)
        if name == "user_id":
            return _user(taken)
        if name == "request_id":
            return _request(taken)
        if name == "chat_id":
            place = pc.bit_wise_and(taken, PLACES - 1).cast(pa.string())
            return pc.binary_join_element_wise(_request(pc.shift_right(taken, PLACES.bit_length() - 1)), place, "-")
        return taken


def _request(numbers: pa.Array) -> pa.Array:
    visit = pc.bit_wise_and(numbers, VISITS - 1).cast(pa.string())
    return pc.binary_join_element_wise(_user(pc.shift_right(numbers, VISITS.bit_length() - 1)), visit, "-")


def _user(numbers: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise("m", pc.utf8_lpad(numbers.cast(pa.string()), 9, "0"), "")


def by_day(numbers: pa.Table, days: Ints) -> Iterator[tuple[date, pa.Table]]:
    """The rows of each of the `days` since 1970, [N]."""
    order = np.argsort(days, kind="stable")
    rows, ordered = numbers.take(order), days[order]
    ends = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(ordered)]
    for start, end in pairwise(ends):
        if end > start:
            yield date.fromordinal(_EPOCH + int(ordered[start])), rows.slice(start, end - start)
