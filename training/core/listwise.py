"""Soft targets over whole responses: what a teacher's list teaches a language model, with the prompt read once.

    L = sum over prompts x of sum over the responses y of q(y | x) (-log pi(y | x))

q are the teacher's shares of its list, of sum 1, and pi(y | x) the probability of all tokens of y: the cross-entropy of
ListNet (Cao et al. 2007, eq. 3) with sequence log-probs over the whole vocabulary in place of scores over the list, as
sequence-level distillation has it (Kim and Rush 2016, arXiv 1606.07947, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.errors import DataError
from training.core.learner import Loss
from training.core.sequences import OnTrees, Tokens, Tree, collate_trees, response_logits, token_log_probs


@dataclass(frozen=True)
class Listed:
    """A prompt, different responses to it, and the share of each.

    Raises DataError for a response that stands there twice, and for shares that are not positive or not of sum 1.
    """

    prompt: Tokens
    responses: tuple[Tokens, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(set(self.responses)) < len(self.responses) or len(self.shares) != len(self.responses):
            raise DataError("a response stands twice in a list, or has no share", do="give each response one share")
        if not all(share > 0.0 for share in self.shares) or abs(sum(self.shares) - 1.0) > 1e-6:
            raise DataError(f"the shares of a list are {self.shares}", do="give positive shares of sum 1")

    @property
    def tree(self) -> Tree:
        """The prompt with all responses."""
        return Tree(self.prompt, self.responses)

    def __len__(self) -> int:
        return len(self.tree)

    def drawn(self, count: int, rng: np.random.Generator) -> Listed:
        """`count` draws with replacement, each response with the share of the draws that it has: the loss of it is an
        unbiased estimate of that of the whole list, at the price of a shorter one."""
        times = rng.multinomial(count, np.array(self.shares) / sum(self.shares))
        shares = tuple((times[times > 0] / count).tolist())
        return Listed(self.prompt, tuple(compress(self.responses, times)), shares)


@dataclass(frozen=True)
class ListBatch(OnTrees):
    """`shares` [S] of the trees' responses."""

    shares: Tensor

    @property
    def learnt(self) -> int:
        """How many lists count in the loss."""
        return self.trees.sequences


class ListwiseObjective:
    """The loss above, an `Objective` of the loop."""

    def collate(self, rows: Sequence[Sequence[Listed]], width: int, pad: int) -> ListBatch:
        """Rows of lists as one batch."""
        shares = torch.tensor([share for row in rows for one in row for share in one.shares], dtype=torch.float32)
        return ListBatch(collate_trees([[one.tree for one in row] for row in rows], pad), shares)

    def loss(self, model: PreTrainedModel, batch: ListBatch) -> Loss:
        """Summed over the lists, in nats; logged is the entropy of the shares, below which the loss cannot fall."""
        tokens = token_log_probs(response_logits(model, batch.trees), batch.trees)
        return -(batch.shares * tokens.sum(dim=1)).sum(), {"entropy": -torch.xlogy(batch.shares, batch.shares).sum()}
