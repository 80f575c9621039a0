"""What the shop of the market writes down: rows of its tables, people, requests and items by their numbers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs.market import chats, choices, truth
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.visits import DAY, DECIDES, SECOND, Visit, World

_GLANCES, _TYPES = 1 * SECOND, 5 * SECOND  # at a hint; a query
LISTS, HINTS = 0, 1
"""Numbers of the logging policies."""
_REVIEWS = 5.0  # days from purchase to review


@dataclass
class Log:
    """Batches of rows by table, in the columns of its contract (`written.Written` makes ids and words of numbers).

    Times are microseconds since 1970. -1 stands for nothing.
    """

    batches: dict[str, list[pa.RecordBatch]] = field(default_factory=lambda: defaultdict(list))

    def add(self, table: str, **columns: Any) -> None:
        """More rows of a table."""
        self.batches[table].append(pa.record_batch(columns))


def tell_bids(log: Log, world: World) -> None:
    """What advertisers pay; they pay the same all the time."""
    paid = np.flatnonzero(world.shop.bids > 0)
    log.add("bids", item_id=paid, bid_time=np.full(len(paid), world.horizon.start), bid=world.shop.bids[paid])


def logged(world: World, number: Ints) -> Log:
    """The log of these people, shown the lists of the logging policy."""
    log, people = Log(), world.people(number)
    truth.tell_people(log, world, people)
    for visit in world.visits(people, world.logging):
        _hint(log, world, visit)
        _search(log, world, visit)
        _show(log, world, visit)
        _act(log, world, visit)
        truth.tell_visit(log, world, visit)
        truth.tell_hints(log, world, visit)
        chats.tell(log, world, visit)
    return log


def _hint(log: Log, world: World, visit: Visit) -> None:
    hints = visit.hints
    rows, places = np.nonzero(hints.queries >= 0)
    people = hints.rows[rows]
    log.add(
        "hint_exposures",
        request_id=visit.requests[people],
        user_id=visit.number[people],
        exposure_time=visit.time[people],
        position=places + 1,
        query=hints.queries[rows, places],
        policy_version=np.full(len(rows), HINTS),
        hint_chance=np.exp(hints.log_chances[rows, places]),
        list_chance=np.exp(hints.log_chances.sum(axis=1))[rows],
    )


def _search(log: Log, world: World, visit: Visit) -> None:
    rows = np.flatnonzero(visit.query >= 0)
    hinted, place = np.zeros(len(visit.number), dtype=bool), np.zeros(len(visit.number), dtype=np.int64)
    at, places = np.nonzero(visit.hints.clicked)
    hinted[visit.hints.rows[at]], place[visit.hints.rows[at]] = True, places
    clicked = visit.done.clicked[rows]
    first = visit.items[rows, clicked.argmax(axis=1)]
    log.add(
        "searches",
        request_id=visit.requests[rows],
        user_id=visit.number[rows],
        search_time=visit.time[rows] + np.where(hinted, _GLANCES * (1 + place), _TYPES)[rows],
        source=pa.array(np.where(hinted[rows], "hint", "typed").tolist(), pa.string()),
        query=visit.query[rows],
        item_id=np.where(clicked.any(axis=1), first, -1),
    )


def _show(log: Log, world: World, visit: Visit) -> None:
    rows, places = np.nonzero(visit.listed[:, None] & (visit.items >= 0))
    items = visit.items[rows, places]
    log.add(
        "exposures",
        request_id=visit.requests[rows],
        user_id=visit.number[rows],
        item_id=items,
        exposure_time=visit.time[rows],
        position=places + 1,
        policy_version=np.full(len(rows), LISTS),
        item_chance=np.exp(visit.log_chances[rows, places]),
        list_chance=np.exp(visit.log_chances.sum(axis=1))[rows],
        bid=world.shop.bids[items],
    )


def _act(log: Log, world: World, visit: Visit) -> None:
    done, items, prices = visit.done, visit.items, visit.prices
    at = visit.read
    stages = (("click", done.clicked, 0), ("cart", done.carted, DECIDES // 2), ("purchase", done.bought, DECIDES))
    for kind, mask, later in stages:
        found = np.nonzero(mask)
        _event(log, kind, visit.number[found[0]], items[found], at[found] + later, prices[found])
    _rate(log, world, visit, np.nonzero(done.bought), at)


def _rate(log: Log, world: World, visit: Visit, bought: tuple[Ints, ...], at: Ints) -> None:
    """Some of what was bought, days later, if the horizon is not over then."""
    own, draws, horizon = world.parameters.choices, world.draws, world.horizon
    number, items, prices = visit.number[bought[0]], visit.items[bought], visit.prices[bought]
    keys = (number, visit.session, items)
    session = np.full(len(number), visit.session)
    stars = choices.ratings(visit.worth[bought], (number, session), items, own, draws)
    days = _REVIEWS * draws.exponential("review", *keys)
    when = at[bought] + (days * DAY).astype(np.int64) // SECOND * SECOND
    told = (draws.uniform("rates", *keys) < own.rates) & (when < horizon.start + horizon.days * DAY)
    _event(log, "review", number[told], items[told], when[told], prices[told], stars[told])


def _event(log: Log, kind: str, user: Ints, item: Ints, time: Ints, price: Floats, rating: Ints | None = None) -> None:
    log.add(
        "events",
        user_id=user,
        item_id=item,
        event_time=time,
        event_type=pa.array([kind] * len(user), pa.string()),
        rating=pa.nulls(len(user), pa.float64()) if rating is None else rating.astype(np.float64),
        price=np.round(price, 2),
    )
