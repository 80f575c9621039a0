"""How the next token is chosen: the most probable one, or a draw from what temperature, cuts and a grammar leave.

Everything is a function of a number from [0, 1) per token, so that what is drawn can be drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.core.errors import DataError
from training.core.grammar import Allowed
from training.core.heads import head_parts

_NUCLEUS_AT_FIRST = 512
"""A nucleus is looked for among so many tokens before all are sorted, which would take longer than the model."""


@dataclass(frozen=True)
class Choice:
    """`temperature` divides the logits; 0 takes the most probable token. Then `top_k` keeps the most probable ones,
    and `top_p` the fewest that together have this probability (Holtzman et al. 2020). What is not `allowed` has none.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    allowed: Allowed | None = None

    def tokens(self, head: nn.Linear, hidden: Tensor, uniform: Tensor, written: Tensor) -> Tensor:
        """The tokens [n] after `hidden` [n, D], at the places `uniform` [n] of their cumulated probabilities.

        `written` [n, t] is what the answers hold so far. DataError where no token is allowed.
        """
        mask = None if self.allowed is None else self.allowed(written)
        if mask is not None and not mask.any(dim=1).all():
            raise DataError(
                "no token is allowed",
                why=f"what may follow {written[0].tolist()} or another answer of {written.shape[1]} tokens is empty",
                do="let the grammar end in an end token, and leave it a token at every place",
            )

        def work(logits: Tensor, rows: Tensor) -> Tensor:
            if mask is not None:
                logits = logits.masked_fill(~mask.expand(len(hidden), -1)[rows], float("-inf"))
            # `argmax` takes half as long again.
            return logits.max(dim=1).indices if self.temperature == 0 else self._drawn(logits, uniform[rows, None])

        return head_parts(head, hidden, work, torch.arange(len(hidden), device=hidden.device))

    def _drawn(self, logits: Tensor, uniform: Tensor) -> Tensor:
        scaled = logits.double() / self.temperature
        if self.top_k is None and self.top_p is None:
            return _place(scaled, uniform)[:, 0]
        if self.top_k is None:
            kept, tokens = _nucleus(scaled, self.top_p or 1.0)
        else:
            kept, tokens = scaled.topk(min(self.top_k, scaled.shape[1]), dim=1)
            if self.top_p is not None:
                kept, inside = _nucleus(kept, self.top_p)
                tokens = tokens.gather(1, inside)
        return tokens.gather(-1, _place(kept, uniform))[:, 0]


def _nucleus(logits: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The largest `logits` [n, K], -inf beyond those that together have the `share`, and the columns they are from."""
    total = logits.logsumexp(dim=1, keepdim=True)
    for width in sorted({min(_NUCLEUS_AT_FIRST, logits.shape[1]), logits.shape[1]}):
        kept, columns = logits.topk(width, dim=1)
        probabilities = (kept - total).exp()
        before = probabilities.cumsum(dim=1) - probabilities
        if bool((before[:, -1] >= share).all()):
            break
    return kept.masked_fill(before >= share, float("-inf")), columns


def _place(logits: Tensor, uniform: Tensor) -> Tensor:
    """The columns [n, 1] in which the cumulated softmax of `logits` [n, V] reaches `uniform` [n, 1]."""
    places = torch.searchsorted(logits.softmax(dim=-1).cumsum(dim=-1), uniform.contiguous(), right=True)
    # The sum of all may be a little less than 1; what is cut off must not be the last resort.
    columns = torch.arange(logits.shape[1], device=logits.device)
    last = torch.where(logits.isfinite(), columns, 0).amax(dim=1, keepdim=True)
    return torch.minimum(places, last)
