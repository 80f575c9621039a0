"""What `off_policy` says of policies that were not shown, beside what the market does when they are.

The log is that of the logging policy; each rival scores the same candidates otherwise. The truth is the rival's own run
with the same people and luck: in it people come back, remember what they saw and leave, which no log of another policy
knows. That is part of the check, not a fault of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spark_jobs.market import lists
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.logged_lists import LoggedLists, Predictions
from spark_jobs.market.off_policy import Estimate, estimate
from spark_jobs.market.people import People
from spark_jobs.market.policies import Logging, Policy, Request, known
from spark_jobs.market.reward_model import cross_fitted
from spark_jobs.market.visits import World

# Each otherwise than the logging policy in one or two of its parameters.
RIVALS: Mapping[str, Mapping[str, Any]] = {
    "greedier": {"temperature": 0.7},
    "flatter": {"temperature": 1.5},
    "less popular": {"popular": 0.4},
    "less similar": {"similar": 2.0},
    "more own": {"own": 1.5, "popular": 1.0},
}
MAX_WEIGHT = 50.0
CLOSE = 0.05  # of the truth: what an estimate should be within


@dataclass(frozen=True)
class Rescored:
    """The candidates of one policy in the order of another: what the two differ in is the scores alone."""

    offers: Policy
    judges: Policy
    version: str

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        return self.offers.candidates(request)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        return self.judges.scores(request, candidates)


@dataclass(frozen=True)
class Checked:
    """Clicks by list under a `rival`: the log's own mean, the truth and the estimates of it."""

    rival: str
    logged: float
    truth: float
    estimates: Mapping[str, Estimate]

    def error(self, name: str) -> float:
        """Of an estimate, as a share of the truth."""
        return self.estimates[name].value.value / self.truth - 1.0

    def sign_right(self, name: str) -> bool:
        """Whether it says rightly that the rival earns more than the logging policy, or less."""
        return bool((self.estimates[name].difference.value > 0) == (self.truth > self.logged))


def check(
    world: World, people: People, rivals: Mapping[str, Policy], seed: int, *, modelled: bool = True
) -> list[Checked]:
    """Each of the `rivals`, which must choose among the candidates of the logging policy. `modelled`: with a reward
    model, which most of the time goes into."""
    log = _logged(world, people, list(rivals.values()))
    found = []
    for place, (name, rival) in enumerate(rivals.items()):
        logged = log.of(place)
        if modelled:
            logged = replace(logged, predictions=_predicted(log, logged, place))
        estimates = estimate(logged, max_weight=MAX_WEIGHT, seed=seed)
        truth = _clicks_by_list(world, people, rival)
        found.append(Checked(name, estimates.logged.value, truth, estimates.estimates))
    return found


def rivals_of(world: World) -> dict[str, Policy]:
    """Those of RIVALS."""
    base = world.logging
    return {
        name: Rescored(base, Logging(world.shop, replace(base.own, **changes), world.draws), name)
        for name, changes in RIVALS.items()
    }


def told(checked: Sequence[Checked]) -> list[str]:
    """Lines of a table for people (Markdown)."""
    names = list(checked[0].estimates)
    lines = [
        f"| rival | log's own | truth | {' | '.join(names)} | effective lists |",
        "| --- | --- | --- | " + "--- | " * (len(names) + 1),
    ]
    for one in checked:
        cells = []
        for name in names:
            mark = "" if abs(one.error(name)) <= CLOSE else " outside"
            mark += "" if one.sign_right(name) else ", sign wrong"
            cells.append(f"{one.estimates[name].value.value:.4f} ({one.error(name):+.1%}){mark}")
        support = one.estimates["rips"].support.effective_lists
        lines.append(f"| {one.rival} | {one.logged:.4f} | {one.truth:.4f} | {' | '.join(cells)} | {support:,.0f} |")
    return lines


