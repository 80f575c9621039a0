"""TaoSR-AGRL: rewards shaped by rules, and guided replay where the policy fails (arXiv 2510.08048).

Known of Rule-aware Reward Shaping (RRS) are that steps and rule compliance are paid beside the final label, and that a
hard gate enforces the rules. INFERRED: which parts there are, their weights, and the gate,

    R = format * rule * (0.5 label + 0.2 category + 0.2 attribute + 0.1 closeness)

so a right label that breaks a rule earns nothing. The replay is in `guided_replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.errors import DataError
from training.core.policy.advantages import Clamped, GroupAdvantage
from training.core.policy.groups import Group
from training.core.policy.rewards import RewardFunction, Term
from training.core.policy.rollouts import Rollout
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.variant import Variant, groups_that_differ
from training.core.policy.variants.guided_replay import GRADES, GuidedReplay


@dataclass(frozen=True)
class RuleShaping:
    """Rewards [G] from grades [G, slots] (`guided_replay.SLOTS`): the gate times the weighted mean of the other parts.

    A part without gold (NaN) is left out of the mean. DataError for weights by which an answer with a wrong label could
    earn as much as one with the right label that passes the gate.
    """

    label: float = 0.5
    category: float = 0.2
    attribute: float = 0.2
    closeness: float = 0.1

    def __post_init__(self) -> None:
        if min(self.category, self.attribute, self.closeness) < 0 or self.label <= self.category + self.attribute:
            raise DataError(
                f"the label weighs {self.label:g}, its steps {self.category:g} and {self.attribute:g}",
                why="a wrong label with right steps could earn as much as the right label",
                do="let the label weigh more than its steps together",
            )

    def __call__(self, groups: Sequence[Group]) -> list[Tensor]:
        """The rewards of groups that have been graded."""
        rewards = []
        for grades in (group.rewards[GRADES].value for group in groups):
            gate, parts = grades[:, :2].prod(dim=1), grades[:, 2:]
            weights = torch.tensor([self.label, self.category, self.attribute, self.closeness], dtype=grades.dtype)
            known = (weights * ~parts.isnan()).sum(dim=1)
            rewards.append(gate * (weights * parts.nan_to_num(0.0)).sum(dim=1) / known)
        return rewards


def agrl(
    rollout: Rollout,
    grade: RewardFunction,
    replay: GuidedReplay,
    shaping: RuleShaping = RuleShaping(),
    kl: float = 0.02,
    clip: float = 0.2,
) -> Variant:
    """AGRL: `grade` gives each group's grades [G, slots], in the order of `guided_replay.SLOTS`, each in [0, 1].

    `format` and `rule` are 0 or 1; `category` and `attribute` may be NaN where there is no gold; `closeness` is 1 for
    the right label and less for any other. INFERRED: KL, clip and the advantages' +-2, which are those of the same
    team's DyKnow-RAG (arXiv 2510.11122), and that groups without any difference are left out.
    """
    rewards = [Term(GRADES, 0.0, grade), Term("rules", 1.0, shaping)]
    surrogate = Surrogate(Clip(clip, clip), kl=kl, aggregate="response")
    return Variant(rollout, rewards, surrogate, Clamped(GroupAdvantage(), 2.0), replay, groups_that_differ)
