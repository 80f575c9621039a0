"""One optimizer step, whatever is learnt: micro-batches, gradients over all processes, the metrics log, checkpoints.

A loss function gives the sum over a batch, and further sums to log. A step divides the sums of its micro-batches and
processes by their common count, so accumulating and distributing equal one large batch.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from training.core.checkpoint import load_checkpoint, load_weights, places, read_cursor, save_checkpoint, save_weights
from training.core.device import accelerator
from training.core.errors import Diverged
from training.core.precision import autocast
from training.core.shards import empty, give, lent, whole
from training.core.stage import MetricsLog
from training.core.throughput import flops_per_token, peak_flops

Loss = tuple[Tensor, dict[str, Tensor]]


class Batch(Protocol):
    """What a step needs to know of a batch."""

    @property
    def learnt(self) -> float:
        """By how much the summed loss is divided."""

    @property
    def useful(self) -> int:
        """How many tokens are not padding."""

    @property
    def sequences(self) -> int:
        """How many sequences these tokens are in."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""


B = TypeVar("B", bound=Batch)
LossFunction = Callable[[PreTrainedModel, B], Loss]
Forward = Callable[[Callable[[PreTrainedModel, B], Tensor], B], Tensor]
"""Runs a function of the model and a batch where the model has its weights."""
Prepare = Callable[[Forward[B], Sequence[B]], Sequence[B]]


class _Summed(nn.Module, Generic[B]):
    """The loss as a module, so that the wrappers of several processes see its forward."""

    def __init__(self, model: PreTrainedModel, loss: LossFunction[B]) -> None:
        super().__init__()
        self.model, self._loss = model, loss
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # what FSDP takes as its units

    def forward(self, batch: B, work: Callable[[PreTrainedModel, B], Any] | None = None) -> Any:
        with autocast(self.model):  # on a GPU, accelerate does the same
            return (work or self._loss)(self.model, batch)