@dataclass(frozen=True)
class _Log:
    """Lists [L, n] of places among candidates [L, M], with features of the candidates [L, M, F], the scores of the
    logging policy [L, M] and of each rival [R, L, M], and clicks [L, n]."""

    units: list[str]
    places: Ints
    features: Floats
    scores: Floats
    rivals: Floats
    clicks: Floats

    def of(self, rival: int) -> LoggedLists:
        """As `off_policy` takes them."""
        own = lists.log_chances(self.scores, self.places)
        new = lists.log_chances(self.rivals[rival], self.places)
        return LoggedLists(self.units, self.places >= 0, own, own.sum(axis=1), new, self.clicks)

    def features_shown(self, rival: int) -> Floats:
        """Of what stands in each place: [L, n, F]."""
        return np.take_along_axis(self._features(rival), self.places.clip(0)[:, :, None], axis=1)

    def asked(self, place: int, rows: Ints, rival: int) -> tuple[Floats, Floats]:
        """Features of whatever could stand at `place`, given what is logged above, and the rival's chances."""
        scores = self.rivals[rival][rows].copy()
        above = self.places[rows, :place]
        np.put_along_axis(scores, above.clip(0), -np.inf, axis=1)
        top = np.max(scores, axis=1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        total = weights.sum(axis=1, keepdims=True)
        chances = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        return self._features(rival, rows), chances

    def _features(self, rival: int, rows: Ints | slice = slice(None)) -> Floats:
        own = self.rivals[rival][rows]
        known = np.where(np.isfinite(own), own, 0.0)[:, :, None]
        return np.concatenate([self.features[rows], known], axis=2)


@dataclass
class _Recorded:
    """A policy that remembers what it was asked last."""

    policy: Policy
    request: Request | None = None
    offered: Ints | None = None

    @property
    def version(self) -> str:
        """See `Policy`."""
        return self.policy.version

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        return self.policy.candidates(request)

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        self.request, self.offered = request, candidates
        return self.policy.scores(request, candidates)


def _logged(world: World, people: People, rivals: Sequence[Policy]) -> _Log:
    recorded = _Recorded(world.logging)
    parts: list[tuple[Ints, Ints, Floats, Floats, Floats, Floats]] = []
    for visit in world.visits(people, recorded):
        request, offered = recorded.request, recorded.offered
        assert request is not None and offered is not None
        rows = np.flatnonzero(visit.listed)
        there = offered >= 0
        scores = [np.where(there, one.scores(request, offered), -np.inf)[rows] for one in (world.logging, *rivals)]
        at = (visit.items[rows][:, :, None] == offered[rows][:, None, :]).argmax(axis=2)
        places = np.where(visit.items[rows] >= 0, at, -1)
        features = _known_to_the_shop(world, request, offered)[rows]
        clicks = visit.done.clicked[rows].astype(np.float64)
        parts.append((visit.number[rows], places, features, scores[0], np.stack(scores[1:]), clicks))
    columns = [list(column) for column in zip(*parts, strict=True)]
    return _Log(
        [str(one) for one in np.concatenate(columns[0])],
        np.concatenate(columns[1]),
        np.concatenate(columns[2]),
        np.concatenate(columns[3]),
        np.concatenate(columns[4], axis=1),
        np.concatenate(columns[5]),
    )


def _predicted(log: _Log, logged: LoggedLists, rival: int) -> Predictions:
    return cross_fitted(logged, log.features_shown(rival), lambda place, rows: log.asked(place, rows, rival))


def _known_to_the_shop(world: World, request: Request, offered: Ints) -> Floats:
    """What a shop could learn clicks from: [U, M, F]."""
    shop, item, clicked = world.shop, offered.clip(0), request.clicked
    last = np.where(clicked >= 0, clicked, 0)
    near = np.einsum("ukd,umd->umk", shop.vectors[last], shop.vectors[item])
    near = np.where((clicked >= 0)[:, None, :], near, 0.0)
    columns = (
        shop.counted_on(request.day[:, None], item),
        near.max(axis=2),
        known(offered, request.bought),
        shop.log_prices[item],
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=2)


def _clicks_by_list(world: World, people: People, policy: Policy) -> float:
    clicks = shown = 0
    for visit in world.visits(people, policy):
        clicks += int(visit.done.clicked[visit.listed].sum())
        shown += int(visit.listed.sum())
    return clicks / max(shown, 1)
