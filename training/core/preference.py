"""Preference losses: sigmoid DPO, softmax DPO over any number of negatives, Bradley-Terry; and what trains on them.

Softmax DPO is a cross-entropy over the candidates of a prompt, with `beta * d(y)` as logits and the chosen one as the
target, where d(y) = log pi(y|x) - log pi_ref(y|x). The reference is the policy as it stood before the stage; its sums
are computed once, before training (`with_reference`), so no second model stays in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.device import in_shares
from training.core.errors import DataError
from training.core.learner import Loss
from training.core.sequences import (
    OnTrees,
    Tokens,
    Tree,
    collate_trees,
    passes,
    response_logits,
    token_log_probs,
    without_dropout,
)


def bradley_terry(preferred: Tensor, other: Tensor) -> Tensor:
    """-log sigma(preferred - other), elementwise (Bradley and Terry 1952)."""
    return -torch.nn.functional.logsigmoid(preferred - other)


def sigmoid_dpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """DPO of the log-ratios d(y) [B] of one chosen and one rejected response (Rafailov et al. 2023, eq. 7)."""
    return bradley_terry(beta * chosen, beta * rejected)


def softmax_dpo(chosen: Tensor, rejected: Tensor, present: Tensor, beta: float) -> Tensor:
    """-log sigma(-log sum_l exp(beta * (d(y_l) - d(y_w)))) over the negatives that are present.

    S-DPO (Chen et al. 2024, eq. 11); Align3GR uses it with 20 negatives.

    Args:
        chosen: d(y_w), [B]
        rejected: d(y_l), [B, N]; whatever stands at places that are not `present` [B, N] has no influence
    Returns: [B]; 0 where no negative is present
    """
    logits = torch.cat([beta * chosen[:, None], (beta * rejected).masked_fill(~present, float("-inf"))], dim=1)
    return -logits.log_softmax(dim=1)[:, 0]


@dataclass(frozen=True)
class Preference:
    """One chosen and at least one rejected response; `reference`: their log-probs under the reference, in that order.

    Raises DataError where the chosen response is among the rejected, or a rejected one stands there twice (a repeat
    raises beta for it).
    """

    prompt: Tokens
    chosen: Tokens
    rejected: tuple[Tokens, ...]
    reference: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.rejected:
            raise DataError("a preference has no rejected response", do="drop samples without negatives")
        if self.chosen in self.rejected:
            raise DataError("the chosen response is among the rejected", do="take the truth out of the negatives")
        if len(set(self.rejected)) < len(self.rejected):
            raise DataError("a rejected response stands twice", do="give distinct negatives, however few")

    @property
    def tree(self) -> Tree:
        """The prompt with all responses, the chosen one first."""
        return Tree(self.prompt, (self.chosen, *self.rejected))

    def __len__(self) -> int:
        return len(self.tree)


def with_reference(
    model: PreTrainedModel, samples: Sequence[Preference], pad: int, row_tokens: int, rows: int = 16
) -> list[Preference]:
    """`samples`, in their order, with the log-probs of their responses under `model` as it is now.

    The model's dropout stays off from here on: noisy log-probs could not be compared with these.
    """
    without_dropout(model)

    def sums_of(share: Sequence[Preference]) -> list[tuple[float, ...]]:
        found: list[tuple[float, ...]] = [()] * len(share)
        for numbers, batch, logits in passes(model, [sample.tree for sample in share], pad, row_tokens, rows):
            sums = iter(token_log_probs(logits, batch).sum(dim=1).tolist())
            for number in numbers:
                found[number] = tuple(islice(sums, 1 + len(share[number].rejected)))
        return found

    return [replace(sample, reference=sums) for sample, sums in zip(samples, in_shares(sums_of, samples), strict=True)]


@dataclass(frozen=True)
class PreferenceBatch(OnTrees):
    """Trees whose first response is the chosen one; `reference` [S] are log-probs under the reference."""

    reference: Tensor

    @property
    def learnt(self) -> int:
        """How many preferences count in the loss."""
        return self.trees.sequences


@dataclass(frozen=True)
class PreferenceObjective:
    """Softmax DPO, which is sigmoid DPO for one negative; an `Objective` of the loop.

    `ntp_weight` adds the chosen response's mean negative log-prob per token (as Pang et al. 2024, eq. 1): it keeps the
    policy from losing the truth together with the negatives.
    """

    beta: float = 1.0
    ntp_weight: float = 0.0

    def collate(self, rows: Sequence[Sequence[Preference]], width: int, pad: int) -> PreferenceBatch:
        """Rows of samples that went through `with_reference` as one batch."""
        known = [value for row in rows for sample in row for value in sample.reference]
        trees = collate_trees([[sample.tree for sample in row] for row in rows], pad)
        if len(known) != len(trees.tree):
            raise DataError("a preference has no reference log-probs", do="call with_reference before training")
        return PreferenceBatch(trees, torch.tensor(known))

    def loss(self, model: PreTrainedModel, batch: PreferenceBatch) -> Loss:
        """Summed over the preferences; logged are reward margin and accuracy over negatives, and mean log-probs."""
        trees = batch.trees
        tokens = token_log_probs(response_logits(model, trees), trees)
        sums, present = _by_tree(tokens.sum(dim=1), trees.tree)
        ratios, _ = _by_tree(tokens.sum(dim=1) - batch.reference, trees.tree)
        chosen, rejected, negatives = ratios[:, 0], ratios[:, 1:], present[:, 1:]
        value = softmax_dpo(chosen, rejected, negatives, self.beta).sum()
        ntp = -_by_tree(tokens.sum(dim=1) / trees.mask.sum(dim=1), trees.tree)[0][:, 0].sum()
        margins = self.beta * (chosen[:, None] - rejected)
        terms = {
            "reward_margin": _mean(margins, negatives),
            "reward_accuracy": _mean((margins > 0).float(), negatives),
            "chosen_log_prob": sums[:, 0].sum(),
            "rejected_log_prob": _mean(sums[:, 1:], negatives),
            "dpo_loss": value,
            "ntp_loss": ntp,
        }
        return value + self.ntp_weight * ntp, terms


def _by_tree(values: Tensor, tree: Tensor) -> tuple[Tensor, Tensor]:
    """`values` [S] as a table [trees, responses of the largest], and which places of it are filled."""
    sizes = tree.bincount()
    present = torch.arange(int(sizes.max()) if len(sizes) else 1, device=tree.device) < sizes[:, None]
    return values.new_zeros(present.shape).masked_scatter(present, values), present


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the places of each row that are present, summed over the rows."""
    return (values.masked_fill(~present, 0.0).sum(dim=1) / present.sum(dim=1)).sum()
