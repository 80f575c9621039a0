"""The clipped surrogate of a policy update, its KL and entropy terms, and how token losses are summed up.

J = mean over tokens or responses of: min(rho A, clip(rho) A) - kl * k3 + bonus * H, where rho = pi / pi_old and
k3 = exp(d) - d - 1 with d = log pi_ref - log pi (Schulman 2020). The loss is -J. What belongs to a variant is a value
here: the clip (asymmetric, or wider for uncertain tokens), the weights, the aggregation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.learner import Loss
from training.core.policy.schedule import Linear
from training.core.sequences import (
    OnTrees,
    Tree,
    collate_trees,
    response_logits,
    token_entropies,
    token_log_probs,
)

Aggregation = Literal["token", "response"]


@dataclass(frozen=True)
class Episode:
    """Responses to one prompt, and what the update of their n tokens (end to end) needs, each [n].

    `old` are log-probs under the policy that wrote them, NaN for the one that is being updated (ratio 1); `reference`
    those under the reference; `uncertain` tokens (1, others 0) have the wider clip.
    """

    tree: Tree
    advantage: Tensor
    old: Tensor
    reference: Tensor
    uncertain: Tensor

    def __len__(self) -> int:
        return len(self.tree)


@dataclass(frozen=True)
class PolicyBatch(OnTrees):
    """The values of the trees' real response tokens, each [n], row by row of `trees.mask`.

    `weight` [n] is what a token counts in the loss, which is divided by `learnt`; `bonus` weighs the entropy;
    `temperature` is that of the rollout.
    """

    advantage: Tensor
    old: Tensor
    reference: Tensor
    uncertain: Tensor
    weight: Tensor
    learnt: int
    bonus: float
    temperature: float


@dataclass(frozen=True)
class Clip:
    """The ratio has no more influence below 1 - `low` or above 1 + `high`."""

    low: float = 0.2
    high: float = 0.2


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """The k3 estimate of KL(pi || pi_ref) per token, never negative: exp(d) - d - 1, d = log pi_ref - log pi."""
    return torch.expm1(reference - log_probs) - (reference - log_probs)


def clipped_gain(ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """min(rho A, clip(rho, 1 - low, 1 + high) A), elementwise (Schulman et al. 2017, eq. 7)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def uncertainty_threshold(entropies: Tensor, quantile: float) -> float:
    """The entropy [nats] that a share `quantile` of a round's token entropies [n] lies below (AIGQ, section 2.6)."""
    return float(np.quantile(entropies.numpy(), quantile)) if len(entropies) else float("inf")


@dataclass(frozen=True)
class Surrogate:
    """The objective of an update.

    `uncertain_clip`, where given, holds for the tokens whose entropy is at or above the `quantile` of the round's.
    `kl` weighs k3 (0: there is no reference), `entropy` the entropy. `aggregate`: the mean over all tokens, or over
    responses of their mean over tokens.
    """

    clip: Clip = Clip()
    uncertain_clip: Clip | None = None
    quantile: float = 0.8
    kl: float = 0.0
    entropy: Linear = field(default_factory=Linear)
    aggregate: Aggregation = "token"

    def collate(self, rows: Sequence[Sequence[Episode]], pad: int, progress: float, temperature: float) -> PolicyBatch:
        """Rows of episodes as one batch at this `progress` of the training; a row may be empty.

        `temperature`: that of the rollout; the policy that learns is the one that wrote.
        """
        episodes = [episode for row in rows for episode in row]
        trees = collate_trees([[episode.tree for episode in row] for row in rows], pad)
        lengths = trees.mask.sum(dim=1, keepdim=True)
        weight = torch.ones_like(trees.mask, dtype=torch.float32)
        by_response = self.aggregate == "response"
        return PolicyBatch(
            trees=trees,
            advantage=_joined([episode.advantage for episode in episodes]),
            old=_joined([episode.old for episode in episodes]),
            reference=_joined([episode.reference for episode in episodes]),
            uncertain=_joined([episode.uncertain for episode in episodes]) > 0,
            weight=(weight / lengths if by_response else weight)[trees.mask],
            learnt=len(trees.tree) if by_response else int(trees.mask.sum()),
            bonus=self.entropy.at(progress),
            temperature=temperature,
        )

    def loss(self, model: PreTrainedModel, batch: PolicyBatch) -> Loss:
        """-J, summed by weight; logged are KL, entropy, ratio and the shares of tokens that the clip silences."""
        trees = batch.trees
        logits = response_logits(model, trees) / batch.temperature
        log_probs = token_log_probs(logits, trees)[trees.mask]
        entropy = token_entropies(logits if batch.bonus else logits.detach(), trees)[trees.mask]
        ratio = (log_probs - torch.where(batch.old.isnan(), log_probs.detach(), batch.old)).exp()
        wide = self.uncertain_clip or self.clip
        low = torch.where(batch.uncertain, wide.low, self.clip.low)
        high = torch.where(batch.uncertain, wide.high, self.clip.high)
        value = clipped_gain(ratio, batch.advantage, low, high) + batch.bonus * entropy
        terms = {
            "entropy": entropy,
            "ratio": ratio,
            "clipped_low": (ratio < 1 - low) & (batch.advantage < 0),
            "clipped_high": (ratio > 1 + high) & (batch.advantage > 0),
        }
        if self.kl:
            terms["kl"] = k3(log_probs, batch.reference)
            value = value - self.kl * terms["kl"]
        return -(value * batch.weight).sum(), {name: (term * batch.weight).sum() for name, term in terms.items()}


def _joined(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([*values, torch.zeros(0)])
