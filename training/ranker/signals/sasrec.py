"""SASRec (Kang and McAuley 2018, arXiv 1808.09781): self-attention over the history, trained with a sampled softmax.

What differs from the paper: instead of one negative and binary cross-entropy, a softmax over the target and some
hundred items that the positions of a batch share (as in gSASRec, arXiv 2308.07192, and eSASRec, RecSys 2025, which
found it to be what makes SASRec strong); the softmax is of cosines over a temperature, so that no item is likely for
the length of its vector alone (NISER, arXiv 1909.04276), and of the item's count, as far as that helps; pre-normalised
layers; one layer, as more gained nothing where it was tried (docs/LOG.md). Trained on every position of all of a user's
events; the epoch is chosen by NDCG@10 on validation.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from training.core.errors import LeftOut
from training.core.progress import Progress
from training.ranker.signals.base import (
    Arrays,
    Floats,
    Learnt,
    Mask,
    Pairs,
    Questions,
    Said,
    Stored,
    listed,
)
from training.ranker.signals.self_attention import (
    Average,
    Network,
    SASRecConfig,
    batches,
    directions,
    padded,
    step,
    windows,
)
from training.ranker.signals.validation import Validation


class SASRec(Stored):
    """score(i | h) = log softmax over the catalogue of what `Network` says of e_i beside Transformer(h), where the
    transformer is read at the last item; an empty h knows nothing.

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
            network = Network(learnt.catalogue, config, torch.from_numpy(learnt.counts)).to(device)
            return cls(*_trained(network, learnt, config, validation))

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return self.network.size

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        known = np.array([len(history) > 0 for history in asked.histories], dtype=bool)
        with torch.inference_mode():
            states = self.network.asking(self.network.last(asked.histories))
            return Chances(torch.addmm(self._popular, states, self._items.T), known)

    @cached_property
    def _items(self) -> Tensor:
        return directions(self.network.item.weight[1:])

    @cached_property
    def _popular(self) -> Tensor:
        return self.network.popular(torch.arange(1, self.network.size + 1, device=self.network.place.device))

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
        # One of before counts were weighed has no counts: what it lacks says nothing.
        network.load_state_dict({**network.state_dict(), **weights})
        return cls(network, int(arrays["epochs"]))


class Chances(Said):
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


def _trained(
    network: Network, learnt: Learnt, config: SASRecConfig, validation: Validation | None
) -> tuple[Network, int]:
    """The network with the average of its weights at the best epoch, and which that was."""
    pieces = [piece for sequence in learnt.sequences for piece in windows(sequence, config.length + 1)]
    rows = padded(pieces, config.length + 1)
    optimizer = torch.optim.AdamW(network.groups(config.weight_decay), lr=config.learning_rate, fused=True)
    average, best, chosen = Average(network, config.averaging), -1.0, 0
    kept = copy.deepcopy(network.state_dict())
    with Progress(config.epochs, "sasrec", "epoch") as progress:
        for epoch in range(1, config.epochs + 1):
            for batch in batches(rows, config):
                step(network, batch, optimizer, config)
                average.add(network)
            quality = float(epoch) if validation is None else validation.ndcg(SASRec(average.network, epoch))
            progress.advance(valid_ndcg=f"{quality:.4f}" if validation else "not asked")
            if quality > best:
                best, kept, chosen = quality, copy.deepcopy(average.network.state_dict()), epoch
            elif epoch - chosen >= config.patience:
                break
    network.load_state_dict(kept)
    return network, chosen
