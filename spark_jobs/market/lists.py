"""Lists drawn from a policy's scores, with the exact chance of each place and of the whole list (Plackett-Luce).

    P(i_1, ..., i_n) = prod_k exp(s(i_k)) / sum over the items left before place k of exp(s(j))

(Plackett 1975; drawn as the order of scores plus Gumbel noise, Yellott 1977.) The chance of a place is its factor of
the product: that of the item there, given those above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spark_jobs.market.draws import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """`places` [U, n]: columns of the candidates in the order shown, -1 where no candidate was left; `log_chances`
    [U, n] of each place given those above it, 0 where nothing stands."""

    places: Ints
    log_chances: Floats


def drawn(scores: Floats, gumbel: Floats, length: int) -> Lists:
    """The lists of the noise. `scores` [U, M], -inf where there is no candidate; `gumbel` [U, M]."""
    noisy = np.where(np.isfinite(scores), scores + gumbel, -np.inf)
    order = np.argsort(-noisy, axis=1, kind="stable")[:, :length]
    there = np.take_along_axis(np.isfinite(scores), order, axis=1)
    places = np.where(there, order, -1)
    return Lists(places, log_chances(scores, places))


def log_chances(scores: Floats, places: Ints) -> Floats:
    """What a policy of these `scores` [U, M] gives to each place of lists [U, n], given what stands above it.

    At most 0, and -inf for an item that the policy never shows.
    """
    top = np.max(scores, axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    shown = np.where(places >= 0, np.take_along_axis(weights, places.clip(0), axis=1), 0.0)
    # What is left before a place is what comes after the list and what stands at it or below: sums of positive terms,
    # where total minus what is above would lose all digits.
    rest, (users, at) = weights.copy(), np.nonzero(places >= 0)
    rest[users, places[users, at]] = 0.0
    below = np.cumsum(shown[:, ::-1], axis=1)[:, ::-1] + rest.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(shown) - np.log(below)
    return np.where(places >= 0, logs, 0.0)
