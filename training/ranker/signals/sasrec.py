"""SASRec (Kang and McAuley 2018, arXiv 1808.09781): self-attention over the history, trained with a sampled softmax.

What differs from the paper: instead of one negative and binary cross-entropy, a softmax over the target and some
hundred items that the positions of a batch share (as in gSASRec, arXiv 2308.07192, and eSASRec, RecSys 2025, which
found it to be what makes SASRec strong); the softmax is of cosines over a temperature, so that no item is likely for
the length of its vector alone (NISER, arXiv 1909.04276); pre-normalised layers; one layer, as more gained nothing where
it was tried (docs/LOG.md). Trained on every position; the epoch is chosen by NDCG@10 on validation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from training.core.errors import LeftOut
from training.core.progress import Progress
from training.ranker.signals.base import (
    Arrays,
    Floats,
    Ints,
    Learnt,
    Mask,
    Pairs,
    Questions,
    Said,
    Signal,
    listed,
)
from training.ranker.signals.validation import Validation

_PAD = 0
_WINDOW = 9  # of the steps so far, about a ninth counts
_SHARES = (0.6, 0.85, 0.96)


@dataclass(frozen=True)
class SASRecConfig:
    """Sizes and schedule. `length` counts items; `temperature` divides cosines; of `averaging` is the share that the
    average of the weights keeps of itself at a step; `patience` counts epochs without a better validation NDCG@10."""

    width: int = 64
    layers: int = 1
    heads: int = 2
    length: int = 50
    dropout: float = 0.3
    negatives: int = 1024
    temperature: float = 0.07
    averaging: float = 0.995
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 128
    epochs: int = 24
    patience: int = 5


class SASRec(Signal):
    """score(i | h) = log softmax over the catalogue of cos(e_i, Transformer(h)) / temperature, where the transformer is
    read at the last item; an empty h knows nothing.

    `best`, the logarithm of the largest probability, is its certainty: how much there is to trust.
    """

    name, logarithms = "sasrec", True

    def __init__(self, network: Network, epochs: int) -> None:
        self.network, self.epochs = network.eval(), epochs

    @classmethod
    def fit(cls, learnt: Learnt, config: SASRecConfig, validation: Validation | None) -> Self:
        """Train; without `validation` for all of the `epochs`, else until NDCG@10 has not risen for `patience`.

        Raises:
            LeftOut: no user has taken two items, or there is nothing to validate with.
        """
        if not any(len(sequence) > 1 for sequence in learnt.sequences):
            raise LeftOut("no user has two events to learn an order from", do="wait for more events")
        if validation is not None and not len(validation.truth):
            raise LeftOut("there is nothing to validate SASRec with", do="move the cut dates of the split")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng():
            torch.manual_seed(learnt.seed)
            network = Network(learnt.catalogue, config).to(device)
            return cls(*_trained(network, learnt, config, validation))

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return self.network.size

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        known = np.array([len(history) > 0 for history in asked.histories], dtype=bool)
        with torch.inference_mode():
            return _Chances(self.network.directions(self.network.last(asked.histories)) @ self._items.T, known)

    @cached_property
    def _items(self) -> Tensor:
        return self.network.directions(self.network.item.weight[1:])

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        weights = {f"weights.{name}": value.cpu().numpy() for name, value in self.network.state_dict().items()}
        config = {f"config.{name}": np.array(value) for name, value in asdict(self.network.config).items()}
        return {**weights, **config, "epochs": np.array(self.epochs)}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "config": {}}
        for name, value in arrays.items():
            part, _, key = name.partition(".")
            parts.setdefault(part, {})[key] = value
        config = SASRecConfig(**{key: value.item() for key, value in parts["config"].items()})
        weights = {key: torch.from_numpy(value) for key, value in parts["weights"].items()}
        network = Network(len(weights["item.weight"]) - 1, config)
        network.load_state_dict(weights)
        return cls(network, int(arrays["epochs"]))


class _Chances(Said):
    """`logits` [questions, catalogue] of a softmax; a question that is not `known` has no list.

    As few passes over the table as there can be: in a large catalogue each takes as long as all that is sparse.
    """

    def __init__(self, logits: Tensor, known: Mask) -> None:
        self.logits, self.known = logits, torch.from_numpy(known).to(logits.device)
        self._best = logits.max(dim=1).values
        self._all = self._best + (logits - self._best.unsqueeze(1)).exp_().sum(dim=1).log_()

    def scores(self, pairs: Pairs) -> Floats:
        """See `Said.scores`."""
        questions, items = (torch.from_numpy(one).to(self.logits.device) for one in (pairs.questions, pairs.items))
        return _floats(self.logits[questions, items] - self._all[questions])

    def top(self, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Said.top`."""
        logits = self.logits
        if allowed is not None:
            logits = logits.masked_fill(torch.from_numpy(~allowed).to(logits.device), -torch.inf)
        found = _firsts(logits, n, self.known)
        scores = self.scores(found)
        kept = listed(found, scores, n)
        return Pairs(found.questions[kept], found.items[kept]), scores[kept]

    def best(self) -> Floats:
        """See `Said.best`."""
        return _floats(self._best - self._all)


