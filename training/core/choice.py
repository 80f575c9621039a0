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

_NUCLEUS_WIDTHS = (32, 128, 512)
"""A nucleus is looked for among so many tokens before all are sorted: to order more than it holds takes longer than a
small model, and few answers need the next width."""


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
        if self.top_k is None:
            places = _place(scaled, uniform) if self.top_p is None else _place_in_nucleus(scaled, self.top_p, uniform)
            return places[:, 0]
        kept, tokens = scaled.topk(min(self.top_k, scaled.shape[1]), dim=1)
        places = _place(kept, uniform) if self.top_p is None else _place_in_nucleus(kept, self.top_p, uniform)
        return tokens.gather(1, places)[:, 0]


def _place_in_nucleus(logits: Tensor, share: float, uniform: Tensor) -> Tensor:
    """As `_place` of the largest `logits` [n, V] alone, the fewest that together have the `share`, largest first."""
    places, open_rows = torch.zeros_like(uniform, dtype=torch.int64), torch.arange(len(logits), device=logits.device)
    total = logits.logsumexp(dim=1, keepdim=True)
    for width in (*(width for width in _NUCLEUS_WIDTHS if width < logits.shape[1]), logits.shape[1]):
        kept, columns = logits[open_rows].topk(width, dim=1)
        probabilities = (kept - total[open_rows]).exp()
        before = probabilities.cumsum(dim=1) - probabilities
        whole = before[:, -1] >= share if width < logits.shape[1] else torch.ones_like(open_rows, dtype=torch.bool)
        inside = kept[whole].masked_fill(before[whole] >= share, float("-inf"))
        places[open_rows[whole]] = columns[whole].gather(1, _place(inside, uniform[open_rows[whole]]))
        open_rows = open_rows[~whole]
        if not len(open_rows):
            break
    return places


def _place(logits: Tensor, uniform: Tensor) -> Tensor:
    """The columns [n, 1] in which the cumulated softmax of `logits` [n, V] reaches `uniform` [n, 1]."""
    places = torch.searchsorted(logits.softmax(dim=-1).cumsum(dim=-1), uniform.contiguous(), right=True)
    # The sum of all may be a little less than 1; what is cut off must not be the last resort.
    columns = torch.arange(logits.shape[1], device=logits.device)
    last = torch.where(logits.isfinite(), columns, 0).amax(dim=1, keepdim=True)
    return torch.minimum(places, last)
