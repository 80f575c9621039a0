"""What others had made of an item before a day: the table `item_stats`, asked as the feature store is.

A row of `item_stats` may be used from its `available_at` on, and says nothing more once it is a year old: the newest
such row is what Feast joins to a judge's example (`item_daily`). An item that is judged here and stands in no example,
a generated one or one of a nightly list, has the same evidence so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.core.stage import StageSpec, read_batches
from training.core.tables import refuse_nulls
from training.semantic_judge.examples import Catalogue, Floats, Ints

TABLE = "item_stats"
TTL_DAYS = 365
_COLUMNS = {
    "item_id": pa.string(),
    "available_at": pa.timestamp("us", "UTC"),
    "mean_rating_365d": pa.float64(),
    "events_365d": pa.int64(),
}
_NULLABLE = "mean_rating_365d"
_DAY = 86_400_000_000
_DAYS = 1 << 16


@dataclass(frozen=True, eq=False)
class ItemStatistics:
    """Rows in the order of item and day: `keys` [rows] holds both, with `mean_rating` [rows] (NaN: nobody rated it) and
    `events` [rows] of a year."""

    keys: Ints
    mean_rating: Floats
    events: Floats

    @classmethod
    def read(cls, spec: StageSpec, catalogue: Catalogue) -> Self:
        """The table that the spec names, of the catalogue's items."""
        ids = pa.array([item.item_id for item in catalogue.items], pa.string())
        parts = [_part(batch, ids) for batch in read_batches(spec, TABLE, _COLUMNS)]
        keys, ratings, events = (np.concatenate(columns) for columns in zip(_NOTHING, *parts, strict=True))
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], ratings[order], events[order])

    def of(self, items: Ints, days: Ints) -> tuple[Floats, Floats]:
        """Mean rating and events of each item [n] before 00:00 UTC of each day [n] (since 1970); NaN where nothing is
        known."""
        wanted = items * _DAYS + days
        place = np.searchsorted(self.keys, wanted, side="right") - 1
        row = np.maximum(place, 0)
        if not len(self.keys):
            nothing = np.full(len(items), np.nan, dtype=np.float32)
            return nothing, nothing.copy()
        fresh = (place >= 0) & (self.keys[row] // _DAYS == items) & (wanted - self.keys[row] <= TTL_DAYS)
        return (
            np.where(fresh, self.mean_rating[row], np.float32(np.nan)),
            np.where(fresh, self.events[row], np.float32(np.nan)),
        )


_NOTHING = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32)


def _part(batch: pa.Table, ids: pa.Array) -> tuple[Ints, Floats, Floats]:
    refuse_nulls(TABLE, batch, [name for name in _COLUMNS if name != _NULLABLE])
    known = batch.filter(pc.is_in(batch["item_id"], ids))
    items = pc.index_in(known["item_id"], ids).to_numpy().astype(np.int64)
    days = known["available_at"].cast(pa.int64()).to_numpy() // _DAY
    ratings, events = (known[name].cast(pa.float32()).to_numpy() for name in ("mean_rating_365d", "events_365d"))
    return items * _DAYS + days, ratings, events
