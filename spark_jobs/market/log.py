"""What the shop of the market writes down, column by column; people and items by their numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints


@dataclass
class Log:
    """Batches of places of lists that were shown, and of what people did. Times are microseconds since 1970."""

    exposures: list[pa.RecordBatch] = field(default_factory=list)
    events: list[pa.RecordBatch] = field(default_factory=list)

    def show(self, visit: int, columns: dict[str, Any]) -> None:
        """Places of lists of everybody's `visit`-th visit."""
        count = len(columns["user"])
        self.exposures.append(pa.record_batch({**columns, "visit": np.full(count, visit, dtype=np.int64)}))

    def act(self, kind: str, user: Ints, item: Ints, time: Ints, price: Floats, rating: Ints | None = None) -> None:
        """Events of one kind."""
        count = len(user)
        self.events.append(
            pa.record_batch(
                {
                    "user": user,
                    "item": item,
                    "time": time,
                    "event_type": pa.array([kind] * count, pa.string()),
                    "rating": pa.nulls(count, pa.float64()) if rating is None else rating.astype(np.float64),
                    "price": np.round(price, 2),
                }
            )
        )
