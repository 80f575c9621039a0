"""Deep Interest Network (Zhou et al. 2018, arXiv 1706.06978): each candidate reads the history with its own attention.

    a(k, q) = MLP [k, q, q - k, q * k] -> 1          attention unit, Dice between its layers
    u(q)    = sum over the history of a(k, q) k      no softmax: the strength of the interest is kept
    s(q)    = MLP [u, q, u * q] -> 1                 head

The head's product u * q is INFERRED (the usual form; it gives the three widths that the source hard-wires).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.generative_rec.interactions import NO_ITEM

_START, _TRACE, _EPSILON = 0.05, 0.1, 1e-8


class Dice(nn.Module):
    """y = p x + (1 - p) a x with p = sigmoid of x standardised per feature (equation 3 of the paper); a is learnt."""

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(width))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self._momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same; statistics of the batch in training, running ones after."""
        mean = x.flatten(0, -2).mean(dim=0) if self.training else self.mean
        centred = x - mean
        # Not var_mean: it takes half of a step on the CPU.
        variance = centred.square().flatten(0, -2).mean(dim=0) if self.training else self.variance
        if self.training:
            self.mean.lerp_(mean.detach(), self._momentum)
            self.variance.lerp_(variance.detach(), self._momentum)
        share = torch.sigmoid(centred * (variance + _EPSILON).rsqrt())
        return x * torch.lerp(self.slope, torch.ones_like(self.slope), share)


class AttentionUnit(nn.Module):
    """a(k, q) for pairs of a key and a candidate.

    The first layer over [k, q, q - k, q * k] is a sum of three: one of k, one of q, one of q * k. The first two are
    computed per key and per candidate, not per pair.
    """

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.key = nn.Linear(width, hidden[0])
        self.query = nn.Linear(width, hidden[0], bias=False)
        self.product = nn.Linear(width, hidden[0], bias=False)
        self.rest = nn.Sequential(Dice(hidden[0]), *dense(hidden, 1))

    def forward(self, keys: Tensor, queries: Tensor, owner: Tensor) -> Tensor:
        """Keys [n, d], candidates [batch, c, d], the sample of each key [n] -> weights [n, c]."""
        hidden = self.product(keys.unsqueeze(1) * queries[owner])
        hidden = hidden + self.query(queries)[owner] + self.key(keys).unsqueeze(1)
        weights: Tensor = self.rest(hidden).squeeze(-1)
        return weights


class DIN(nn.Module):
    """Scores of candidates after a history. `item.weight` [items, width] are the collaborative item vectors."""

    def __init__(self, items: int, width: int, attention: Sequence[int], head: Sequence[int]) -> None:
        super().__init__()
        self.item = nn.Embedding(items, width)
        self.attention = AttentionUnit(width, attention)
        self.head = nn.Sequential(nn.Linear(3 * width, head[0]), Dice(head[0]), *dense(head, 1))
        nn.init.normal_(self.item.weight, std=_START)

    @torch.no_grad()
    def start_items(self, vectors: Tensor) -> None:
        """Let the item rows start at vectors [items, width], scaled by the mean length that rows start with; what they
        would have been stays as a trace, so that items without a vector differ."""
        rows = self.item.weight
        rows.copy_(vectors * rows.norm(dim=1).mean() + _TRACE * rows)

    def forward(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Catalogue rows [batch, length] (padding: `NO_ITEM`) and candidates [batch, c] -> scores [batch, c]."""
        real = histories != NO_ITEM
        owner, place = real.nonzero(as_tuple=True)
        keys, queries = self.item(histories[real]), self.item(candidates)
        weights = queries.new_zeros(*histories.shape, candidates.shape[1])
        weights = weights.index_put((owner, place), self.attention(keys, queries, owner))
        values = queries.new_zeros(*histories.shape, keys.shape[1]).index_put((owner, place), keys)
        pooled = weights.transpose(1, 2) @ values
        scores: Tensor = self.head(torch.cat([pooled, queries, pooled * queries], dim=2)).squeeze(-1)
        return scores


def dense(widths: Sequence[int], out: int) -> list[nn.Module]:
    """The layers after the first of `widths`: linear and Dice to each next width, then linear to `out`."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), Dice(after)]
    return [*layers, nn.Linear(widths[-1], out)]


def sampled_softmax(scores: Tensor, candidates: Tensor, log_q: Tensor) -> Tensor:
    """Mean of -log softmax over the target and its drawn negatives, with the log-q correction.

    s'(j) = s(j) - log q(j) for all candidates (Bengio and Senecal 2008): a negative that is drawn often counts less
    each time. A negative that is the target is left out. With uniform q the correction is the same for all and cancels.

    Args:
        scores: [batch, 1 + negatives], the target first
        candidates: catalogue rows of the scores
        log_q: log of the probability that an item is drawn: [items]
    """
    corrected = scores - log_q[candidates]
    again = candidates == candidates[:, :1]
    again[:, 0] = False
    return -corrected.masked_fill(again, -torch.inf).log_softmax(dim=1)[:, 0].mean()
