"""Reward terms: named functions of a group, each with its weight.

A function gives one value per response [G], one per response and slot [G, slots] (NaN where a response has no such
slot), or None where it does not judge this group. A term of weight 0 is only watched: a replay or filter may look at
it, and its plain value is logged. Other terms are logged weighted, as they enter the total.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from training.core.errors import DataError
from training.core.policy.groups import Group, Reward, Tally


@dataclass(frozen=True)
class Term:
    """One reward term; `name` is what it is logged as."""

    name: str
    weight: float
    function: Callable[[Group], Tensor | None]


def rewarded(group: Group, terms: Sequence[Term]) -> Group:
    """The group with the rewards of all terms that judge it. DataError for a value that is not one per response."""
    values = {term.name: (term.function(group), term.weight) for term in terms}
    rewards = {name: Reward(value, weight) for name, (value, weight) in values.items() if value is not None}
    for name, reward in rewards.items():
        absent = reward.value.isnan() if reward.value.ndim > 1 else False
        if len(reward.value) != len(group.responses) or not (reward.value.isfinite() | absent).all():
            raise DataError(
                f"reward term {name!r} gave {tuple(reward.value.shape)} values for {len(group.responses)} responses, "
                "or one that is not finite",
                do="give one finite value per response, or one row of slots",
            )
    return replace(group, rewards=rewards)


def log_rewards(group: Group, tally: Tally) -> None:
    """Log what each term adds to the total, and the total."""
    for name, reward in group.rewards.items():
        tally.add(f"reward/{name}", reward.weighted if reward.weight else reward.value)
    tally.add("reward", group.total())
