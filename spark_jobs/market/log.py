"""What the shop of the market writes down, column by column; people and items by their numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs.market import choices
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.visits import DAY, SECOND, Visit, World

_READS, _DECIDES = 8 * SECOND, 40 * SECOND  # a place of a list; from click to purchase
_REVIEWS = 5.0  # days from purchase to review


@dataclass
class Log:
    """Batches of places of lists that were shown, and of what people did. Times are microseconds since 1970."""

    exposures: list[pa.RecordBatch] = field(default_factory=list)
    events: list[pa.RecordBatch] = field(default_factory=list)

    def write(self, world: World, visit: Visit) -> None:
        """One visit of each of some people."""
        self._show(world, visit)
        done, items, prices = visit.done, visit.items, visit.prices
        at = visit.time[:, None] + _READS * (1 + np.arange(items.shape[1]))[None, :]
        stages = (("click", done.clicked, 0), ("cart", done.carted, _DECIDES // 2), ("purchase", done.bought, _DECIDES))
        for kind, mask, later in stages:
            found = np.nonzero(mask)
            self._act(kind, visit.number[found[0]], items[found], at[found] + later, prices[found])
        self._rate(world, visit, np.nonzero(done.bought), at)

    def _show(self, world: World, visit: Visit) -> None:
        rows, places = np.nonzero(visit.listed[:, None] & (visit.items >= 0))
        columns: dict[str, Any] = {
            "user": visit.number[rows],
            "time": visit.time[rows],
            "position": places + 1,
            "item": visit.items[rows, places],
            "item_chance": np.exp(visit.log_chances[rows, places]),
            "list_chance": np.exp(visit.log_chances.sum(axis=1))[rows],
            "bid": world.shop.bids[visit.items[rows, places]],
            "visit": np.full(len(rows), visit.session, dtype=np.int64),
        }
        self.exposures.append(pa.record_batch(columns))

    def _rate(self, world: World, visit: Visit, bought: tuple[Ints, ...], at: Ints) -> None:
        """Some of what was bought, days later, if the horizon is not over then."""
        own, draws, horizon = world.parameters.choices, world.draws, world.horizon
        number, items, prices = visit.number[bought[0]], visit.items[bought], visit.prices[bought]
        keys = (number, visit.session, items)
        session = np.full(len(number), visit.session)
        stars = choices.ratings(visit.worth[bought], (number, session), items, own, draws)
        days = _REVIEWS * draws.exponential("review", *keys)
        when = at[bought] + (days * DAY).astype(np.int64) // SECOND * SECOND
        told = (draws.uniform("rates", *keys) < own.rates) & (when < horizon.start + horizon.days * DAY)
        self._act("review", number[told], items[told], when[told], prices[told], stars[told])

    def _act(self, kind: str, user: Ints, item: Ints, time: Ints, price: Floats, rating: Ints | None = None) -> None:
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


def logged(world: World, number: Ints) -> Log:
    """The log of these people, shown the lists of the logging policy."""
    log = Log()
    for visit in world.visits(world.people(number), world.logging):
        log.write(world, visit)
    return log
