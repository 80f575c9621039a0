"""GRPO: the total reward, standardised within the group (Shao et al. 2024, arXiv 2402.03300)."""

from __future__ import annotations

from collections.abc import Sequence

from training.core.policy.rewards import Term
from training.core.policy.rollouts import Rollout
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.variant import Variant


def grpo(rollout: Rollout, rewards: Sequence[Term], kl: float = 0.04, clip: float = 0.2) -> Variant:
    """Plain GRPO: A = (R - mean) / (sample deviation + 1e-4), R = sum of weighted rewards; mean of response means."""
    return Variant(rollout, rewards, Surrogate(Clip(clip, clip), kl=kl, aggregate="response"))
