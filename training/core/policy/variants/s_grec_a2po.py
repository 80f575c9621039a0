"""S-GRec's A2PO, Asymmetric Advantage Policy Optimization (arXiv 2602.10606).

Not the A*-PO of arXiv 2505.20686, which TRL calls `a2po`. The asymmetry is between two objectives, not between good and
bad samples: business is the anchor, and semantics (an LLM's judgement) help where they agree with it.

    A_biz, A_sem = each reward, standardised in its own group
    lambda       = 1[sign A_biz = sign A_sem] min(|A_biz|, |A_sem|) / (max(|A_biz|, |A_sem|) + eps)
    A            = A_biz + lambda A_sem

So |A| <= 2 |A_biz|, A never has the other sign, and where business has no preference nothing is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.core.policy.advantages import standardise
from training.core.policy.groups import Group, Round
from training.core.policy.rewards import Term
from training.core.policy.rollouts import Rollout
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.variant import Variant


def fused(business: Tensor, semantic: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """A_biz + lambda A_sem, and lambda, elementwise; lambda is 0 where the signs differ or one has none."""
    least, most = torch.minimum(business.abs(), semantic.abs()), torch.maximum(business.abs(), semantic.abs())
    share = torch.where(business * semantic > 0, least / (most + eps), 0.0)
    return business + share * semantic, share


def out_of_bounds(business: Tensor, advantage: Tensor) -> Tensor:
    """Which advantages have another sign than the business's, or are more than twice as large: never, under `fused`."""
    return (advantage.sign() != business.sign()) | (advantage.abs() > 2.0 * business.abs())


@dataclass(frozen=True)
class AsymmetricAdvantage:
    """The total reward is the business's; that of the term `semantic`, of weight 0, is fused in where there is one.

    INFERRED: population deviations, and 1e-8 for both `eps` (MiniOneRec has sample deviations and 1e-4): so neither
    reward's scale matters.
    """

    semantic: str
    ddof: int = 0
    eps: float = 1e-8

    def __call__(self, groups: Sequence[Group], round: Round) -> list[Tensor]:
        """The advantages [G] of each group. Logs, over what the judge has seen, how often it agrees, lambda, and how
        many advantages have another sign than the business's or are more than twice as large: none."""
        found = []
        for group in groups:
            advantage = standardise(group.total(), ddof=self.ddof, eps=self.eps)
            judged = group.rewards.get(self.semantic)
            round.tally.add("a2po/judged", float(judged is not None))
            if judged is not None:
                semantic = standardise(judged.value, ddof=self.ddof, eps=self.eps)
                round.tally.add("a2po/agreement", (advantage * semantic > 0).float())
                business = advantage
                advantage, share = fused(business, semantic, self.eps)
                round.tally.add("a2po/lambda", share)
                round.tally.add("a2po/bound_violations", out_of_bounds(business, advantage).float())
            found.append(advantage)
        return found


def s_grec_a2po(
    rollout: Rollout, business: Sequence[Term], semantic: Term, kl: float = 1e-3, clip: float = 0.2
) -> Variant:
    """S-GRec's A2PO: what it pays is `business`; `semantic` may judge only some of the groups (None for the others).

    INFERRED: KL and clip, which are MiniOneRec's.
    """
    watched = replace(semantic, weight=0.0)
    surrogate = Surrogate(Clip(clip, clip), kl=kl, aggregate="response")
    return Variant(rollout, [*business, watched], surrogate, advantage=AsymmetricAdvantage(semantic.name))
