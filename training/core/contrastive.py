"""Two kinds of texts brought together in one space: InfoNCE, where the other targets of the step are the negatives.

The loss of a micro-batch needs the vectors of all others, those of other processes too, so it is no sum over
micro-batches. It becomes one as in GradCache (Gao et al. 2021, section 3): all vectors of the step are computed without
a graph, the loss gives its gradient with respect to each of them, and then each micro-batch, computed again with a
graph, takes its own part of that. What is learnt is to the bit of rounding what one large batch would learn, and
memory is that of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.device import accelerator
from training.core.hidden import hidden_at
from training.core.learner import Forward, Loss
from training.core.masks import block_causal


@dataclass(frozen=True)
class Pair:
    """Token ids of an anchor (an utterance, a query) and of its target (an intent, an item).

    `key` names the target: of the same key are all that are right for the same anchors.
    """

    anchor: tuple[int, ...]
    target: tuple[int, ...]
    key: int

    def __len__(self) -> int:
        return len(self.anchor) + len(self.target)


@dataclass(frozen=True)
class PairBatch:
    """Rows [R, L] of packed texts; `ends` [2, n] are the places of the last tokens of the n anchors and targets, and
    `keys` [n] their keys.

    `prepared` once the loss is known: `losses` [n] of the anchors, and its `gradients` [2 * n, D] for the vectors.
    `state` is that of the random numbers (of the CPU and the device) that the vectors were computed with.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    ends: Tensor
    keys: Tensor
    losses: Tensor | None = None
    gradients: Tensor | None = None
    state: tuple[Tensor, ...] = ()

    @property
    def learnt(self) -> int:
        """How many anchors there are."""
        return len(self.keys)

    @property
    def useful(self) -> int:
        """How many tokens are not padding."""
        return int((self.segments > 0).sum())

    @property
    def sequences(self) -> int:
        """How many texts there are."""
        return 2 * len(self.keys)

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on another device."""
        names = ("input_ids", "positions", "segments", "ends", "keys")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class InBatchNegatives:
    """InfoNCE (van den Oord et al. 2018, eq. 4) of the cosine over `temperature`; a vector is a text's last token.

    All targets of a step are an anchor's negatives but those that have the key of its own.
    """

    temperature: float = 0.05

    def collate(self, rows: Sequence[Sequence[Pair]], width: int, pad: int) -> PairBatch:
        """Rows of pairs, each `width` tokens wide; the texts of a row do not see each other."""
        layout = np.zeros((3, len(rows), width), dtype=np.int64)
        layout[0] = pad
        ends: list[list[int]] = [[], []]
        for r, row in enumerate(rows):
            start = 0
            for number, text in enumerate((text for pair in row for text in (pair.anchor, pair.target)), start=1):
                end = start + len(text)
                layout[:, r, start:end] = text, range(len(text)), [number] * len(text)
                ends[(number - 1) % 2].append(r * width + end - 1)
                start = end
        ids, positions, segments = torch.from_numpy(layout)
        keys = torch.tensor([pair.key for row in rows for pair in row], dtype=torch.int64)
        return PairBatch(ids, positions, segments, torch.tensor(ends, dtype=torch.int64), keys)

    def prepared(self, forward: Forward[PairBatch], batches: Sequence[PairBatch]) -> list[PairBatch]:
        """The micro-batches of this process with their parts of a loss that is of all processes' vectors."""
        learning, states, found = torch.is_grad_enabled(), list[tuple[Tensor, ...]](), list[Tensor]()
        with torch.no_grad():
            for batch in batches:
                # What dropout draws from: the CPU's and, where there is one, that of this process's GPU.
                of_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
                states.append((torch.get_rng_state(), *of_gpu))
                found.append(forward(self.vectors, batch))
        own = torch.cat([vectors.view(2, len(vectors) // 2, -1) for vectors in found], dim=1)
        everywhere, keys, first = _of_all_processes(own, torch.cat([batch.keys for batch in batches]).to(own.device))
        everywhere.requires_grad_(learning)
        losses = self.losses(everywhere[0], everywhere[1], keys)
        gradients = torch.autograd.grad(losses.sum(), everywhere)[0] if learning else torch.zeros_like(everywhere)
        counts, part = [batch.learnt for batch in batches], slice(first, first + own.shape[1])
        shares = zip(
            torch.split(losses.detach()[part], counts), torch.split(gradients[:, part], counts, 1), strict=True
        )
        return [
            replace(batch, losses=loss, gradients=gradient.flatten(0, 1), state=state)
            for batch, (loss, gradient), state in zip(batches, shares, states, strict=True)
        ]

    def vectors(self, model: PreTrainedModel, batch: PairBatch) -> Tensor:
        """Unit vectors [2 * n, D], float32 at least: of the anchors, then of the targets."""
        seen = block_causal(batch.segments)
        hidden = hidden_at(model, batch.input_ids, seen, batch.positions, batch.ends.flatten())
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        return torch.nn.functional.normalize(wide, dim=1)

    def losses(self, anchors: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
        """The loss [N] of each of the `anchors` [N, D] among the `targets` [N, D], in nats."""
        logits = anchors @ targets.T / self.temperature
        itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
        same = (keys[:, None] == keys) & ~itself
        return logits.masked_fill(same, float("-inf")).logsumexp(dim=1) - logits.diagonal()

    def loss(self, model: PreTrainedModel, batch: PairBatch) -> Loss:
        """The prepared losses, summed over the anchors, with the graph of this micro-batch behind them."""
        assert batch.losses is not None and batch.gradients is not None  # the learner has called `prepared`
        value = batch.losses.sum()
        if not torch.is_grad_enabled():
            return value, {}
        with _random_numbers(batch.state):
            share = (self.vectors(model, batch) * batch.gradients).sum()
        return value + share - share.detach(), {}


def _of_all_processes(own: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, int]:
    """Vectors [2, N, D] and keys [N] of all processes, in their order, and where this process's [2, n, D] begin."""
    state = accelerator()
    counts: Tensor = state.gather(torch.tensor([len(keys)], device=own.device))
    missing = int(counts.max()) - len(keys)
    filled: Tensor = state.gather(torch.nn.functional.pad(own.transpose(0, 1), (0, 0, 0, 0, 0, missing)))
    named: Tensor = state.gather(torch.nn.functional.pad(keys, (0, missing)))
    real = (torch.arange(int(counts.max()), device=own.device) < counts[:, None]).flatten()
    everywhere = filled[real].transpose(0, 1).contiguous()
    return everywhere, named[real], int(counts[: state.process_index].sum())


@contextmanager
def _random_numbers(state: tuple[Tensor, ...]) -> Iterator[None]:
    """Inside, the numbers of that `state` are drawn again; outside, nothing has been drawn."""
    gpus = [torch.cuda.current_device()] if len(state) > 1 else []
    with torch.random.fork_rng(devices=gpus):
        torch.set_rng_state(state[0])
        if gpus:
            torch.cuda.set_rng_state(state[1])
        yield
