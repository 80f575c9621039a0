"""What people do with a list: read it from the top, click, put into the cart, buy, be pleased or leave for good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import ChoiceParameters

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Choices:
    """Of lists [U, n]: what was looked at, clicked, put into the cart and bought; and who left for good, [U]."""

    looked: Mask
    clicked: Mask
    carted: Mask
    bought: Mask
    left: Mask


def choose(
    utility: Floats,
    items: Ints,
    prices: Floats,
    patience: Floats,
    budget: Floats,
    visit: tuple[Ints, Ints],
    own: ChoiceParameters,
    draws: Draws,
) -> Choices:
    """Of lists whose `items` [U, n] (-1: none) are worth `utility` and cost `prices`.

    `visit`: numbers of the people and of their visits, [U] each. A draw belongs to person, visit and item and not to
    the place: the same item meets the same luck in another list. What is wanted is bought from the top while the budget
    lasts.
    """
    person, session = visit[0][:, None], visit[1][:, None]
    place, there = np.arange(items.shape[1])[None, :], items >= 0
    would = there & (draws.uniform("click", person, session, items) < chance_of_click(utility, own.click))
    ends = would & (draws.uniform("done", person, session, items) < own.done)
    tired = draws.uniform("patience", person, session, place) >= patience[:, None]
    looked = read(there, ends | tired)
    clicked = looked & would
    carted = clicked & (draws.uniform("cart", person, session, items) < _sigmoid(utility - own.cart))
    wants = carted & (draws.uniform("purchase", person, session, items) < _sigmoid(utility - own.purchase))
    bought = wants & (np.cumsum(np.where(wants, prices, 0.0), axis=1) <= budget[:, None])
    best = np.max(np.where(looked, utility, -np.inf), axis=1, initial=-np.inf)
    short = np.clip(own.click - best, 0.0, 5.0)
    left = draws.uniform("leave", *visit) < _sigmoid(own.leave + own.disappointed * short)
    return Choices(looked, clicked, carted, bought, left)


def read(there: Mask, stops: Mask) -> Mask:
    """What is looked at of lists [U, n], from the top until something `stops` the reading; what does was looked at."""
    return there & (np.cumsum(stops, axis=1) - stops == 0)


def ratings(utility: Floats, visit: tuple[Ints, Ints], items: Ints, own: ChoiceParameters, draws: Draws) -> Ints:
    """Stars from 1 to 5 of `items` bought, all [n]: what it is worth, with noise."""
    noise = own.rating_noise * draws.normal("rating", *visit, items)
    return np.clip(np.rint(3.0 + utility - own.purchase + noise), 1, 5).astype(np.int64)


def chance_of_click(utility: Floats, click: float) -> Floats:
    """That a look at something of this utility ends in a click, which half of them do at the utility `click`."""
    return _sigmoid(utility - click)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
