"""Advantages: how much better a response is than the others of its group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.errors import DataError
from training.core.policy.groups import Group, Tally

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
    return torch.where((count > 1) & ~_flat(exact, there, torch.finfo(values.dtype).eps), centred / deviation, 0.0)


def _flat(values: Tensor, there: Tensor, precision: float) -> Tensor:
    """Which columns hold one value only, up to a few roundings of its size to `precision`."""
    spread = values.masked_fill(~there, -torch.inf).amax(dim=0) - values.masked_fill(~there, torch.inf).amin(dim=0)
    return spread <= _ROUNDINGS * precision * values.masked_fill(~there, 0.0).abs().amax(dim=0)


@dataclass(frozen=True)
class GroupAdvantage:
    """The total reward, standardised within the group: one advantage [G] per response (GRPO, Shao et al. 2024)."""

    ddof: int = 1
    eps: float = 1e-4

    def __call__(self, group: Group, tally: Tally) -> Tensor:
        """The advantages [G] of a group; logs the share of groups that have nothing to compare."""
        advantage = standardise(group.total(), ddof=self.ddof, eps=self.eps)
        tally.add("flat_groups", float(not advantage.any()))
        return advantage
