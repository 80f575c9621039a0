"""The output head, a part of its rows at a time: a table of all logits can be larger than the model.

256 beams of 64 requests over a vocabulary of 150,000 tokens are 10 GB of logits in float32, of which a search needs one
number per child.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.core.ranking import rows_at_once

LOGITS_AT_ONCE = 2**27
"""How many logits are there at once: 0.5 GiB in float32."""


def head_parts(head: nn.Linear, hidden: Tensor, work: Callable[[Tensor, Tensor], Tensor], beside: Tensor) -> Tensor:
    """`work` on the logits [n, V], float32 at least, of `hidden` [n, D] and on `beside` [n, ...], part by part."""
    size = rows_at_once(len(head.weight), LOGITS_AT_ONCE)
    parts = zip(torch.split(hidden, size), torch.split(beside, size), strict=True)
    wide = torch.promote_types(head.weight.dtype, torch.float32)
    return torch.cat([work(head(states).to(wide), own) for states, own in parts])


def log_probs_of(head: nn.Linear, hidden: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probs [n, C], over the whole vocabulary, of the `tokens` [n, C] after each of the `hidden` states [n, D]."""

    def work(logits: Tensor, own: Tensor) -> Tensor:
        scaled = logits / temperature
        return scaled.gather(1, own) - scaled.logsumexp(1, True)

    return head_parts(head, hidden, work, tokens)


def entropies(logits: Tensor) -> Tensor:
    """Entropies [n], in nats, of the distributions with these `logits` [n, V]."""
    parts = torch.split(logits, rows_at_once(logits.shape[-1], LOGITS_AT_ONCE))
    # What the backward pass needs of a part is computed again then, so that no second table is kept.
    return torch.cat([checkpoint(_entropy, part, use_reentrant=False) for part in parts])


def _entropy(logits: Tensor) -> Tensor:
    log_probs = logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)
