"""Advantages: how much better a response is than the others of its group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.policy.groups import Group, Tally


def standardise(values: Tensor, *, ddof: int, eps: float, inside_root: bool = False) -> Tensor:
    """(x - mean) / std over the first dimension, of what is there: a missing value (NaN) counts nowhere and becomes 0.

    `eps` stands beside the deviation, or inside its root with the variance. A column with fewer than two values has
    nothing to compare and is 0.
    """
    there = ~values.isnan()
    count = there.sum(dim=0)
    centred = torch.where(there, values - values.nanmean(dim=0), 0.0)
    variance = centred.square().sum(dim=0) / (count - ddof)
    deviation = (variance + eps).sqrt() if inside_root else variance.sqrt() + eps
    return torch.where(count > 1, centred / deviation, 0.0)


@dataclass(frozen=True)
class GroupAdvantage:
    """The total reward, standardised within the group: one advantage [G] per response (GRPO, Shao et al. 2024)."""

    ddof: int = 1
    eps: float = 1e-4

    def __call__(self, group: Group, tally: Tally) -> Tensor:
        """The advantages [G] of a group; logs how many groups have nothing to compare."""
        advantage = standardise(group.total(), ddof=self.ddof, eps=self.eps)
        tally.add("flat_groups", float(not advantage.any()))
        return advantage
