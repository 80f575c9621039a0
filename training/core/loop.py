"""The training loop over a fixed set of samples: packed rows, AdamW, warm-up and cosine, early stopping, accelerate.

Deterministic for a seed; a run that was killed and resumed ends with the same bits as a straight one (CPU). What is
learnt is an objective (`Objective`): the next token here, preferences in `preference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any, Generic, Protocol, TypeVar

import torch
from transformers import PreTrainedModel

from training.core.errors import DataError, Preempted
from training.core.hidden import hidden_at
from training.core.learner import Batch as Learnable
from training.core.learner import Learner, Loss
from training.core.masks import block_causal
from training.core.neftune import noisy_embeddings
from training.core.packing import IGNORED, Batch, Sample, collate, plan_rows
from training.core.preemption import deferred
from training.core.progress import Progress

S = TypeVar("S", bound=Sized)
SampleIn = TypeVar("SampleIn", contravariant=True)
B = TypeVar("B", bound=Learnable)


class Objective(Protocol[SampleIn, B]):
    """What is learnt from a kind of samples, in a kind of batches.

    One whose loss is no sum over micro-batches has `prepared`, too: see `Learner` and `core.contrastive`.
    """

    def collate(self, rows: Sequence[Sequence[SampleIn]], width: int, pad: int) -> B:
        """Rows of samples, each row at most `width` tokens, as one batch; a row may be empty."""

    def loss(self, model: PreTrainedModel, batch: B) -> Loss:
        """The loss summed over `batch.learnt` units, and further values to log, summed over the same units."""


@dataclass(frozen=True)
class LoopConfig:
    """A micro-batch is `rows` rows of `row_tokens` tokens; a step is `accumulate` of them per process.

    `response_only`, `label_smoothing` and `neftune_alpha` are of the next token, see `NextToken`; the validation loss
    is the plain one.
    """

    epochs: int = 4
    rows: int = 16
    row_tokens: int = 128
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    max_grad_norm: float = 1.0
    response_only: bool = True
    label_smoothing: float = 0.0
    neftune_alpha: float = 0.0
    patience: int = 2
    checkpoint_steps: int = 200
    log_steps: int = 10


@dataclass
class Cursor:
    """Where a run stands: the next batch of the next epoch, and the best validation loss so far."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_loss: float = math.inf
    best_valid_loss: float = math.inf  # of what evaluates alike the lower one is better; nothing alike beats the start
    best_step: int = 0
    worse_epochs: int = 0


@dataclass(frozen=True)
class Trained:
    """What a run did. `valid_loss` is what the best weights were chosen by, `best_step` how many steps they have seen.

    The rate counts useful training tokens.
    """

    steps: int
    best_step: int
    valid_loss: float
    tokens_per_second: float
    resumed_from: int | None


class Schedule(Protocol):
    """The settings of a learning rate."""

    @property
    def learning_rate(self) -> float:
        """The highest one."""

    @property
    def warmup_share(self) -> float:
        """The share of the steps in which it is reached."""


def learning_rate(step: int, total: int, config: Schedule) -> float:
    """Linear warm-up over `warmup_share` of the steps, then a cosine to zero at `total`."""
    warmup = max(1, round(total * config.warmup_share))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy over the learnt tokens of packed samples; logits are computed for those tokens only.

    While the model trains, `label_smoothing` e gives each token of the vocabulary the probability e / V and the target
    1 - e more (Szegedy et al. 2016, section 7), and `neftune_alpha` adds noise to the embeddings (`noisy_embeddings`).
    """

    response_only: bool = True
    label_smoothing: float = 0.0
    neftune_alpha: float = 0.0

    def collate(self, rows: Sequence[Sequence[Sample]], width: int, pad: int) -> Batch:
        """Rows of samples, each `width` tokens wide."""
        return collate(rows, width, pad, self.response_only)

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over the learnt tokens by weight, in nats."""
        targets = batch.targets.flatten()
        learnt = (targets != IGNORED).nonzero()[:, 0]
        smoothing, alpha = (self.label_smoothing, self.neftune_alpha) if model.training else (0.0, 0.0)
        with noisy_embeddings(model, batch.segments, alpha):
            hidden = hidden_at(model, batch.input_ids, block_causal(batch.segments), batch.positions, learnt)
        logits = model.get_output_embeddings()(hidden).float()
        losses = torch.nn.functional.cross_entropy(logits, targets[learnt], reduction="none", label_smoothing=smoothing)
        return (losses * batch.weights.flatten()[learnt]).sum(), {}


