"""How what was written down reaches the landing folder: the next file, some days late, or twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa

from spark_jobs.landing.tables import TABLES
from spark_jobs.market.draws import Draws
from spark_jobs.market.parameters import LandingParameters
from spark_jobs.market.visits import DAY
from spark_jobs.market.written import by_day

_TABLE = "events"  # a shop's own; the others are the market's


def delivered(name: str, numbers: pa.Table, own: LandingParameters, draws: Draws) -> Iterator[tuple[date, pa.Table]]:
    """The rows by the day on which they land: that of their time, but for some of the events."""
    days = numbers[TABLES[name].time].to_numpy() // DAY
    if name == _TABLE and (own.late > 0 or own.twice > 0):
        keys = [numbers[key].to_numpy() for key in ("user_id", "item_id", "event_time")]
        again = np.flatnonzero(draws.uniform("lands twice", *keys) < own.twice)
        rows = np.concatenate([np.arange(len(numbers)), again])
        copy = np.arange(len(rows)) >= len(numbers)
        keys = [*(key[rows] for key in keys), copy]
        late = draws.uniform("lands late", *keys) < own.late
        waits = np.ceil(own.days * draws.exponential("lands after", *keys)).astype(np.int64)
        numbers, days = numbers.take(rows), days[rows] + np.where(late, waits, 0)
    return by_day(numbers, days)