def _firsts(logits: Tensor, n: int, known: Tensor) -> Pairs:
    """The `n` largest of each row that is `known`, and all that equal the last of them; -inf is in none."""
    values, items = logits.topk(min(n + 1, logits.shape[1]), dim=1)
    last = values[:, min(n, values.shape[1]) - 1]
    # Which of equals `topk` takes, it does not say: rows where one is left out are read whole.
    equal = (values[:, -1] == last) & (values.shape[1] > n) & (last > -torch.inf)
    rows, places = ((values > -torch.inf) & (known & ~equal).unsqueeze(1)).nonzero(as_tuple=True)
    more = (known & equal).nonzero().flatten()
    among, others = (logits[more] >= last[more].unsqueeze(1)).nonzero(as_tuple=True)
    questions, found = torch.cat([rows, more[among]]), torch.cat([items[rows, places], others])
    return Pairs(questions.cpu().numpy(), found.cpu().numpy())


def _floats(values: Tensor) -> Floats:
    found: Floats = values.cpu().numpy()
    return found


class Network(nn.Module):
    """The transformer, and the embeddings of items, which are its output layer too."""

    def __init__(self, size: int, config: SASRecConfig) -> None:
        super().__init__()
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

    def directions(self, vectors: Tensor) -> Tensor:
        """[n, width], as long as the root of 1 / temperature each: their products are the logits."""
        return nn.functional.normalize(vectors, dim=1) / math.sqrt(self.config.temperature)


def padded(sequences: Sequence[Ints], length: int) -> Tensor:
    """The last items of each sequence, counted from 1, padded at the end: [sequences, at most `length`]."""
    longest = max(1, min(length, max((len(one) for one in sequences), default=1)))
    rows = np.full((len(sequences), longest), _PAD, dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        end = sequence[-longest:]
        row[: len(end)] = end + 1
    return torch.from_numpy(rows)


def _trained(
    network: Network, learnt: Learnt, config: SASRecConfig, validation: Validation | None
) -> tuple[Network, int]:
    """The network with the average of its weights at the best epoch, and which that was."""
    rows = padded([one for one in learnt.sequences if len(one) > 1], config.length + 1)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    average, best, chosen = _Average(network, config.averaging), -1.0, 0
    kept = copy.deepcopy(network.state_dict())
    with Progress(config.epochs, "sasrec", "epoch") as progress:
        for epoch in range(1, config.epochs + 1):
            for batch in torch.split(torch.randperm(len(rows)), config.batch_size):
                _step(network, rows[batch], optimizer, config)
                average.add(network)
            quality = float(epoch) if validation is None else validation.ndcg(SASRec(average.network, epoch))
            progress.advance(valid_ndcg=f"{quality:.4f}" if validation else "not asked")
            if quality > best:
                best, kept, chosen = quality, copy.deepcopy(average.network.state_dict()), epoch
            elif epoch - chosen >= config.patience:
                break
    network.load_state_dict(kept)
    return network, chosen


class _Average:
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


def _step(network: Network, rows: Tensor, optimizer: torch.optim.Optimizer, config: SASRecConfig) -> None:
    """Of one batch of sequences."""
    network.train()
    device = network.place.device
    pieces = [piece.to(device) for piece in _pieces(rows)]
    known = [piece[:, 1:] != _PAD for piece in pieces]
    target = torch.cat([piece[:, 1:][asked] for piece, asked in zip(pieces, known, strict=True)])
    drawn = torch.randint(1, network.size + 1, (config.negatives,)).to(device)
    *seen, right, others = network.vectors([*(piece[:, :-1] for piece in pieces), target, drawn])
    states = torch.cat([network.states(own)[asked] for own, asked in zip(seen, known, strict=True)])
    optimizer.zero_grad()
    torch.autograd.backward(sampled_softmax(*map(network.directions, (states, right, others))))
    optimizer.step()


def _pieces(rows: Tensor) -> Iterator[Tensor]:
    """The rows of a batch by length, each piece as wide as its longest: most are short, and padding costs time.

    Whole batches of one length cost quality instead: those of short sequences, with few targets in each, would weigh as
    much as those of long ones.
    """
    order = (rows != _PAD).sum(dim=1).argsort()
    ends = [int(share * len(rows)) for share in _SHARES]
    for piece in order.tensor_split(ends):
        if len(piece):
            yield rows[piece][:, : int((rows[piece] != _PAD).sum(dim=1).max())]


def sampled_softmax(states: Tensor, right: Tensor, others: Tensor) -> Tensor:
    """Mean cross-entropy of the right items [n, width] of the states [n, width] beside the drawn ones [k, width].

    A target that was drawn stands in the sum twice, once in as many catalogues as it has items; nothing is left out.
    """
    beside = torch.logsumexp(states @ others.T, dim=1)
    return nn.functional.softplus(beside - (states * right).sum(dim=1)).mean()
