"""The lists that earn most: what advertisers pay for clicks on lists that are read from the top (`choices`).

Of a place k with the value v_k = bid x p_k and the chance c_k = q (1 - d p_k) that the reading goes on behind it, a
list earns sum_k v_k prod_{j<k} c_j. Two neighbours a above b earn v_a + c_a v_b, and the other way round v_b + c_b v_a,
so the best order of given items falls in v / (1 - c); and with the items in that order the best n of them follow from
the best of those behind: V(i, n) = max(V(i + 1, n), v_i + c_i V(i + 1, n - 1)) (Kempe and Mahdian 2008, "A cascade
model for externalities in sponsored search").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from spark_jobs.market.choices import chance_of_click
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.policies import Oracle, Request, ordered
from spark_jobs.market.shop import Shop


@dataclass(frozen=True)
class IncomeOracle:
    """Of what the oracle of preference may choose from, the list from which advertisers' payments for the clicks of one
    visit are most: what they pay later, and whom the list drives away, it does not weigh."""

    preference: Oracle
    shop: Shop
    parameters: Parameters
    version: ClassVar[str] = "income"

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        return self.preference.candidates(request)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        own = self.parameters.choices
        chance = chance_of_click(self.preference.worth(request, candidates), own.click)
        paid = np.where(candidates >= 0, self.shop.bids[candidates.clip(0)] * chance, -np.inf)
        goes_on = request.people.patience[:, None] * (1.0 - own.done * chance)
        return ordered(best_places(paid, goes_on, self.parameters.logging.length))


def best_places(values: Floats, goes_on: Floats, length: int) -> Ints:
    """Where each of the items [U, M] stands in an order whose first `length` are the list that earns most, from 0.

    `values` [U, M] of a look at each, -inf where there is none; `goes_on` [U, M] the chance that what is below is
    looked at. Exact; a list of fewer than `length` items earns no more, as no value is below 0.
    """
    users, many = values.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.where(np.isneginf(values), -np.inf, values / (1.0 - goes_on))
    order = np.argsort(-index, axis=1, kind="stable")
    value, on = (np.take_along_axis(one, order, axis=1).T for one in (values, goes_on))
    best = np.zeros((length + 1, users))  # V(i, n) of n = 0 .. length
    taken = np.zeros((many, length, users), dtype=bool)
    for i in range(many - 1, -1, -1):
        with_it = value[i] + on[i] * best[:-1]
        taken[i] = with_it > best[1:]
        best[1:] = np.where(taken[i], with_it, best[1:])
    left, rows = np.full(users, length), np.arange(users)
    chosen = np.zeros((many, users), dtype=bool)
    for i in range(many):
        chosen[i] = (left > 0) & taken[i, (left - 1).clip(0), rows]
        left -= chosen[i]
    first = np.argsort(~chosen.T, axis=1, kind="stable")  # the list in its order, then the others in theirs
    places = np.empty((users, many), dtype=np.int64)
    np.put_along_axis(places, np.take_along_axis(order, first, axis=1), np.arange(many)[None, :], axis=1)
    return places
