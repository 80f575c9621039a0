"""SASRec (Kang and McAuley 2018, arXiv 1808.09781): self-attention over the history, in a compact torch form.

What differs from the paper: a softmax over the whole catalogue instead of binary cross-entropy with one sampled
negative, which later comparisons found to be what made SASRec look weak (gSASRec, arXiv 2308.07192) and which a small
catalogue affords (of a larger one 8,192 items are drawn for each batch); pre-normalised layers; and a begin token, so
that a user without a history is a case that training has seen. Trained on every position; stops when validation NDCG@10
does. Sizes, dropout and learning rate are those of RecBole's SASRec, and were the best of those tried on validation
(docs/LOG.md).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.core.errors import LeftOut
from training.core.progress import Progress
from training.core.ranking import rows_at_once
from training.generative_rec.baselines.base import Baseline, Known, Scores
from training.next_item.samples import NextItem

_PAD, _BEGIN, _FIRST_ITEM = 0, 1, 2
_LENGTHS_TOGETHER = 4
_SOFTMAX_ITEMS = 1 << 13


@dataclass(frozen=True)
class SASRecConfig:
    """Sizes and schedule. `length` counts items; `patience` counts epochs without a better validation NDCG@10."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 20
    dropout: float = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 128
    epochs: int = 30
    patience: int = 5
    validation_samples: int = 1000


class SASRec(Baseline):
    """score(i | h) = e_i . Transformer(begin, h) at the last item, with the item embeddings tied."""

    def __init__(self, known: Known, config: SASRecConfig) -> None:
        super().__init__(known)
        if not known.validation:
            raise LeftOut("there is nothing to validate SASRec with", do="move the cut dates of the split")
        self._config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(known.seed)
            self._network = _Network(len(self.catalogue), config)
            self._train(known.validation[: config.validation_samples])

    @torch.inference_mode()
    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """See `Baseline.scores`."""
        self._network.eval()
        states = self._network(_inputs(histories, self._config.length))
        last = torch.tensor([min(len(history), self._config.length) for history in histories])
        scores: Scores = self._network.logits(states[torch.arange(len(histories)), last]).numpy().copy()
        return scores

    def _train(self, validation: Sequence[NextItem]) -> None:
        rows = _inputs([sequence for sequence in self.sequences if sequence], self._config.length + 1)
        optimizer = torch.optim.AdamW(
            self._network.parameters(),
            lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
            fused=True,  # goes over a large catalogue's table once a step instead of several times
        )
        best, best_weights, waited = -1.0, copy.deepcopy(self._network.state_dict()), 0
        with Progress(self._config.epochs, "sasrec", "epoch") as progress:
            for _ in range(self._config.epochs):
                self._epoch(rows, optimizer)
                quality = float(self.gains(validation).mean())
                progress.advance(valid_ndcg=f"{quality:.4f}")
                best, waited = (quality, 0) if quality > best else (best, waited + 1)
                if waited == 0:
                    best_weights = copy.deepcopy(self._network.state_dict())
                elif waited >= self._config.patience:
                    break
        self._network.load_state_dict(best_weights)

    def _epoch(self, rows: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self._network.train()
        # Random batches of about equal lengths: most sequences are short, and padding costs time.
        lengths = (rows != _PAD).sum(dim=1)
        order = (lengths + _LENGTHS_TOGETHER * torch.rand(len(lengths))).argsort()
        batches = torch.split(order, self._config.batch_size)
        for number in torch.randperm(len(batches)):
            batch = batches[number]
            kept = rows[batch][:, : int((rows[batch] != _PAD).sum(dim=1).max())]
            seen, target = kept[:, :-1], kept[:, 1:]
            asked = target != _PAD
            optimizer.zero_grad()
            self._learn(self._network(seen)[asked], target[asked] - _FIRST_ITEM)
            optimizer.step()

    def _learn(self, states: Tensor, targets: Tensor) -> None:
        """Gradients of the mean cross-entropy: states [n, width], targets [n].

        By parts of the positions: the logits of all of them at once would be a table of positions x catalogue. What
        the parts say of items is added up among the items that they share, and reaches the whole catalogue's table
        once: a table of zeros for each part would cost more than the logits.
        """
        items = self._network.items
        among = torch.randperm(len(items))[:_SOFTMAX_ITEMS] if len(items) > _SOFTMAX_ITEMS else None
        drawn, own = items if among is None else items[among], items[targets]
        cut = [whole.detach().requires_grad_() for whole in (states, own, drawn)]
        at_once = rows_at_once(len(drawn))
        parts = zip(*(torch.split(one, at_once) for one in (cut[0], cut[1], targets)), strict=True)
        for part, part_own, part_targets in parts:
            loss = cross_entropy(part, part_own, cut[2], part_targets, among, len(items))
            torch.autograd.backward(loss / len(states))
        torch.autograd.backward(
            [states, drawn, *([] if among is None else [own])],
            [cut[0].grad, cut[2].grad, *([] if among is None else [cut[1].grad])],
        )


class _Network(nn.Module):
    def __init__(self, items: int, config: SASRecConfig) -> None:
        super().__init__()
        self.item = nn.Embedding(items + _FIRST_ITEM, config.width, padding_idx=_PAD)
        self.place = nn.Parameter(torch.zeros(config.length + 1, config.width))
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False
        )
        nn.init.normal_(self.item.weight, std=0.02)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of `_inputs`: [batch, length] -> states [batch, length, width]; padding comes last, no item sees it."""
        length = rows.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        states: Tensor = self.layers(self.dropout(self.item(rows) + self.place[:length]), mask=later, is_causal=True)
        return states

    @property
    def items(self) -> Tensor:
        """The embeddings of the catalogue, [items, width]."""
        return self.item.weight[_FIRST_ITEM:]

    def logits(self, states: Tensor) -> Tensor:
        """[n, width] -> [n, items]."""
        return states @ self.items.T


def cross_entropy(
    states: Tensor, own: Tensor, drawn: Tensor, targets: Tensor, among: Tensor | None, size: int
) -> Tensor:
    """Summed cross-entropy of `states` [n, width] over a whole catalogue of `size` items, or over the target and the
    items drawn evenly (`among` [k]); `own` [n, width] are the targets' embeddings, `drawn` those of all or of `among`.

    A drawn item stands for all that it was drawn from, so its logit rises by log(size / drawn) (Bengio and Senecal
    2008). One that is the target is left out.
    """
    if among is None:
        return nn.functional.cross_entropy(states @ drawn.T, targets, reduction="sum")
    logits = states @ drawn.T + math.log(size / len(among))
    logits = logits.masked_fill(among == targets.unsqueeze(1), -torch.inf)
    first = (states * own).sum(dim=1, keepdim=True)
    return -torch.cat([first, logits], dim=1).log_softmax(dim=1)[:, 0].sum()


def _inputs(sequences: Sequence[Sequence[int]], length: int) -> Tensor:
    """The begin token and the last `length` rows of each sequence, padded at the end: [sequences, <= length + 1]."""
    kept = [[_BEGIN, *(row + _FIRST_ITEM for row in sequence[-length:])] for sequence in sequences]
    tensors = [torch.tensor(row) for row in kept]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=_PAD)
