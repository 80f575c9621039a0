"""Training a policy with any variant, round by round: roll out, reward, learn, and once in a while judge.

Each process takes every n-th request of a round, and its groups stay with it; mini-batches are drawn by request number.
So one process and two learn the same, and a run that was killed and resumed ends with the bits of a straight one (CPU).
SIGTERM is answered between two batches of rollouts, as if the round had not begun; after them at the end of the round,
because the responses of a round are not saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from training.core.errors import DataError, Preempted
from training.core.learner import Learner
from training.core.loop import learning_rate
from training.core.packing import plan_rows
from training.core.policy.episodes import drafts, mark_uncertain, with_old
from training.core.policy.groups import Group, Request, Tally
from training.core.policy.reference import Reference
from training.core.policy.rewards import log_rewards
from training.core.policy.rollouts import Stopped
from training.core.policy.surrogate import Episode, PolicyBatch, uncertainty_threshold
from training.core.policy.variant import Actor, Variant
from training.core.preemption import deferred
from training.core.progress import Progress
from training.core.sequences import without_dropout


@dataclass(frozen=True)
class PolicyConfig:
    """A round rolls out `prompts` prompts and learns from them `reuse` times, in mini-batches of `minibatch` prompts.

    Both count over all processes. A micro-batch is `rows` rows of at most `row_tokens` tokens.
    """

    rounds: int = 100
    prompts: int = 64
    minibatch: int = 64
    reuse: int = 1
    rows: int = 8
    row_tokens: int = 512
    learning_rate: float = 1e-6
    weight_decay: float = 0.0
    warmup_share: float = 0.03
    max_grad_norm: float = 1.0
    judge_rounds: int = 10
    checkpoint_rounds: int = 10

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps of a round."""
        return self.reuse * -(-self.prompts // self.minibatch)


@dataclass
class Cursor:
    """Where a run stands: the next round, the last one that was judged before it, and the best judgement so far."""

    round: int = 0
    step: int = 0
    judged: int = -1
    best: float = math.inf
    best_round: int = 0


@dataclass(frozen=True)
class TrainedPolicy:
    """What a run did; `best` is the lowest judgement, of the policy after `best_round` rounds (NaN without a judge)."""

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
        self._model, self._pad, self._variant, self._config, self._seed = model, pad, variant, config, seed
        without_dropout(model)
        self._learner: Learner[PolicyBatch] = Learner(
            model,
            variant.surrogate.loss,
            folder,
            run,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
        )
        self._reference = Reference(model, self._learner.weights) if variant.surrogate.kl else None
        self._cursor = Cursor()

    def train(self, requests: Sequence[Request], judge: Callable[[], float] | None = None) -> TrainedPolicy:
        """Train to the end, from the last checkpoint if there is one.

        `judge()`, lower is better, is asked before the first round, every `judge_rounds` rounds and at the end, in all
        processes; the model ends with the weights that it liked best, the first ones included. Without it the last
        weights stay.
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
                self._judge(judge)
                reward = self._round(requests, stop)
                progress.advance(reward=f"{reward:.3f}")
                if self._cursor.round % self._config.checkpoint_rounds == 0:
                    learner.save(asdict(self._cursor))
                self._pause(stop)
        self._judge(judge)
        if judge:
            learner.load_best()
        learner.finish()
        best, rate = self._cursor.best if judge else math.nan, learner.tokens / max(learner.seconds, 1e-9)
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

    def _judge(self, judge: Callable[[], float] | None) -> None:
        cursor, config = self._cursor, self._config
        due = cursor.round % config.judge_rounds == 0 or cursor.round == config.rounds
        if judge and due and cursor.judged < cursor.round:
            judged, cursor.judged = self._learner.ask(judge), cursor.round
            self._learner.log.append(cursor.step, judged=judged, round=cursor.round)
            if judged < cursor.best:
                cursor.best, cursor.best_round = judged, cursor.round
                self._learner.save_best()

    def _round(self, requests: Sequence[Request], stop: Event) -> float:
        """Roll out and learn once; the mean total reward."""
        cursor, variant, tally, started = self._cursor, self._variant, Tally(), time.monotonic()
        groups = self._rolled_out(requests, tally, stop)
        for group in groups:
            log_rewards(group, tally)
        kept = [variant.keep(group, tally) for group in groups]
        tally.add("kept_groups", list(map(float, kept)))
        episodes = self._episodes(list(compress(groups, kept)), tally)
        seconds = time.monotonic() - started
        for numbers in self._minibatches():
            self._step([episode for number in numbers for episode in episodes.get(number, [])])
        means = tally.means()
        cursor.round += 1
        self._learner.log.append(cursor.step, round=cursor.round, rollout_seconds=seconds, **means)
        return means.get("reward", math.nan)

    def _rolled_out(self, requests: Sequence[Request], tally: Tally, stop: Event) -> Sequence[Group]:
        """The groups of this process to learn from; Preempted where any process has given up its rollouts."""
        variant, accelerator = self._variant, self._learner.accelerator
        actor = Actor(self._model, variant.rewards, variant.rollout, (self._seed, self._cursor.round), stop)
        own = self._requests(requests)[accelerator.process_index :: accelerator.num_processes]
        groups: Sequence[Group] = []
        with suppress(Stopped), self._learner.whole():
            groups = variant.replay(actor.answer(own, attempt=0), actor, tally)
        self._pause(stop)
        return groups

    def _requests(self, requests: Sequence[Request]) -> list[Request]:
        """The requests of this round: the next ones of an endless row of shuffled passes over all."""
        first, size = self._cursor.round * self._config.prompts, len(requests)
        places = range(first, first + self._config.prompts)
        orders = {turn: self._shuffled(size, turn) for turn in {place // size for place in places}}
        chosen = [requests[orders[place // size][place % size]] for place in places]
        return [replace(request, number=number) for number, request in enumerate(chosen)]

    def _shuffled(self, size: int, *turn: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._seed, *turn)).permutation(size)

    def _episodes(self, groups: Sequence[Group], tally: Tally) -> dict[int, list[Episode]]:
        """The episodes of each request, by its number."""
        pairs = [
            (group.request.number, episode)
            for group in groups
            for episode in drafts(group, self._variant.advantage(group, tally), self._config.row_tokens)
        ]
        by_number: dict[int, list[Episode]] = {number: [] for number, _ in pairs}
        for (number, _), episode in zip(pairs, self._scored([episode for _, episode in pairs]), strict=True):
            by_number[number].append(episode)
        return by_number

    def _scored(self, episodes: list[Episode]) -> list[Episode]:
        """The episodes with all that must be known of them before the first update."""
        config, surrogate = self._config, self._variant.surrogate
        how = (self._pad, config.row_tokens, self._variant.rollout.temperature)
        # With one step per round the policy that writes is the one that learns: the ratio is 1 and no clip acts.
        if config.steps_per_round > 1:
            with self._learner.whole():
                episodes, entropies = with_old(self._model, episodes, *how)
            if surrogate.uncertain_clip:
                everywhere = self._learner.gathered(torch.cat([*entropies, torch.zeros(0)]))
                episodes = mark_uncertain(episodes, entropies, uncertainty_threshold(everywhere, surrogate.quantile))
        return self._reference.score(episodes, *how) if self._reference else episodes

    def _minibatches(self) -> Iterable[NDArray[np.int64]]:
        """The request numbers of each optimizer step, for all processes."""
        config = self._config
        for turn in range(config.reuse):
            order = self._shuffled(config.prompts, self._cursor.round, turn)
            for start in range(0, config.prompts, config.minibatch):
                yield order[start : start + config.minibatch]

    def _step(self, episodes: Sequence[Episode]) -> None:
        """One optimizer step from this process's episodes; none if all groups of the mini-batch were filtered out."""
        config, cursor, learner = self._config, self._cursor, self._learner
        total = config.rounds * config.steps_per_round
        rows = [[episodes[i] for i in row] for row in plan_rows([len(e) for e in episodes], config.row_tokens, None)]
        starts = range(0, learner.most(len(rows)), config.rows)
        parts = [rows[start : start + config.rows] or [[]] for start in starts]
        progress, temperature = cursor.step / total, self._variant.rollout.temperature
        batches = [self._variant.surrogate.collate(part, self._pad, progress, temperature) for part in parts]
        if batches:
            values = learner.step(batches, learning_rate(cursor.step, total, config), cursor.step + 1)
            learner.log.append(cursor.step + 1, **values)
        cursor.step += 1