class Loop(Generic[S]):
    """One training run in `folder`; `run` names it: a checkpoint there of another run is not gone on from.

    Samples of kind S have a length in tokens; without an `objective` they are `Sample`s, and their next tokens are
    learnt.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pad: int,
        config: LoopConfig,
        seed: int,
        folder: Path,
        run: str,
        objective: Objective[S, Any] | None = None,
    ) -> None:
        self._pad, self._config, self._seed = pad, config, seed
        if objective and (config.label_smoothing or config.neftune_alpha):
            raise DataError(
                "label_smoothing and neftune_alpha are set, and something else than the next token is learnt",
                do="leave them out here",
            )
        self._objective: Objective[Any, Any] = objective or NextToken(
            config.response_only, config.label_smoothing, config.neftune_alpha
        )
        self._valid_objective: Objective[Any, Any] = objective or NextToken()
        self._learner: Learner[Any] = Learner(
            model,
            self._objective.loss,
            folder,
            run,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            prepare=getattr(self._objective, "prepared", None),
        )
        self._cursor = Cursor()

    def train(
        self,
        samples: Callable[[int], Sequence[S]],
        valid: Sequence[S],
        eval_fn: Callable[[], float] | None = None,
        *,
        start_counts: bool = True,
        start_value: float | None = None,
    ) -> Trained:
        """Train to the end, from the last checkpoint if there is one; the model ends with its best weights.

        `samples(epoch)` must give the same samples for the same epoch, or a resumed run is another one. The best
        weights have the lowest `eval_fn()`, asked before the first epoch and after each, and of equal ones the lowest
        loss on `valid`; where nothing is better than the start, the model ends as it was. `start_counts` is false for a
        model that has not been trained yet; `start_value` is the start's `eval_fn()` where that is known already.
        Without an `eval_fn` the lowest loss on `valid` after an epoch decides.
        Raises DataError without samples, Diverged where a loss is not finite, Preempted (with a checkpoint saved) on
        SIGTERM or Ctrl-C.
        """
        first = samples(0)
        if not first or not valid:
            raise DataError("there is nothing to train on or to validate with", do="choose another split")
        # The model was built alike in all processes; what dropout draws from here on must not be the same in them.
        torch.manual_seed(self._seed + self._learner.accelerator.process_index)
        stored, learner = self._learner.resume(), self._learner
        self._cursor = Cursor(**(stored or {}))
        if eval_fn and start_counts and stored is None:
            start = learner.value_of(eval_fn) if start_value is None else start_value
            self._cursor.best_loss, self._cursor.best_valid_loss = start, -math.inf
            learner.log.append(0, eval_value=start, epoch=0)
            learner.save_best()
        with deferred() as stop:
            self._run(first, samples, valid, eval_fn, stop)
        learner.load_best()
        learner.finish()
        cursor, rate = self._cursor, learner.tokens / max(learner.seconds, 1e-9)
        return Trained(
            cursor.step, cursor.best_step, cursor.best_loss, rate, None if stored is None else stored["step"]
        )

    def _run(
        self,
        first: Sequence[S],
        samples: Callable[[int], Sequence[S]],
        valid: Sequence[S],
        eval_fn: Callable[[], float] | None,
        stop: Event,
    ) -> None:
        cursor, config, learner = self._cursor, self._config, self._learner
        total = len(self._plan(first, 0)) * config.epochs
        with Progress(total, "training", "step", done=cursor.step) as progress:
            while cursor.epoch < config.epochs and cursor.worse_epochs < config.patience:
                current = samples(cursor.epoch) if cursor.epoch else first
                for rows in self._plan(current, cursor.epoch)[cursor.batch :]:
                    loss = self._step(current, rows, total)
                    progress.advance(loss=f"{loss:.3f}", epoch=f"{cursor.epoch + 1}/{config.epochs}")
                    stops = learner.total(stop.is_set()) > 0
                    if stops or cursor.step % config.checkpoint_steps == 0:
                        learner.save(asdict(cursor))
                    if stops:
                        raise Preempted.saved(f"step {cursor.step}")
                self._end_epoch(valid, eval_fn)

    def _plan(self, samples: Sequence[S], epoch: int) -> list[list[list[int]]]:
        """The steps of an epoch: lists of rows of sample numbers, for all processes together."""
        rows = plan_rows([len(sample) for sample in samples], self._config.row_tokens, (self._seed, epoch))
        size = self._config.rows * self._config.accumulate * self._learner.accelerator.num_processes
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _step(self, samples: Sequence[S], rows: list[list[int]], total: int) -> float:
        config, cursor = self._config, self._cursor
        batches = list(self._batches(self._objective, samples, self._share(rows)))
        values = self._learner.step(batches, learning_rate(cursor.step, total, config), cursor.step + 1)
        cursor.step, cursor.batch = cursor.step + 1, cursor.batch + 1
        if cursor.step % config.log_steps == 0 or cursor.step == 1:
            self._learner.log.append(cursor.step, **values)
        return values["loss"]

    def _share(self, rows: list[list[int]]) -> list[list[int]]:
        """This process's rows, filled up with an empty one where others have one more: all take as many batches."""
        accelerator, count = self._learner.accelerator, len(rows)
        processes = accelerator.num_processes
        return [*rows[accelerator.process_index :: processes], []][: -(-count // processes)]

    def _batches(self, objective: Objective[S, Any], samples: Sequence[S], rows: list[list[int]]) -> Iterator[Any]:
        """The rows of sample numbers, a micro-batch at a time."""
        for start in range(0, len(rows), self._config.rows):
            part = [[samples[number] for number in row] for row in rows[start : start + self._config.rows]]
            yield objective.collate(part, self._config.row_tokens, self._pad)

    def _end_epoch(self, valid: Sequence[S], eval_fn: Callable[[], float] | None) -> None:
        cursor, learner = self._cursor, self._learner
        found = {f"valid_{name}": value for name, value in self._evaluate(valid).items()}
        loss = learner.value_of(eval_fn) if eval_fn else found["valid_loss"]
        learner.log.append(cursor.step, **found, eval_value=loss, epoch=cursor.epoch + 1)
        if (loss, found["valid_loss"]) < (cursor.best_loss, cursor.best_valid_loss):
            cursor.best_loss, cursor.best_valid_loss = loss, found["valid_loss"]
            cursor.best_step, cursor.worse_epochs = cursor.step, 0
            learner.save_best()
        else:
            cursor.worse_epochs += 1
        cursor.epoch, cursor.batch = cursor.epoch + 1, 0
        learner.save(asdict(cursor))

    def valid_loss(self, samples: Sequence[S]) -> float:
        """Mean loss per unit of the objective: per response token, in nats, for the next token."""
        return self._evaluate(samples)["loss"]

    def _evaluate(self, samples: Sequence[S]) -> dict[str, float]:
        plan = self._share(plan_rows([len(sample) for sample in samples], self._config.row_tokens, None))
        return self._learner.evaluate(self._batches(self._valid_objective, samples, plan))
