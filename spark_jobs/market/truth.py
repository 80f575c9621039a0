"""What no shop knows: who the people are, what they thought of each item shown, and how good their lists could be.

A list is read from the top (`choices`). With the chance p_k that a look at place k ends in a click, patience q and the
chance d that a click ends the reading, place k is looked at with prod_{j<k} q (1 - d p_j), as all draws are
independent, so that

    E[clicks] = sum_k p_k prod_{j<k} q (1 - d p_j).

No list of n items has more than the n items of the highest p in falling order. Two neighbours a above b, looked at with
the chance w, have w (a - b) (1 - q) more than b above a, and what is below them is reached as often: so falling order
is the best. And with V the clicks below place k once that is reached, the derivative by p_k is w (1 - d q V), which is
not negative, as each click ends the reading with d and so V <= 1/d: so the highest are the best.

Hints are read like that, too, with d = 1: whoever clicks one looks at no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spark_jobs.market import lists
from spark_jobs.market.choices import Mask, chance_of_click
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.people import People
from spark_jobs.market.policies import known, times
from spark_jobs.market.visits import Visit, World

if TYPE_CHECKING:
    from spark_jobs.market.log import Log

_ONE = 1.0  # chance that a click on a hint ends the reading


def tell_people(log: Log, world: World, people: People) -> None:
    """Who they are: `true_people` and `true_tastes`."""
    log.add(
        "true_people",
        user_id=people.number,
        start_time=np.full(len(people), world.horizon.start),
        visits=people.sessions,
        newcomer=people.newcomer,
        patience=people.patience,
        habit=people.habit,
        budget=people.budget,
        usual_price=np.exp(people.log_price),
    )
    rows, tastes = (one.ravel() for one in np.indices(people.tastes.shape))
    log.add(
        "true_tastes",
        user_id=people.number[rows],
        taste=tastes + 1,
        start_time=np.full(len(rows), world.horizon.start),
        item_id=people.tastes.ravel(),
        share=people.shares.ravel(),
        loyal=people.loyal.ravel(),
    )


def tell_visit(log: Log, world: World, visit: Visit) -> None:
    """What it was worth: `true_exposures` of a policy's lists, and `true_requests` of all visits."""
    click = world.parameters.choices.click
    rows, places = np.nonzero(visit.listed[:, None] & (visit.items >= 0))
    worth = visit.worth[rows, places]
    chance = chance_of_click(worth, click)
    log.add(
        "true_exposures",
        request_id=visit.requests[rows],
        position=places + 1,
        exposure_time=visit.time[rows],
        utility=worth,
        click_chance=chance,
        true_ecpm=1000.0 * world.shop.bids[visit.items[rows, places]] * chance,
    )
    people, request = visit.request.people, visit.request
    patience, done = people.patience, world.parameters.choices.done
    offered = _chances(visit.liked, visit.offered >= 0, click)
    near, liked = _neighbourhood(world, visit)
    every = np.concatenate([offered, _chances(liked, near >= 0, click)], axis=1)
    length = world.parameters.logging.length
    log.add(
        "true_requests",
        request_id=visit.requests,
        user_id=visit.number,
        request_time=visit.time,
        wish_item_id=people.tastes[np.arange(len(people)), request.wish],
        searched=~visit.listed,
        clicks_shown=expected_clicks(_chances(visit.worth, visit.items >= 0, click), patience, done),
        clicks_oracle=most_clicks(every, length, patience, done),
        clicks_random=random_clicks(offered, visit.offered >= 0, length, patience, done),
    )


