"""Chats with the help desk: what came of an order, a cart or a visit makes somebody ask, in a real customer's words.

An order is paid, sent and delivered, perhaps late or never; some are cancelled before they are sent, some sent back.
Each moment of its life lasts from one time to another, with a state that the shop knows. A cause (parameters.yaml)
belongs to a moment: whoever comes into it asks with the cause's chance, once about each order, cart or visit. The shop
writes down order, logistics and the intent as its agent noted it; why it was and what was meant, only the truth tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from spark_jobs.market.choices import Mask
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import ChatParameters
from spark_jobs.market.visits import DAY, DECIDES, SECOND, Visit, World

if TYPE_CHECKING:
    from spark_jobs.market.log import Log

ORDER_STATES = ("placed", "paid", "shipped", "delivered", "returned", "cancelled")
LOGISTICS_STATES = ("in transit", "late", "lost", "delivered")
STATES: tuple[tuple[str | None, str | None], ...] = (
    *((None, None), ("placed", None), ("paid", None), ("shipped", "in transit"), ("shipped", "late")),
    *(("shipped", "lost"), ("delivered", "delivered"), ("returned", "delivered"), ("cancelled", None)),
)
"""Of order and logistics: all in which a chat may be opened; the first without an order."""
PLACES = 1 << 10
"""More than any list has: the chat about a place of a visit, from 1 on (0: about none), has the number request * PLACES
+ place."""


@dataclass(frozen=True)
class _Moment:
    """When it begins and ends [N], days after what is asked about, and for whom it comes [N]; what the shop knows then
    of order and logistics."""

    since: Floats
    until: Floats
    comes: Mask
    order: str | None = None
    logistics: str | None = None


@dataclass(frozen=True)
class Things:
    """What may be asked about, [N] each: the row among the visit's people, the number and the request of whoever did
    it, the place of the list from 1 on (0: of none), the item (-1: none), and when it was done, microseconds since
    1970."""

    rows: Ints
    number: Ints
    requests: Ints
    places: Ints
    items: Ints
    time: Ints

    def chosen(self, rows: Ints) -> Things:
        """Some of them."""
        return Things(*(getattr(self, name)[rows] for name in Things.__dataclass_fields__))


@dataclass(frozen=True)
class Chats:
    """Numbers of causes, intents and states (-1: none), and times, [N] each: when that began of which somebody asks,
    and when they open the chat."""

    about: Things
    cause: Ints
    begun: Ints
    time: Ints
    meant: Ints
    order: Ints
    logistics: Ints

    @property
    def state(self) -> Ints:
        """The number of each among STATES."""
        pairs = [[state[place] for state in STATES] for place in (0, 1)]
        orders, sent = _numbers(pairs[0], ORDER_STATES), _numbers(pairs[1], LOGISTICS_STATES)
        return np.asarray(np.argmax((self.order[:, None] == orders) & (self.logistics[:, None] == sent), axis=1))


def tell(log: Log, world: World, visit: Visit) -> None:
    """What comes of these visits: `chats` and `true_chats`. Without a desk nothing does."""
    if (desk := world.desk) is None:
        return
    for chats in opened(world, visit):
        _write(log, desk, chats, world.parameters.chats, world.draws)


def opened(world: World, visit: Visit) -> Iterator[Chats]:
    """What comes of these visits, of what was bought, left in the cart, or of none of it; nothing where no desk is."""
    desk, own = world.desk, world.parameters.chats
    if desk is None or not desk.intents:
        return
    orders = _at(visit, visit.done.bought)
    carts = _at(visit, visit.done.carted & ~visit.done.bought)
    nothing = np.zeros(len(visit.number), dtype=np.int64)
    visits = Things(np.arange(len(nothing)), visit.number, visit.requests, nothing, nothing - 1, visit.time)
    yield _asked(world, desk, orders, _moments_of_orders(orders, own, world.draws))
    yield _asked(world, desk, carts, {"cart": _ever(carts)})
    yield _asked(world, desk, visits, {"visit": _ever(visits)})


def _at(visit: Visit, done: Mask) -> Things:
    rows, places = np.nonzero(done)
    items, time = visit.items[rows, places], visit.read[rows, places] + DECIDES
    return Things(rows, visit.number[rows], visit.requests[rows], places + 1, items, time)


def _moments_of_orders(things: Things, own: ChatParameters, draws: Draws) -> dict[str, _Moment]:
    """All that can come of it."""
    keys = (things.requests, things.places)
    paid = own.pays * draws.exponential("chat pays", *keys)
    sent = paid + own.packs * draws.exponential("chat packs", *keys)
    due, luck = sent + own.travels, draws.uniform("chat arrives", *keys)
    lost, late = luck < own.lost, (luck >= own.lost) & (luck < own.lost + own.late)
    delayed = due + own.delay * draws.exponential("chat delay", *keys)
    delivered = np.where(late, delayed, sent + own.travels * draws.uniform("chat travels", *keys))
    fate = draws.uniform("chat fate", *keys)
    cancelled, returned = fate < own.cancelled, fate >= 1.0 - own.returned
    ended = np.where(cancelled, sent * draws.uniform("chat cancels", *keys), np.inf)
    returns = delivered + own.keeps * draws.exponential("chat returns", *keys)
    never, goes = np.full(len(paid), np.inf), ~cancelled
    arrives = goes & ~lost
    return {
        "placed": _Moment(np.zeros(len(paid)), np.minimum(paid, ended), np.ones(len(paid), dtype=bool), "placed"),
        "paid": _Moment(paid, np.minimum(sent, ended), ended > paid, "paid"),
        "in_transit": _Moment(sent, np.where(lost | late, due, delivered), goes, "shipped", "in transit"),
        "late": _Moment(due, delivered, goes & late, "shipped", "late"),
        "lost": _Moment(due, never, goes & lost, "shipped", "lost"),
        "delivered": _Moment(delivered, np.where(returned, returns, np.inf), arrives, "delivered", "delivered"),
        "returned": _Moment(returns, never, arrives & returned, "returned", "delivered"),
        "cancelled": _Moment(ended, never, cancelled, "cancelled"),
    }


def _ever(things: Things) -> _Moment:
    begun = np.zeros(len(things.number))
    return _Moment(begun, begun + np.inf, begun == 0)


def _asked(world: World, desk: Desk, things: Things, moments: Mapping[str, _Moment]) -> Chats:
    """What is asked about things in whose life there are these moments, once about each at most."""
    own, draws, every = world.parameters.chats, world.draws, list(moments.values())
    cause, moment = _caused(things, list(moments), own, draws)
    row = np.flatnonzero((cause >= 0) & np.stack([one.comes for one in every])[moment, np.arange(len(moment))])
    since, until = (np.stack([getattr(one, end) for one in every])[moment[row], row] for end in ("since", "until"))
    begun, time = _times(things.chosen(row), since, until, own, draws)
    meant = desk.meant(cause[row], draws.uniform("chat intent", things.requests[row], things.places[row]))
    told = np.flatnonzero((meant >= 0) & (time < world.horizon.start + world.horizon.days * DAY))
    row = row[told]
    order = _numbers([one.order for one in every], ORDER_STATES)[moment[row]]
    logistics = _numbers([one.logistics for one in every], LOGISTICS_STATES)[moment[row]]
    return Chats(things.chosen(row), cause[row], begun[told], time[told], meant[told], order, logistics)


def _caused(things: Things, moments: list[str], own: ChatParameters, draws: Draws) -> tuple[Ints, Ints]:
    """Of each thing the cause whose part of (0, 1) holds its draw, -1: none, and the cause's moment, both [N]."""
    causes = list(own.causes.values())
    mine = [number for number, cause in enumerate(causes) if cause.when in moments]
    reached = np.cumsum([causes[number].chance for number in mine])
    drawn = np.searchsorted(reached, draws.uniform("chat", things.requests, things.places), side="right")
    of_mine = [moments.index(causes[number].when) for number in mine]
    return np.array([*mine, -1])[drawn], np.array([*of_mine, 0])[drawn]


