"""The transformer of SASRec, a step of its training, and the average of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.ranker.signals.base import Ints

_PAD = 0
_WINDOW = 9  # of the steps so far, about a ninth counts
_SHARES = (0.6, 0.85, 0.96)


@dataclass(frozen=True)
class SASRecConfig:
    """Sizes and schedule. `length` counts items. `temperature`, which divides cosines, is where it begins to be learnt:
    from a large one, so that a small shop does not know its users by heart at once. `averaging` is the share that the
    average of the weights keeps of itself at a step; `patience` counts epochs without a better validation NDCG@10, and
    an epoch is all events, or about so many `events` of a larger shop, others each time."""

    width: int = 64
    layers: int = 1
    heads: int = 2
    length: int = 50
    dropout: float = 0.3
    negatives: int = 1024
    temperature: float = 0.5
    averaging: float = 0.995
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 128
    events: int = 250_000
    epochs: int = 24
    patience: int = 5


class Network(nn.Module):
    """The transformer, and the embeddings of items, which are its output layer too.

    logit(i) = cos(state, e_i) / temperature + weight * log(1 + count of i): both learnt. Cosines alone cannot say that
    an item is popular, which is most of what a small shop can know.
    """

    counts: Tensor

    def __init__(self, size: int, config: SASRecConfig, counts: Tensor | None = None) -> None:
        super().__init__()
        self.warmth = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.popularity = nn.Parameter(torch.ones(()))
        self.register_buffer("counts", torch.log1p(torch.zeros(size) if counts is None else counts))
        self.size, self.config = size, config
        self.item = nn.Embedding(size + 1, config.width, padding_idx=_PAD)
        self.place = nn.Parameter(torch.empty(config.length, config.width))
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False
        )
        for values in (self.item.weight, self.place):
            nn.init.normal_(values, std=0.02)
        with torch.no_grad():
            self.item.weight[_PAD] = 0.0

    def forward(self, rows: Tensor) -> Tensor:
        """Items counted from 1, [batch, length] -> states [batch, length, width]; padding comes last."""
        return self.states(self.item(rows))

    def states(self, vectors: Tensor) -> Tensor:
        """The same of the items' vectors, [batch, length, width]."""
        length = vectors.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=vectors.device).triu(1)
        # As large as the states that the layers add to them: without it the first epochs learn next to nothing.
        items = vectors * math.sqrt(self.config.width)
        states: Tensor = self.layers(self.dropout(items + self.place[:length]), mask=later, is_causal=True)
        return states

    def vectors(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Of the items of each part, in one look-up: the gradient of each look-up is as large as the catalogue."""
        found = self.item(torch.cat([part.flatten() for part in parts])).split([part.numel() for part in parts])
        return [own.view(*part.shape, -1) for own, part in zip(found, parts, strict=True)]

    def last(self, histories: Sequence[Ints]) -> Tensor:
        """The states of the last item of each history, 0 for an empty one: [histories, width]."""
        rows = padded(histories, self.config.length).to(self.place.device)
        lengths = (rows != _PAD).sum(dim=1)
        states = self(rows)[torch.arange(len(rows)), (lengths - 1).clamp(min=0)]
        known: Tensor = states * (lengths > 0).unsqueeze(1)
        return known

    def asking(self, states: Tensor) -> Tensor:
        """States [n, width] as long as 1 / temperature: their products with `directions` of items are logits, but for
        what is `popular`."""
        return nn.functional.normalize(states, dim=1) * self.warmth.exp()

    def popular(self, rows: Tensor) -> Tensor:
        """What the logit of each of the items `rows`, counted from 1, has for its count alone: [rows]."""
        return self.popularity * self.counts[rows - 1]

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """As an optimizer takes them: temperature and weight of popularity do not shrink."""
        free = [self.warmth, self.popularity]
        others = [one for one in self.parameters() if not any(one is own for own in free)]
        return [{"params": others, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def padded(sequences: Sequence[Ints], length: int) -> Tensor:
    """The last items of each sequence, counted from 1, padded at the end: [sequences, at most `length`]."""
    longest = max(1, min(length, max((len(one) for one in sequences), default=1)))
    rows = np.full((len(sequences), longest), _PAD, dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        end = sequence[-longest:]
        row[: len(end)] = end + 1
    return torch.from_numpy(rows)


def windows(sequence: Ints, length: int) -> Iterator[Ints]:
    """Pieces of at most `length` items, from the end on; two share one item, so that each but the first is a target
    once."""
    for end in range(len(sequence), 1, 1 - length):
        yield sequence[max(0, end - length) : end]


def batches(rows: Tensor, config: SASRecConfig) -> Iterator[Tensor]:
    """Of one epoch: sequences at random, until they have as many events as an epoch may have."""
    order = torch.randperm(len(rows))
    events = (rows[order] != _PAD).sum(dim=1).cumsum(dim=0)
    some = order[: int(torch.searchsorted(events, config.events)) + 1]
    for batch in torch.split(some, config.batch_size):
        yield rows[batch]


class Average:
    """The weights of the last steps, the newest weighing most (Polyak and Juditsky 1992): they rank better than the
    newest alone, and change less from epoch to epoch."""

    def __init__(self, network: Network, kept: float) -> None:
        self.network, self._kept, self._steps = copy.deepcopy(network), kept, 0

    @torch.no_grad()
    def add(self, newest: Network) -> None:
        """`kept` of what there is stays; at first less, so that a short training does not keep where it began."""
        share = max(1.0 - self._kept, _WINDOW / (_WINDOW + self._steps))
        self._steps += 1
        for own, other in zip(self.network.parameters(), newest.parameters(), strict=True):
            own.lerp_(other, share)


def step(network: Network, rows: Tensor, optimizer: torch.optim.Optimizer, config: SASRecConfig) -> None:
    """Of one batch of sequences."""
    network.train()
    device = network.place.device
    pieces = [piece.to(device) for piece in pieces_of(rows)]
    known = [piece[:, 1:] != _PAD for piece in pieces]
    target = torch.cat([piece[:, 1:][asked] for piece, asked in zip(pieces, known, strict=True)])
    drawn = torch.randint(1, network.size + 1, (config.negatives,)).to(device)
    *seen, right, others = network.vectors([*(piece[:, :-1] for piece in pieces), target, drawn])
    states = torch.cat([network.states(own)[asked] for own, asked in zip(seen, known, strict=True)])
    optimizer.zero_grad()
    offered = [(directions(own), network.popular(items)) for own, items in ((right, target), (others, drawn))]
    torch.autograd.backward(sampled_softmax(network.asking(states), *offered))
    optimizer.step()


def pieces_of(rows: Tensor) -> Iterator[Tensor]:
    """The rows of a batch by length, each piece as wide as its longest: most are short, and padding costs time.

    Whole batches of one length cost quality instead: those of short sequences, with few targets in each, would weigh as
    much as those of long ones.
    """
    order = (rows != _PAD).sum(dim=1).argsort()
    ends = [int(share * len(rows)) for share in _SHARES]
    for piece in order.tensor_split(ends):
        if len(piece):
            yield rows[piece][:, : int((rows[piece] != _PAD).sum(dim=1).max())]


def directions(vectors: Tensor) -> Tensor:
    """[n, width], each as long as 1."""
    return nn.functional.normalize(vectors, dim=1)


def sampled_softmax(states: Tensor, right: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the right items, [n, width] and what is added to their logits [n], of the states [n, width]
    beside the drawn ones, [k, width] and [k].

    A target that was drawn stands in the sum twice, once in as many catalogues as it has items; nothing is left out.
    """
    beside = torch.logsumexp(torch.addmm(others[1], states, others[0].T), dim=1)
    return nn.functional.softplus(beside - (states * right[0]).sum(dim=1) - right[1]).mean()
