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
    # In logarithms, and what is left before a place as the sum of what stands at it, below it and outside: neither
    # scores that lie far apart nor a total minus what is above lose digits.
    chosen = np.where(places >= 0, np.take_along_axis(scores, places.clip(0), axis=1), -np.inf)
    rest, (users, at) = scores.copy(), np.nonzero(places >= 0)
    rest[users, places[users, at]] = -np.inf
    below = np.logaddexp.accumulate(chosen[:, ::-1], axis=1)[:, ::-1]
    outside = np.logaddexp.reduce(rest, axis=1, keepdims=True)
    logs = chosen - np.where(np.isneginf(chosen), 0.0, np.logaddexp(below, outside))
    return np.where(places >= 0, logs, 0.0)


def once(things: Ints) -> Ints:
    """Each of a row [U, M] at its first place, else -1."""
    order = np.argsort(things, axis=1, kind="stable")
    ordered = np.take_along_axis(things, order, axis=1)
    twice = np.zeros_like(things, dtype=bool)
    np.put_along_axis(twice, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.where(twice, -1, things)


def at(values: np.ndarray, places: Ints, none: float) -> np.ndarray:
    """Of `values` [U, M] those in the places [U, n] of lists, `none` where nothing stands."""
    return np.where(places >= 0, np.take_along_axis(values, places.clip(0), axis=1), none).astype(values.dtype)
