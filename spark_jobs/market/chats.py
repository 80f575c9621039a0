"""Chats with the help desk: what came of an order, a cart or a visit makes somebody ask, in a real customer's words.

An order is paid, sent and delivered, perhaps late or never; some are cancelled before they are sent, some sent back.
Each moment of its life lasts from one time to another, with a state that the shop knows. A cause (parameters.yaml)
belongs to a moment: whoever comes into it asks with the cause's chance, once about each order, cart or visit. The shop
writes down order, logistics and the intent as its agent noted it; why it was and what was meant, only the truth tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from spark_jobs.market.choices import Mask
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import ChatParameters
from spark_jobs.market.visits import DAY, SECOND, Visit, World

if TYPE_CHECKING:
    from spark_jobs.market.log import Log

ORDER_STATES = ("placed", "paid", "shipped", "delivered", "returned", "cancelled")
LOGISTICS_STATES = ("in transit", "late", "lost", "delivered")
PLACES = 1 << 10
"""More than any list has: the chat about a place of a visit, from 1 on (0: about none), has the number request * PLACES
+ place."""
_NEVER = np.inf


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
class _Things:
    """What may be asked about, [N] each: number and request of whoever did it, the place of the list from 1 on (0: of
    none), the item (-1: none), and when it was done, microseconds since 1970."""

    number: Ints
    requests: Ints
    places: Ints
    items: Ints
    time: Ints

    def chosen(self, rows: Ints) -> _Things:
        """Some of them."""
        return _Things(*(getattr(self, name)[rows] for name in _Things.__dataclass_fields__))


def tell(log: Log, world: World, visit: Visit, decided: Ints) -> None:
    """What comes of these visits, at whose places something was bought, or left in the cart, at the times `decided`
    [U, n]: `chats` and `true_chats`. Without a desk nothing does."""
    if world.desk is None or not world.desk.intents:
        return
    _ask(log, world, world.desk, _at(visit, visit.done.bought, decided), _of_an_order)
    _ask(log, world, world.desk, _at(visit, visit.done.carted & ~visit.done.bought, decided), _of_a_cart)
    nothing = np.zeros(len(visit.number), dtype=np.int64)
    came = _Things(visit.number, visit.requests, nothing, nothing - 1, visit.time)
    _ask(log, world, world.desk, came, _of_a_visit)


def _at(visit: Visit, done: Mask, decided: Ints) -> _Things:
    rows, places = np.nonzero(done)
    items, time = visit.items[rows, places], decided[rows, places]
    return _Things(visit.number[rows], visit.requests[rows], places + 1, items, time)


def _of_an_order(things: _Things, own: ChatParameters, draws: Draws) -> dict[str, _Moment]:
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
        "placed": _Moment(np.zeros(len(paid)), np.minimum(paid, ended), goes | cancelled, "placed"),
        "paid": _Moment(paid, np.minimum(sent, ended), ended > paid, "paid"),
        "in_transit": _Moment(sent, np.where(lost | late, due, delivered), goes, "shipped", "in transit"),
        "late": _Moment(due, delivered, goes & late, "shipped", "late"),
        "lost": _Moment(due, never, goes & lost, "shipped", "lost"),
        "delivered": _Moment(delivered, np.where(returned, returns, np.inf), arrives, "delivered", "delivered"),
        "returned": _Moment(returns, never, arrives & returned, "returned", "delivered"),
        "cancelled": _Moment(ended, never, cancelled, "cancelled"),
    }


def _of_a_cart(things: _Things, own: ChatParameters, draws: Draws) -> dict[str, _Moment]:
    """It was not bought."""
    return {"cart": _ever(things)}


def _of_a_visit(things: _Things, own: ChatParameters, draws: Draws) -> dict[str, _Moment]:
    """Somebody came."""
    return {"visit": _ever(things)}


def _ever(things: _Things) -> _Moment:
    begun = np.zeros(len(things.number))
    return _Moment(begun, begun + np.inf, begun == 0)


def _ask(
    log: Log,
    world: World,
    desk: Desk,
    things: _Things,
    lives: Callable[[_Things, ChatParameters, Draws], dict[str, _Moment]],
) -> None:
    """At most one question about each thing: of the first cause whose part of (0, 1) holds its draw, if the cause's
    moment comes within the horizon."""
    own, draws = world.parameters.chats, world.draws
    moments, causes = lives(things, own, draws), list(own.causes.values())
    mine = [number for number, cause in enumerate(causes) if cause.when in moments]
    reached = np.cumsum([causes[number].chance for number in mine])
    drawn = np.searchsorted(reached, draws.uniform("chat", things.requests, things.places), side="right")
    cause = np.array([*mine, -1])[drawn]
    place_of = {name: place for place, name in enumerate(moments)}
    moment = np.array([*(place_of[causes[number].when] for number in mine), 0])[drawn]
    every = list(moments.values())
    row = np.flatnonzero((cause >= 0) & np.stack([one.comes for one in every])[moment, np.arange(len(moment))])
    cause, moment, things = cause[row], moment[row], things.chosen(row)
    since, until = (np.stack([getattr(one, end) for one in every])[moment, row] for end in ("since", "until"))
    keys = (things.requests, things.places)
    lasts = np.where(np.isfinite(until), until - since, 0.0) * draws.uniform("chat time", *keys)
    waits = np.where(np.isfinite(until), lasts, own.asks * draws.exponential("chat asks", *keys))
    begun = things.time + _micros(since)
    time = np.maximum(things.time + _micros(since + waits), begun + SECOND)
    meant = desk.meant(cause, draws.uniform("chat intent", *keys))
    told = np.flatnonzero((meant >= 0) & (time < world.horizon.start + world.horizon.days * DAY))
    order = _numbers([one.order for one in every], ORDER_STATES)[moment][told]
    logistics = _numbers([one.logistics for one in every], LOGISTICS_STATES)[moment][told]
    cause, time, begun, meant, things = cause[told], time[told], begun[told], meant[told], things.chosen(told)
    keys = (things.requests, things.places)
    noisy = draws.uniform("chat note", *keys) < own.wrong_note
    number = things.requests * PLACES + things.places
    log.add(
        "chats",
        chat_id=number,
        user_id=things.number,
        chat_time=time,
        order_state=order,
        logistics_state=logistics,
        item_id=things.items,
        days_since_purchase=pa.array((time - things.time) / DAY, mask=order < 0),
        intent=np.where(noisy, desk.another(meant, draws.uniform("chat noted", *keys)), meant),
        message=desk.wording(meant, draws.uniform("chat words", *keys)),
    )
    log.add("true_chats", chat_id=number, chat_time=time, cause=cause, cause_time=begun, meant_intent=meant)


def _numbers(names: Sequence[str | None], words: Sequence[str]) -> Ints:
    return np.array([-1 if name is None else words.index(name) for name in names])


def _micros(days: Floats) -> Ints:
    """Whole seconds."""
    return np.asarray(np.floor(days * (DAY / SECOND)), dtype=np.int64) * SECOND
