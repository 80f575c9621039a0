"""Training a policy with any variant, round by round (`round`), and once in a while evaluating it.

A run that was killed and resumed ends with the bits of a straight one (CPU). SIGTERM is answered between two batches of
rollouts, as if the round had not begun; after them at the end of the round, because the responses of a round are not
saved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch
from transformers import PreTrainedModel

from training.core.errors import DataError, Preempted
from training.core.learner import Learner
from training.core.policy.groups import Request, Round
from training.core.policy.reference import Reference
from training.core.policy.rollouts import Stopped
from training.core.policy.round import PolicyConfig, Training
from training.core.policy.surrogate import PolicyBatch
from training.core.policy.variant import Variant
from training.core.preemption import deferred
from training.core.progress import Progress
from training.core.sequences import without_dropout

__all__ = ["PolicyConfig", "PolicyTrainer", "TrainedPolicy"]


@dataclass
class Cursor:
    """Where a run stands: the next round, the last one that was evaluated before it, and the best value so far.

    `memory` is what the parts of the variant keep from round to round.
    """

    round: int = 0
    step: int = 0
    evaluated: int = -1
    best: float = math.inf
    best_round: int = 0
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedPolicy:
    """What a run did; `best` is the lowest `eval_fn()`, of the policy after `best_round` rounds (NaN without one)."""

    rounds: int
    best: float
    best_round: int
    tokens_per_second: float
    resumed_from: int | None


class PolicyTrainer:
    """One run of a variant in `folder`; `run` names it. The reference is the model as it is given; dropout goes off."""

    def __init__(
        self,
        model: PreTrainedModel,
        pad: int,
        variant: Variant,
        config: PolicyConfig,
        seed: int,
        folder: Path,
        run: str,
    ) -> None:
        self._variant, self._config, self._seed = variant, config, seed
        without_dropout(model)
        self._learner: Learner[PolicyBatch] = Learner(
            model,
            variant.surrogate.loss,
            folder,
            run,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
        )
        reference = Reference(model, self._learner.weights) if variant.surrogate.kl else None
        self._training = Training(model, pad, variant, config, seed, self._learner, reference)
        self._cursor = Cursor()

    def train(
        self,
        requests: Sequence[Request],
        eval_fn: Callable[[], float] | None = None,
        start_value: float | None = None,
    ) -> TrainedPolicy:
        """Train to the end, from the last checkpoint if there is one.

        `eval_fn()`, lower is better, is asked before the first round, every `eval_rounds` rounds and at the end, in all
        processes; the model ends with the weights that it liked best, the first ones included, and the training where
        it has found none better for `patience` checks. `start_value` is the first ones' where that is known already.
        Without an `eval_fn` the last weights stay.
        Raises DataError without requests or where a response would not fit into a row, Diverged where a loss is not
        finite, Preempted (with a checkpoint saved) on SIGTERM or Ctrl-C.
        """
        self._refuse_what_cannot_be_learnt(requests)
        torch.manual_seed(self._seed)
        stored, learner = self._learner.resume(), self._learner
        self._cursor = Cursor(**(stored or {}))
        resumed = None if stored is None else self._cursor.round
        with deferred() as stop, Progress(self._config.rounds, "policy", "round", done=self._cursor.round) as progress:
            while self._cursor.round < self._config.rounds:
                self._evaluate(eval_fn, start_value)
                if self._stalled:
                    break
                reward = self._round(requests, stop)
                progress.advance(reward=f"{reward:.3f}")
                if self._cursor.round % self._config.checkpoint_rounds == 0:
                    learner.save(asdict(self._cursor))
                self._pause(stop)
        self._evaluate(eval_fn, start_value)
        if eval_fn:
            learner.load_best()
        learner.finish()
        best, rate = self._cursor.best if eval_fn else math.nan, learner.tokens / max(learner.seconds, 1e-9)
        return TrainedPolicy(self._cursor.round, best, self._cursor.best_round, rate, resumed)

    def _refuse_what_cannot_be_learnt(self, requests: Sequence[Request]) -> None:
        if not requests:
            raise DataError("there is no request to learn from", do="choose another split")
        prompt, response = max(len(one.prompt) for one in requests), self._variant.rollout.max_tokens
        if prompt + response > self._config.row_tokens:
            raise DataError(
                f"a prompt of {prompt} tokens and a response of up to {response} do not fit into a row",
                why=f"a row has {self._config.row_tokens} tokens",
                do="raise row_tokens, or allow shorter responses or histories",
            )

    def _pause(self, stop: Event) -> None:
        """Preempted, with the run saved as it stands between two rounds, where any process is asked to stop."""
        if self._learner.total(stop.is_set()) > 0:
            self._learner.save(asdict(self._cursor))
            raise Preempted.saved(f"round {self._cursor.round}")

    @property
    def _stalled(self) -> bool:
        """Whether the last `patience` evaluations have found nothing better."""
        cursor, config = self._cursor, self._config
        checks = (cursor.evaluated - cursor.best_round) / config.eval_rounds
        return config.patience is not None and cursor.evaluated >= 0 and checks >= config.patience

    def _evaluate(self, eval_fn: Callable[[], float] | None, start_value: float | None) -> None:
        cursor, config = self._cursor, self._config
        due = cursor.round % config.eval_rounds == 0 or cursor.round == config.rounds
        if eval_fn and due and cursor.evaluated < cursor.round:
            known = start_value if cursor.round == 0 else None
            value, cursor.evaluated = self._learner.value_of(eval_fn) if known is None else known, cursor.round
            self._learner.log.append(cursor.step, eval_value=value, round=cursor.round)
            if value < cursor.best:
                cursor.best, cursor.best_round = value, cursor.round
                self._learner.save_best()

    def _round(self, requests: Sequence[Request], stop: Event) -> float:
        """Play the next round; Preempted, as it stood before, where a process is asked to stop before it has learnt."""
        cursor, config = self._cursor, self._config
        epoch, progress = cursor.round * config.prompts // len(requests), cursor.round / config.rounds
        # By way of JSON, as a checkpoint goes: a run that was never killed remembers in the same form.
        round = Round(cursor.round, epoch, progress, json.loads(json.dumps(cursor.memory)))
        try:
            reward = self._training.play(requests, round, stop)
        except Stopped:
            self._pause(stop)
            raise
        cursor.round, cursor.step, cursor.memory = cursor.round + 1, cursor.step + config.steps_per_round, round.memory
        return reward