class Learner(Generic[B]):
    """A model in training, in `folder`; `run` names the run: a checkpoint there of another one is not gone on from.

    Under FSDP weights, gradients and optimizer state are in shards over the processes, and `model` is an empty shell
    that can do nothing: it has its weights inside of `whole()`, and again after `finish()`. So it decodes, evaluates
    and is saved as anywhere else, and nothing is whole while steps are taken.

    The loss function gives the loss summed over `batch.learnt` units, and values to log, summed over the same units.
    A loss that is no sum over micro-batches becomes one by `prepare`: it sees all of a step (or of a validation) first,
    and hands back the micro-batches that the loss function is given (`core.contrastive`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        loss: LossFunction[B],
        folder: Path,
        run: str,
        *,
        weight_decay: float,
        max_grad_norm: float,
        prepare: Prepare[B] | None = None,
    ) -> None:
        self.accelerator = accelerator()
        self._prepare = prepare
        self.model, self._run, self._max_grad_norm = model, run, max_grad_norm
        sharded = self.accelerator.is_fsdp2
        # Sharding takes a model apart: it gets one of its own, made of the same weights.
        learning = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()}) if sharded else model
        learnt = [weight for weight in learning.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learnt, weight_decay=weight_decay, fused=True)
        self._learning = learning
        self._summed, self._optimizer = self.accelerator.prepare(_Summed(learning, loss), optimizer)
        self.weights: Sequence[Tensor] = tuple(learning.parameters())
        if sharded:
            empty(model)
        self._folder, (self._checkpoint, self._best) = folder, places(folder)
        self.log = MetricsLog(folder / "metrics.jsonl")
        self.tokens, self.seconds = 0, 0.0

    def resume(self) -> dict[str, Any] | None:
        """Go on from this run's checkpoint: its cursor, or None if there is none. Later lines leave the log."""
        cursor = read_cursor(self._checkpoint)
        if cursor is None or cursor.pop("run") != self._run:
            self.log.rewind(-1)
            return None
        load_checkpoint(self._checkpoint, self._learning, self._optimizer)
        self.log.rewind(cursor["step"])
        return cursor

    def save(self, cursor: Mapping[str, Any]) -> None:
        """Write a checkpoint; `cursor` must hold the `step`."""
        save_checkpoint(self._checkpoint, self._learning, self._optimizer, {"run": self._run, **cursor})

    def save_best(self) -> None:
        """Keep the weights as they are now as the best ones."""
        save_weights(self._learning, self._best)

    def load_best(self) -> None:
        """Go back to the best weights."""
        self.accelerator.wait_for_everyone()
        load_weights(self._learning, self._best)
        self.accelerator.wait_for_everyone()  # the one that is done first may remove the file

    def whole(self) -> AbstractContextManager[None]:
        """Inside, `model` has its weights; it must not learn there. All processes enter together."""
        return lent(self.model, self.weights)

    def finish(self) -> None:
        """Give `model` its weights back, for good; no step may follow."""
        give(self.model, self.weights)

    def value_of(self, eval_fn: Callable[[], float]) -> float:
        """What `eval_fn` says of `model` as it is now: the mean over the processes, so that they all go by one number.

        Raises Diverged where that is not finite.
        """
        with self.whole():
            value = self.total(eval_fn()) / float(self.accelerator.num_processes)
        Diverged.check(str(self._folder), eval_value=value)
        return value

    def total(self, value: float) -> float:
        """Sum over the processes."""
        own = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(own, "sum"))

    def most(self, value: int) -> int:
        """Maximum over the processes."""
        return int(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).max())

    def gathered(self, values: Tensor) -> Tensor:
        """The `values` [n], none of them negative, of all processes end to end, on the CPU."""
        padded = self.accelerator.pad_across_processes(values.to(self.accelerator.device), pad_index=-1)
        everywhere: Tensor = self.accelerator.gather(padded)
        return everywhere[everywhere >= 0].cpu()

    def step(self, batches: Sequence[B], rate: float, number: int) -> dict[str, float]:
        """The optimizer step with this `number`, at this learning rate. All processes must bring as many batches.

        Returns loss, gradient norm, rate, throughput and what the loss function logs, over all processes. Raises
        Diverged, in all of them, where loss or gradient norm is not finite; the weights are those of the step before.
        """
        started = time.monotonic()
        learnt = self.total(sum(batch.learnt for batch in batches))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._summed.train()
        if self._prepare:
            batches = self._prepare(self._forward, batches)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            value, terms = self._summed(batch.to(self.accelerator.device))
            # Processes average their gradients; the sum is wanted.
            self.accelerator.backward(value / learnt * self.accelerator.num_processes)
            for name, term in {"loss": value, **terms}.items():
                sums[name] = sums.get(name, 0.0) + term.detach() / learnt
        norm = float(whole(self.accelerator.clip_grad_norm_(self._summed.parameters(), self._max_grad_norm)))
        means = self.accelerator.reduce(torch.stack([value.float() for value in sums.values()]), "sum")
        logged = dict(zip(sums, means.tolist(), strict=True))
        # Both are of all processes, so either all of them go on or none does.
        Diverged.check(f"step {number} of {self._folder}", loss=logged["loss"], gradient_norm=norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return {**logged, "grad_norm": norm, "learning_rate": rate, **self._throughput(batches, started)}

    def _forward(self, work: Callable[[PreTrainedModel, B], Tensor], batch: B) -> Tensor:
        done: Tensor = self._summed(batch.to(self.accelerator.device), work)
        return done

    def _throughput(self, batches: Sequence[B], started: float) -> dict[str, float]:
        tokens = self.total(sum(batch.useful for batch in batches))
        length = tokens / max(self.total(sum(batch.sequences for batch in batches)), 1.0)
        seconds = time.monotonic() - started
        self.tokens, self.seconds = self.tokens + int(tokens), self.seconds + seconds
        values = {"tokens_per_second": tokens / seconds}
        peak = peak_flops(self.accelerator.device)
        if peak is not None:
            done = tokens * flops_per_token(self._learning, length)
            values["mfu"] = done / seconds / (peak * self.accelerator.num_processes)
        return values

    @torch.no_grad()
    def evaluate(self, batches: Iterable[B]) -> dict[str, float]:
        """The loss of the batches of all processes and what the loss function logs, without learning from them.

        All processes must bring as many batches. Raises Diverged where the loss is not finite.
        """
        self._summed.eval()
        if self._prepare:
            batches = self._prepare(self._forward, list(batches))
        sums: Counter[str] = Counter()
        own = 0.0
        for batch in batches:
            own += batch.learnt
            value, terms = self._summed(batch.to(self.accelerator.device))
            sums.update({name: float(term) for name, term in {"loss": value, **terms}.items()})
        if isinstance(self._summed, FSDPModule):
            self._summed.reshard()  # the root's own weights, which otherwise wait for a backward pass
        learnt = self.total(own)
        means = {name: self.total(value) / learnt for name, value in sums.items()}
        Diverged.check(str(self._folder), validation_loss=means["loss"])
        return means
