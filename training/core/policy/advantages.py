"""Advantages: how much better a response is than the others of its group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.errors import DataError
from training.core.policy.groups import Group, Round

Advantage = Callable[[Sequence[Group], Round], Sequence[Tensor]]
"""Gives each group's advantages, one per response [G] or per token [G, T]; T is at least its longest response."""

# A total is a sum of a few terms: equal ones may differ by a rounding or two of each.
_ROUNDINGS = 8


def standardise(values: Tensor, *, ddof: int, eps: float, inside_root: bool = False) -> Tensor:
    """(x - mean) / std over the first dimension, of what is there: a missing value (NaN) counts nowhere and becomes 0.

    In float64, whatever the rewards are in. `eps` stands beside the deviation, or inside its root with the variance.
    A column with fewer than two values, or with equal ones, has nothing to compare and is exactly 0; values are equal
    where they differ by no more than the rounding of a sum in their own precision. DataError for an `eps` that is not
    positive: a deviation close to 0 would make any difference a large one.
    """
    if eps <= 0.0:
        raise DataError(f"an eps of {eps:g} for advantages", do="give a positive one, such as 1e-4")
    there, exact = ~values.isnan(), values.double()
    count = there.sum(dim=0)
    centred = torch.where(there, exact - exact.nanmean(dim=0), 0.0)
    variance = centred.square().sum(dim=0) / (count - ddof)
    deviation = (variance + eps).sqrt() if inside_root else variance.sqrt() + eps
    return torch.where((count > 1) & ~flat(values), centred / deviation, 0.0)


def flat(values: Tensor) -> Tensor:
    """Which columns of `values` [G, ...] hold one value only, up to a few roundings of its size; NaN is no value."""
    there, exact = ~values.isnan(), values.double()
    spread = exact.masked_fill(~there, -torch.inf).amax(dim=0) - exact.masked_fill(~there, torch.inf).amin(dim=0)
    return spread <= _ROUNDINGS * torch.finfo(values.dtype).eps * exact.masked_fill(~there, 0.0).abs().amax(dim=0)


@dataclass(frozen=True)
class GroupAdvantage:
    """The total reward, standardised within the group: one advantage [G] per response (GRPO, Shao et al. 2024)."""

    ddof: int = 1
    eps: float = 1e-4

    def __call__(self, groups: Sequence[Group], round: Round) -> list[Tensor]:
        """The advantages [G] of each group; logs the share of groups that have nothing to compare."""
        found = [standardise(group.total(), ddof=self.ddof, eps=self.eps) for group in groups]
        round.tally.add("flat_groups", [float(not advantage.any()) for advantage in found])
        return found


@dataclass(frozen=True)
class Clamped:
    """The advantages of another way, none of them larger than `limit` either way."""

    advantage: Advantage
    limit: float

    def __call__(self, groups: Sequence[Group], round: Round) -> list[Tensor]:
        """The advantages of each group; logs the share that is clamped."""
        found = self.advantage(groups, round)
        for advantage in found:
            round.tally.add("clamped_advantages", (advantage.abs() > self.limit).double())
        return [advantage.clamp(-self.limit, self.limit) for advantage in found]