def tell_hints(log: Log, world: World, visit: Visit) -> None:
    """How good the hints were: `true_hints` of all visits that showed any."""
    hints, own = visit.hints, world.parameters
    if len(hints.rows) == 0:
        return
    asked, patience, length = hints.asked, hints.asked.people.patience, own.hinting.length
    every = lists.once(np.concatenate([hints.offered, world.search_box.wished(asked)], axis=1))
    liked = world.search_box.worth(asked, every) - hints.loss[:, None]
    chances, there = _chances(liked, every >= 0, own.hints.click), hints.offered >= 0
    shown = _chances(hints.worth - hints.loss[:, None], hints.queries >= 0, own.hints.click)
    log.add(
        "true_hints",
        request_id=visit.requests[hints.rows],
        user_id=visit.number[hints.rows],
        request_time=visit.time[hints.rows],
        clicks_shown=expected_clicks(shown, patience, _ONE),
        clicks_oracle=most_clicks(chances, length, patience, _ONE),
        clicks_random=random_clicks(chances[:, : there.shape[1]], there, length, patience, _ONE),
    )


def expected_clicks(chances: Floats, patience: Floats, done: float) -> Floats:
    """Of lists whose places are clicked on with `chances` [U, n] once they are looked at (0: nothing is there): [U]."""
    goes_on = patience[:, None] * (1.0 - done * chances)
    reached = np.cumprod(np.pad(goes_on[:, :-1], ((0, 0), (1, 0)), constant_values=1.0), axis=1)
    return _total(chances * reached)


def most_clicks(chances: Floats, length: int, patience: Floats, done: float) -> Floats:
    """Of the best list of `length` among items of the `chances` [U, M] (0: none): [U]."""
    length = min(length, chances.shape[1])
    best = -np.partition(-chances, length - 1, axis=1)[:, :length]
    return expected_clicks(-np.sort(-best, axis=1), patience, done)


def random_clicks(chances: Floats, there: Mask, length: int, patience: Floats, done: float) -> Floats:
    """The mean over all lists of `length` among the items that are `there` [U, M], shorter where there are fewer: [U].

    Item by item. Of a random order of k among the first i items, `passed` is the mean of prod q (1 - d p), `clicked`
    that of the last one's p times that product over the others. The i-th item is not among the k with the chance
    (i - k)/i, and at each of the k places with 1/i.
    """
    many = there.sum(axis=1)
    order = np.argsort(-many, kind="stable")  # whoever has no i-th item stands at the end and is left as it is
    first = np.argsort(~there[order], axis=1, kind="stable")
    click, goes_on = np.take_along_axis(chances[order], first, axis=1).T, patience[order]
    k = np.arange(1, length + 1)[:, None]
    passed = np.zeros((length + 1, len(order)))
    passed[0] = 1.0
    clicked = np.zeros((length, len(order)))
    for i in range(1, int(many.max(initial=0)) + 1):
        own = slice(0, int((many >= i).sum()))
        p, absent = click[i - 1, own], (i - k) / i
        on = goes_on[own] * (1.0 - done * p) / i
        above, last = passed[:-1, own].copy(), clicked[:-1, own].copy()
        clicked[:, own] = absent * clicked[:, own] + above * (p / i)
        clicked[1:, own] += (k[1:] - 1) * on * last
        passed[1:, own] = absent * passed[1:, own] + k * on * above
    found = np.empty(len(order))
    found[order] = _total(clicked.T)
    return found


def _total(values: Floats) -> Floats:
    """Of each row, from the left on: how `sum` adds depends on how many rows there are."""
    return np.asarray(np.cumsum(values, axis=1)[:, -1])


def _neighbourhood(world: World, visit: Visit) -> tuple[Ints, Floats]:
    """What each came for and what is near it, in stock and not offered [U, N] (-1: not so), and how it is liked."""
    request, shop, own = visit.request, world.shop, world.parameters.utility
    people = request.people
    taste = people.tastes[np.arange(len(people)), request.wish][:, None]
    near = np.concatenate([taste, shop.near[taste[:, 0]]], axis=1)
    more = (near >= 0) & ~known(near, visit.offered) & shop.in_stock(near, request.day[:, None])
    utility = people.utility(shop, request.day, request.wish, near, times(near, request.bought), own)
    return np.where(more, near, -1), utility - own.seen * known(near, request.shown)


def _chances(worth: Floats, there: Mask, click: float) -> Floats:
    return np.where(there, chance_of_click(worth, click), 0.0)
