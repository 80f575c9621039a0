"""What a new policy would earn a list, from the logs of another (off-policy evaluation of lists read from the top).

With r_k the reward of place k, rho_k the chance of its item under the new policy over that under the logged one, both
given what stands above, and w_k = rho_1 * ... * rho_k, a list adds to the mean over lists

    ips    w_n sum_k r_k                          whole lists weighed (Horvitz and Thompson 1952)
    snips  the same over the mean of w_n          self-normalised (Swaminathan and Joachims 2015)
    rips   sum_k w_k r_k                          reward interaction (McInerney et al. 2020)
    snrips the same, each place over its mean w_k
    dr     sum_k w_k (r_k - Q_k) + w_(k-1) V_k    Cascade-DR (Kiyohara et al. 2022)
    dm     V_1                                    the model alone

ips is unbiased for any reward; rips and dr where a reward depends on its own place and those above it alone, dr for any
Q_k; dm is as wrong as its model. All of them need a logging policy that can show whatever the new one can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.bootstrap import Interval, interval
from common.formulas import Ratio
from infra.errors import DataError
from spark_jobs.market.choices import Mask
from spark_jobs.market.draws import Floats
from spark_jobs.market.logged_lists import LoggedLists, Predictions

MIN_EFFECTIVE_LISTS = 30.0

_Side = tuple[Floats, Floats]  # numerators and denominators, [L, places] each


@dataclass(frozen=True)
class Support:
    """How much of the log speaks for the new policy, by the clipped weights of lists or of their places.

    effective_lists: (sum w)^2 / sum w^2 (Kish 1965); of weights by place, the smallest of a place
    mean_weight: of the same weights; far below 1, the new policy shows what the log cannot have, or much is clipped
    clipped: share of the weights that were above `max_weight`
    """

    effective_lists: float
    mean_weight: float
    clipped: float

    @property
    def enough(self) -> bool:
        """Whether as many effective lists as a mean needs at the least; rare rewards need far more."""
        return self.effective_lists >= MIN_EFFECTIVE_LISTS


@dataclass(frozen=True)
class Estimate:
    """Expected reward of a list under the new policy, and that minus the logged mean, paired on the same lists.

    NaN where the weights of a self-normalised estimator are all 0. The support of `dm`, which weighs nothing, is that
    of the places: it tells where its model has seen what the new policy shows.
    """

    value: Interval
    difference: Interval
    support: Support

    @property
    def supported(self) -> bool:
        """False: too few lists speak for the new policy to believe value or interval."""
        return self.support.enough


@dataclass(frozen=True)
class Estimates:
    """The logging policy's own mean reward of a list, and `estimates` by the names above."""

    logged: Interval
    estimates: Mapping[str, Estimate]


def estimate(logged: LoggedLists, *, max_weight: float, seed: int, resamples: int = 1000) -> Estimates:
    """What a list earns under the new policy by every estimator; `dr` and `dm` where there are predictions.

    A weight above `max_weight` is cut to it (Ionides 2008), which biases towards what is not cut: below the truth for
    rewards that are not negative, but for dr. `max_weight=inf` clips nothing. Intervals are 95 % by units; where few
    lists carry the weight they are too narrow, as the log does not have the lists that are missing.
    """
    if not max_weight > 0.0:
        raise DataError(
            f"A weight is clipped to {max_weight}.", why="weights are positive", do="give one above 0, or inf"
        )
    with np.errstate(over="ignore"):
        raw = np.exp(np.cumsum(logged.log_ratios, axis=1))
    weights = np.minimum(raw, max_weight)
    rewards = np.where(logged.shown, logged.rewards, 0.0)
    lists = _support(weights[:, -1:], raw[:, -1:] > max_weight)
    places = _support(weights, np.where(logged.shown, raw > max_weight, np.nan))
    whole, total = weights[:, -1:], rewards.sum(axis=1, keepdims=True)
    one = np.ones_like(total)
    own: _Side = (total, one)
    found: dict[str, tuple[_Side, _Side, Support]] = {
        "ips": ((whole * total, one), own, lists),
        "snips": ((whole * total, whole), own, lists),
        "rips": (((weights * rewards).sum(axis=1, keepdims=True), one), own, places),
        "snrips": ((weights * rewards, weights), (rewards, np.ones_like(rewards)), places),
    }
    if logged.predictions is not None:
        expected = np.where(logged.shown, logged.predictions.expected, 0.0)
        found["dr"] = ((_doubly_robust(weights, rewards, logged.shown, logged.predictions), one), own, places)
        found["dm"] = ((expected[:, :1], one), own, places)

    def bootstrapped(*sides: _Side) -> Interval:
        return _bootstrapped(sides, logged.units, seed, resamples)

    return Estimates(
        bootstrapped(own),
        {name: Estimate(bootstrapped(new), bootstrapped(new, old), at) for name, (new, old, at) in found.items()},
    )


class _SumOfRatios:
    """The sum over places of summed rewards over summed weights; terms are [reward, weight] for each place in turn."""

    def of(self, sums: Floats) -> Floats:
        """[..., 2 * places] -> [...]."""
        by_place = Ratio("reward", "weight").of(sums.reshape(*sums.shape[:-1], -1, 2))
        return np.asarray(by_place.sum(axis=-1))


def _bootstrapped(sides: Sequence[_Side], units: Sequence[str], seed: int, resamples: int) -> Interval:
    if not all(below.any(axis=0).all() for _, below in sides):
        return Interval(np.nan, np.nan, np.nan)
    terms = [np.stack(side, axis=-1).reshape(len(units), -1) for side in sides]
    return interval(_SumOfRatios(), terms, units, seed=seed, resamples=resamples)


def _doubly_robust(weights: Floats, rewards: Floats, shown: Mask, predictions: Predictions) -> Floats:
    """[L, 1]: the recursion of Kiyohara et al., v_k = V_k + rho_k (r_k + v_(k+1) - Q_k), written out from the top."""
    above = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    terms = weights * (rewards - predictions.logged) + above * predictions.expected
    return np.asarray(np.where(shown, terms, 0.0).sum(axis=1, keepdims=True))


def _support(weights: Floats, clipped: Floats | Mask) -> Support:
    """Of weights [L, places], and whether each was clipped (NaN where nothing stands)."""
    squares = (weights**2).sum(axis=0)
    effective = np.divide(weights.sum(axis=0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0.0)
    least = int(np.argmin(effective))
    return Support(float(effective[least]), float(weights[:, least].mean()), float(np.nanmean(clipped)))
