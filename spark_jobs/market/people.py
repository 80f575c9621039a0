"""The people of the market: who they are and what an item is worth to them, which no log tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import Parameters, PeopleParameters, UtilityParameters
from spark_jobs.market.shop import Shop


@dataclass(frozen=True)
class People:
    """People [U] by `number`: their wishes are around the items `tastes` [U, K], with the chances `shares` [U, K].

    `sessions`: how often each would come from their first visit to the end of the horizon, on average; `newcomer` [U]:
    is that first visit within it; `bought` [U, n]: the last that they took before, newest first, -1 where it is less;
    the rest as in parameters.yaml.
    """

    number: Ints
    tastes: Ints
    shares: Floats
    loyal: NDArray[np.bool_]
    log_price: Floats
    habit: Floats
    patience: Floats
    budget: Floats
    sessions: Floats
    newcomer: NDArray[np.bool_]
    bought: Ints

    @classmethod
    def of(cls, number: Ints, shop: Shop, parameters: Parameters, draws: Draws) -> People:
        """Those of these numbers, always the same."""
        return cls.behind(number, np.full((len(number), 0), -1), shop, parameters, draws)

    @classmethod
    def behind(cls, number: Ints, taken: Ints, shop: Shop, parameters: Parameters, draws: Draws) -> People:
        """People who might have left histories: of their last items `taken` [U, n], newest first, -1 where there are
        fewer, some are what they wish for, or near to it. Nobody knows: of two lists the one that is like the history
        has it easier here than among people."""
        own = parameters.people
        bought = np.pad(taken, ((0, 0), (0, own.remembers)), constant_values=-1)[:, : own.remembers]
        person, taste = number[:, None], np.arange(own.tastes)[None, :]
        # A thing to gather around is found as the shop's items are found: the loved ones by more people.
        found = draws.choice(np.exp(parameters.utility.appeal * shop.appeal), "taste", person, taste)
        tastes = _of_their_own(found, bought, person, taste, shop, own, draws)
        weights = draws.exponential("share", person, taste)
        habitual = own.habit + own.habit_spread * draws.normal("habit", number)
        patience = 1.0 / (1.0 + np.exp(-_logit(own.patience) - 0.5 * draws.normal("patience", number)))
        return cls(
            number,
            tastes,
            weights / weights.sum(axis=1, keepdims=True),
            draws.uniform("loyal", person, taste) < 0.5,
            shop.log_prices[tastes].mean(axis=1) + 0.2 * draws.normal("price", number),
            habitual,
            patience,
            own.budget * np.exp(0.5 * draws.normal("budget", number)),
            own.sessions * np.exp(own.spread * draws.normal("sessions", number) - own.spread**2 / 2.0),
            draws.uniform("newcomer", number) < own.newcomers,
            bought,
        )

    def __len__(self) -> int:
        return len(self.number)

    def chosen(self, rows: Ints) -> People:
        """Some of them."""
        return People(*(getattr(self, name)[rows] for name in People.__dataclass_fields__))

    def utility(
        self, shop: Shop, day: Ints, wish: Ints, items: Ints, taken: Ints, parameters: UtilityParameters
    ) -> Floats:
        """The true preference [U, M] on a `day` each [U] for `items` [U, M] (-1: none) to those whose wish is their
        `wish`-th taste, [U].

        `taken` [U, M]: how often they bought it before; the first time makes a habit, and each doubling as much again.
        """
        rows = np.arange(len(self))
        taste, loyal = self.tastes[rows, wish], self.loyal[rows, wish]
        there = items.clip(0)
        nearness = np.einsum("ud,umd->um", shop.vectors[taste], shop.vectors[there])
        same = (shop.categories[there] == shop.categories[taste][:, None]) & (shop.categories[there] >= 0)
        brand = (shop.brands[there] == shop.brands[taste][:, None]) & (shop.brands[there] >= 0) & loyal[:, None]
        far = np.abs(shop.log_prices[there] - self.log_price[:, None])
        own = shop.draws.normal("own view", self.number[:, None], there)
        return np.asarray(
            parameters.text * nearness.astype(np.float64)
            + parameters.category * same
            + parameters.brand * brand
            - parameters.price * far
            + parameters.appeal * shop.appeal_on(day[:, None], there)
            + parameters.own * own
            + self.habit[:, None] * np.log2(1.0 + taken)
        )


def _of_their_own(
    found: Ints, taken: Ints, person: Ints, taste: Ints, shop: Shop, own: PeopleParameters, draws: Draws
) -> Ints:
    """Tastes [U, K]: items that were taken, or one near each, instead of what was `found` for those without any."""
    many = (taken >= 0).sum(axis=1)[:, None]
    at = np.minimum((draws.uniform("taken", person, taste) * many).astype(np.int64), np.maximum(many - 1, 0))
    their = np.take_along_axis(taken, at, axis=1).clip(0)
    reach = shop.near.shape[1]
    slot = np.minimum((draws.uniform("near", person, taste) * reach).astype(np.int64), reach - 1)
    near = shop.near[their, slot]
    moved = (draws.uniform("new wish", person, taste) < own.new_wish) & (near >= 0)
    return np.where(many > 0, np.where(moved, near, their), found)


def _logit(share: float) -> float:
    return float(np.log(share / (1.0 - share)))
