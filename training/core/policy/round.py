"""A round of policy optimisation, from top to bottom: rollout, rewards, replay, filter, advantage, updates.

What is done at each of these places belongs to the variant; that they come in this order, to this module. Each process
takes every n-th request of a round, and its groups stay with it; mini-batches are drawn by request number. So one
process and two learn the same.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from training.core.learner import Learner
from training.core.loop import learning_rate
from training.core.packing import plan_rows
from training.core.policy.episodes import drafts, mark_uncertain, with_old
from training.core.policy.first_round import refuse_another_sampler, refuse_flat_rewards
from training.core.policy.groups import Request, Round
from training.core.policy.reference import Reference
from training.core.policy.rewards import log_rewards
from training.core.policy.surrogate import Episode, PolicyBatch, uncertainty_threshold
from training.core.policy.variant import Actor, Variant


@dataclass(frozen=True)
class PolicyConfig:
    """A round rolls out `prompts` prompts and learns from them `reuse` times, in mini-batches of `minibatch` prompts.

    Both count over all processes. A micro-batch is `rows` rows of at most `row_tokens` tokens. `patience`: after so
    many evaluations in a row without a better one the training ends; null: it goes on for all `rounds`.
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
    eval_rounds: int = 10
    patience: int | None = None
    checkpoint_rounds: int = 10

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps of a round."""
        return self.reuse * -(-self.prompts // self.minibatch)


@dataclass(frozen=True)
class Training:
    """What stays the same from round to round. There is a `reference` where the surrogate has a KL to it."""

    model: PreTrainedModel
    pad: int
    variant: Variant
    config: PolicyConfig
    seed: int
    learner: Learner[PolicyBatch]
    reference: Reference | None

    def play(self, requests: Sequence[Request], round: Round, stop: Event) -> float:
        """Play a round over its part of all `requests`, and log it; the mean total reward.

        Raises Stopped, in all processes, where one is asked to stop before all responses are there: nothing has been
        learnt then, and the round may be played again. Diverged where a loss is not finite. In the first round
        DataError and LeftOut as in `first_round`.
        """
        variant, config, learner, tally = self.variant, self.config, self.learner, round.tally
        started = time.monotonic()
        process, processes = learner.accelerator.process_index, learner.accelerator.num_processes
        own = self._drawn(requests, round)[process::processes]
        actor = Actor(self.model, variant.rewards, variant.rollout, (self.seed, round.number), round, requests, stop)
        first_round = round.number == 0
        with learner.whole():
            # Rollout: a group of responses to each request.
            groups = actor.respond(own, attempt=0, rollout=variant.rollout.telling() if first_round else None)
            # Rewards: every term sees all groups at once.
            rewarded = actor.rewarded(groups)
            # Replay: where the policy failed it may be asked again, in other words.
            replayed = variant.replay(rewarded, actor, round)
        actor.check()
        if first_round:
            how = (self.pad, config.row_tokens, variant.rollout.temperature)
            refuse_another_sampler(learner, self.model, groups, how, tally)
        log_rewards(replayed, tally)
        # Filter: groups that teach nothing are left out.
        kept = [group for group in replayed if variant.keep(group, round)]
        tally.add("kept_groups", [1.0] * len(kept) + [0.0] * (len(replayed) - len(kept)))
        # Advantage: how much better a response is than the others, for all groups together.
        advantages = variant.advantage(kept, round)
        if first_round:
            refuse_flat_rewards(learner, advantages)
        drafted = [
            drafts(group, advantage, config.row_tokens) for group, advantage in zip(kept, advantages, strict=True)
        ]
        # What the updates compare with is known before the first of them: the old policy and the reference.
        scored = iter(self._scored([episode for drawn in drafted for episode in drawn]))
        episodes: defaultdict[int, list[Episode]] = defaultdict(list)
        for group, drawn in zip(kept, drafted, strict=True):
            episodes[group.request.number] += islice(scored, len(drawn))
        seconds = time.monotonic() - started
        # Updates: one optimizer step per mini-batch of requests.
        first = round.number * config.steps_per_round
        for step, numbers in enumerate(self._minibatches(round.number), start=first):
            self._update([episode for number in numbers for episode in episodes[number]], step)
        means = tally.means()
        learner.log.append(first + config.steps_per_round, round=round.number + 1, rollout_seconds=seconds, **means)
        return means.get("reward", math.nan)

    def _drawn(self, requests: Sequence[Request], round: Round) -> list[Request]:
        """The requests of a round: the next ones of an endless row of shuffled passes over all."""
        first, size = round.number * self.config.prompts, len(requests)
        turns = [divmod(place, size) for place in range(first, first + self.config.prompts)]
        orders = {turn: self._shuffled(size, turn) for turn, _ in turns}
        places = [int(orders[turn][rest]) for turn, rest in turns]
        return [replace(requests[place], number=number, place=place) for number, place in enumerate(places)]

    def _shuffled(self, size: int, *turn: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, *turn)).permutation(size)

    def _scored(self, episodes: list[Episode]) -> list[Episode]:
        """The episodes with their log-probs under the policy as it is now and under the reference, where they count."""
        config, surrogate = self.config, self.variant.surrogate
        how = (self.pad, config.row_tokens, self.variant.rollout.temperature)
        # With one step per round the policy that writes is the one that learns: the ratio is 1 and no clip acts.
        if config.steps_per_round > 1:
            with self.learner.whole():
                episodes, entropies = with_old(self.model, episodes, *how)
            if surrogate.uncertain_clip:
                everywhere = self.learner.gathered(torch.cat([*entropies, torch.zeros(0)]))
                episodes = mark_uncertain(episodes, entropies, uncertainty_threshold(everywhere, surrogate.quantile))
        return self.reference.score(episodes, *how) if self.reference else episodes

    def _minibatches(self, number: int) -> Iterable[NDArray[np.int64]]:
        """The request numbers of each optimizer step of a round, for all processes."""
        config = self.config
        for turn in range(config.reuse):
            order = self._shuffled(config.prompts, number, turn)
            for start in range(0, config.prompts, config.minibatch):
                yield order[start : start + config.minibatch]

    def _update(self, episodes: Sequence[Episode], step: int) -> None:
        """One optimizer step from this process's episodes; none if all groups of the mini-batch were filtered out."""
        config, learner = self.config, self.learner
        total = config.rounds * config.steps_per_round
        rows = [[episodes[i] for i in row] for row in plan_rows([len(e) for e in episodes], config.row_tokens, None)]
        starts = range(0, learner.most(len(rows)), config.rows)
        parts = [rows[start : start + config.rows] or [[]] for start in starts]
        temperature = self.variant.rollout.temperature
        batches = [self.variant.surrogate.collate(part, self.pad, step / total, temperature) for part in parts]
        if batches:
            values = learner.step(batches, learning_rate(step, total, config), step + 1)
            learner.log.append(step + 1, **values)
