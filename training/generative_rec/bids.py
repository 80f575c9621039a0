"""What advertisers pay for a click, as of the day of a sample: the newest bid of an item before it, 0 without one.

The eCPM of an item is 1000 times its bid times the chance of a click (the contract of `bids`); of an item that was
taken the chance is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, read_query
from training.core.tables import refuse_nulls

BIDS = "bids"
"""The stage's query over the table `bids`, which a shop may not have."""
_COLUMNS = {"item_id": pa.string(), "bid_time": pa.timestamp("us", "UTC"), "bid": pa.float64()}
_DAY = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, eq=False)
class Bids:
    """By item: `times` [rows] in microseconds since 1970, ascending, and the `bid` [rows] that holds from then on."""

    by_item: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]

    @classmethod
    def read(cls, spec: StageSpec) -> Self:
        """All that the spec's query has found. LeftOut where the shop has none: nobody pays for a click there."""
        do = "learn from `business: next_item`, or land the shop's bids"
        if BIDS not in spec.tables:
            raise LeftOut("the shop has no bids, of which the eCPM is made", do=do)
        try:
            table = read_query(spec, BIDS, _COLUMNS)
        except LeftOut as refusal:
            raise LeftOut("the shop has no bids, of which the eCPM is made", do=do) from refusal
        refuse_nulls(BIDS, table, _COLUMNS)
        bids = table["bid"].to_numpy()
        if not (np.isfinite(bids) & (bids >= 0.0)).all():
            raise DataError("a bid is below zero or no number", where=BIDS, do="correct the file, and land it again")
        items = table["item_id"].combine_chunks().dictionary_encode()
        times = table["bid_time"].cast(pa.int64()).to_numpy()
        number = items.indices.to_numpy()
        order = np.lexsort((times, number))
        ends = np.searchsorted(number[order], np.arange(len(items.dictionary) + 1))
        return cls(
            {
                item: (times[rows], bids[rows])
                for n, item in enumerate(items.dictionary.to_pylist())
                for rows in (order[ends[n] : ends[n + 1]],)
            }
        )

    def of(self, item: str, as_of: date) -> float:
        """The bid that held at 00:00 UTC of the day."""
        if item not in self.by_item:
            return 0.0
        times, bids = self.by_item[item]
        place = int(np.searchsorted(times, (as_of.toordinal() - _EPOCH) * _DAY, side="right"))
        return float(bids[place - 1]) if place else 0.0