def _times(things: Things, since: Floats, until: Floats, own: ChatParameters, draws: Draws) -> tuple[Ints, Ints]:
    """When the moments begin, and when in them somebody asks."""
    keys, ends = (things.requests, things.places), np.isfinite(until)
    within = np.where(ends, until - since, 0.0) * draws.uniform("chat time", *keys)
    waits = np.where(ends, within, own.asks * draws.exponential("chat asks", *keys))
    begun = things.time + _micros(since)
    return begun, np.maximum(things.time + _micros(since + waits), begun + SECOND)


def _write(log: Log, desk: Desk, chats: Chats, own: ChatParameters, draws: Draws) -> None:
    things, meant = chats.about, chats.meant
    keys = (things.requests, things.places)
    noisy = draws.uniform("chat note", *keys) < own.wrong_note
    number = things.requests * PLACES + things.places
    log.add(
        "chats",
        chat_id=number,
        user_id=things.number,
        chat_time=chats.time,
        order_state=chats.order,
        logistics_state=chats.logistics,
        item_id=things.items,
        days_since_purchase=pa.array((chats.time - things.time) / DAY, mask=chats.order < 0),
        intent=np.where(noisy, desk.another(meant, draws.uniform("chat noted", *keys)), meant),
        message=desk.wording(meant, draws.uniform("chat words", *keys)),
    )
    log.add(
        "true_chats",
        chat_id=number,
        chat_time=chats.time,
        cause=chats.cause,
        cause_time=chats.begun,
        meant_intent=meant,
    )


def _numbers(names: Sequence[str | None], words: Sequence[str]) -> Ints:
    return np.array([-1 if name is None else words.index(name) for name in names])


def _micros(days: Floats) -> Ints:
    """Whole seconds."""
    return np.asarray(np.floor(days * (DAY / SECOND)), dtype=np.int64) * SECOND
