"""Reward terms: named functions of all groups of a round at once, each with its weight.

A term is called once for many groups, so that a model behind it (a judge, a ranker, a grader) makes batches of its own.
For each group it gives one value per response [G], one per response and slot [G, slots] (NaN where a response has no
such slot), or None where it does not judge this group. Terms follow each other, and each sees the rewards of those
before it: one may grade the parts of an answer, and a later one make a single reward of them. A term of weight 0 is
only watched: an advantage, a replay or a filter may look at it, and its plain value is logged. Other terms are logged
weighted, as they enter the total.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.core.errors import DataError
from training.core.policy.groups import Group, Reward, Tally
from training.core.policy.schedule import Schedule, value_at

RewardFunction = Callable[[Sequence[Group]], Sequence[Tensor | None]]


@dataclass(frozen=True)
class Term:
    """One reward term; `name` is what it is logged as. Its values are clamped to `clamp` (low, high) before weighing.

    Every process calls `function` as often as the others, also without any group; its values may be on any device.
    """

    name: str
    weight: Schedule
    function: RewardFunction
    clamp: tuple[float, float] | None = None


def by_group(function: Callable[[Group], Tensor | None]) -> RewardFunction:
    """A term's function from one that looks at a single group: for rewards that cost nothing."""
    return lambda groups: [function(group) for group in groups]


def pooled(name: str, terms: Sequence[Term]) -> list[Term]:
    """The `terms`, now only watched, and behind them the one term `name`: their sum, by the weights they begin with.

    For an advantage that standardises each term by itself, where several terms make one objective.
    """
    weights = {term.name: value_at(term.weight, 0.0) for term in terms}

    def total(group: Group) -> Tensor:
        return torch.stack([weight * group.rewards[own].value for own, weight in weights.items()]).sum(dim=0)

    return [*(replace(term, weight=0.0) for term in terms), Term(name, 1.0, by_group(total))]


def rewarded(groups: Sequence[Group], terms: Sequence[Term], progress: float) -> list[Group]:
    """The groups with the rewards of the terms that judge them, weighed as at this `progress` of the training.

    DataError where a term does not give one result per group, or a value that is not finite, or not one per response.
    """
    found = [replace(group, rewards={}) for group in groups]
    for term in terms:
        values, weight = term.function(found), value_at(term.weight, progress)
        if len(values) != len(found):
            raise DataError(
                f"reward term {term.name!r} gave {len(values)} results for {len(found)} groups",
                do="give one tensor per group, in their order, or None where a group is not judged",
            )
        found = [
            group if value is None else _with(group, term, value, weight)
            for group, value in zip(found, values, strict=True)
        ]
    return found


def _with(group: Group, term: Term, value: Tensor, weight: float) -> Group:
    absent = value.isnan() if value.ndim > 1 else False
    if not value.ndim or len(value) != len(group.responses) or not (value.isfinite() | absent).all():
        raise DataError(
            f"reward term {term.name!r} gave {tuple(value.shape)} values for {len(group.responses)} responses, "
            "or one that is not finite",
            do="give one finite value per response, or one row of slots",
        )
    clamped = value if term.clamp is None else value.clamp(*term.clamp)
    return replace(group, rewards={**group.rewards, term.name: Reward(clamped.detach().cpu(), weight)})


def log_rewards(groups: Sequence[Group], tally: Tally) -> None:
    """Log what each term adds to the totals, and the totals."""
    for group in groups:
        for name, reward in group.rewards.items():
            tally.add(f"reward/{name}", reward.weighted if reward.weight else reward.value)
        tally.add("reward", group.total())
