"""GDPO: several rewards, none of which drowns the others (Liu et al. 2026, arXiv 2601.05242).

    A_k   = (r_k - mean_group) / (std_group + eps)        each reward in its own group
    A_sum = sum_k w_k A_k                                 Adv-Sum ends here
    A     = (A_sum - mean_batch) / (std_batch + eps)

A weight counts in units of deviation, whatever the scale of its reward: 100 times a reward is the same advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.policy.advantages import standardise
from training.core.policy.groups import Group, Round
from training.core.policy.rewards import Term
from training.core.policy.rollouts import Rollout
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.variant import Variant


@dataclass(frozen=True)
class DecoupledAdvantage:
    """Each reward with one value per response is standardised in its group; their weighted sum over the batch.

    Sample deviations, `eps` beside them (the group's equation has none; the authors' code has 1e-4 in both). The batch
    is all groups of the round that are learnt from, in all processes. Without `over_batch` this is Adv-Sum.
    """

    ddof: int = 1
    eps: float = 1e-4
    over_batch: bool = True

    def __call__(self, groups: Sequence[Group], round: Round) -> list[Tensor]:
        """The advantages [G] of each group; logs the share of groups that have nothing to compare."""
        sums = [self._of(group) for group in groups]
        round.tally.add("flat_groups", [float(not advantage.any()) for advantage in sums])
        if not self.over_batch:
            return sums
        own = torch.cat([*sums, torch.zeros(0, dtype=torch.float64)])
        # In order of size, so that a sum does not depend on which process brings what.
        batch = torch.tensor(sorted(round.gathered(own.tolist())), dtype=torch.float64)
        # The advantages of a group sum to 0, and so do those of the batch: its mean is 0 but for rounding, and to take
        # that rounding off would give a group without any difference an advantage.
        deviation = (batch.square().sum() / max(len(batch) - self.ddof, 1)).sqrt()
        return [advantage / (deviation + self.eps) for advantage in sums]

    def _of(self, group: Group) -> Tensor:
        advantage = torch.zeros(len(group.responses), dtype=torch.float64)
        for reward in group.rewards.values():
            if reward.value.ndim == 1:
                advantage += reward.weight * standardise(reward.value, ddof=self.ddof, eps=self.eps)
        return advantage


def gdpo(rollout: Rollout, rewards: Sequence[Term], kl: float = 0.04, clip: float = 0.2) -> Variant:
    """GDPO over GRPO's surrogate. INFERRED: KL and clip as GRPO's, which it is compared with."""
    surrogate = Surrogate(Clip(clip, clip), kl=kl, aggregate="response")
    return Variant(rollout, rewards, surrogate, advantage=DecoupledAdvantage())
