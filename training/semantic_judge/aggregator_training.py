"""How Part B learns: first to write any levels, then by GRPO on pairs which levels suit whom (S-GRec, section PSJ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from training.core.errors import LeftOut
from training.core.loop import Loop, LoopConfig
from training.core.packing import Sample
from training.core.policy.groups import Request
from training.core.policy.rewards import Term, by_group
from training.core.policy.rollouts import Sampling
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.policy.variant import Variant
from training.core.policy.variants.grpo import grpo
from training.core.sequences import Tokens
from training.semantic_judge.aggregator import LevelWriter, chances, expected_weights
from training.semantic_judge.contests import Contests, ordered
from training.semantic_judge.examples import Catalogue, Floats, Ints, States
from training.semantic_judge.importance import LEVELS, all_levels, simplex

_VALID = 200


@dataclass(frozen=True)
class Settings:
    """`start`: how the model learns to write levels, on the prompts of at most `start_states` states.

    `group`, `kl`, `clip`: of GRPO (all three REIMPL). The best round is found on at most `checked` states that are held
    back; after `policy.patience` checks without a better one the training ends (INFERRED).
    """

    start_states: int = 2000
    start: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=2))
    group: int = 8
    kl: float = 0.04
    clip: float = 0.2
    checked: int = 500
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(patience=3))


@dataclass(frozen=True)
class Trained:
    """`start_gap`: how far the start's weights are from uniform ones on the states that are held back, in the mean over
    states and aspects. `left_out`: why no round was learnt from; empty where some were."""

    start_gap: float
    rounds: int = 0
    best_round: int = 0
    resumed_from: int | None = None
    left_out: str = ""


@dataclass(frozen=True, eq=False)
class AggregatorTraining:
    """The `model` that learns, what it reads, and where its checkpoints lie; `run` names the run."""

    model: PreTrainedModel
    writer: LevelWriter
    states: States
    catalogue: Catalogue
    seed: int
    folder: Path
    run: str

    def train(self, learnt: Contests, held: Contests, settings: Settings) -> Trained:
        """Both parts, from the last checkpoint if there is one; the model ends with the weights of the best round."""
        asked, differences = learnt.by_state()
        prompts = self._prompts(asked)
        self._learn_to_write(prompts, settings)
        requests = [Request(prompt, own) for prompt, own in zip(prompts, differences, strict=True)]
        check = self._check(held, settings.checked)
        gap = float(np.abs(check.weights(self.model) - 1.0 / len(self.writer.aspects)).mean())
        trainer = PolicyTrainer(
            self.model, self.writer.pad, self.variant(settings), settings.policy, self.seed, self.folder, self.run
        )
        try:
            done = trainer.train(requests, eval_fn=lambda: -check.auc(self.model))
        except LeftOut as refusal:
            return Trained(gap, left_out=refusal.reason)
        return Trained(gap, done.rounds, done.best_round, done.resumed_from)

    def variant(self, settings: Settings) -> Variant:
        """GRPO: vectors of levels drawn under the grammar, rewarded by the state's pairs; their evenness is watched."""
        writer = self.writer
        end = writer.vocabulary.tokenizer.eos_token_id  # never written: a vector is whole when each aspect has a level
        rollout = Sampling(settings.group, len(writer.aspects), end, allowed=writer.grammar)
        rewards = [Term("pairs", 1.0, by_group(writer.reward)), Term("evenness", 0.0, by_group(writer.evenness))]
        return grpo(rollout, rewards, settings.kl, settings.clip)

    def _learn_to_write(self, prompts: Sequence[Tokens], settings: Settings) -> None:
        """Vectors drawn evenly from all there are, others in each epoch: nothing can be learnt but that.

        All levels as likely at every place is the policy of the highest entropy, and its expected weights are uniform.
        """
        folder = self.folder / "start"
        folder.mkdir(parents=True, exist_ok=True)
        rows = np.random.default_rng(self.seed).permutation(len(prompts))[: settings.start_states].tolist()

        def drawn(epoch: int) -> list[Sample]:
            rng = np.random.default_rng((self.seed, epoch))
            levels = rng.integers(LEVELS, size=(len(rows), len(self.writer.aspects)))
            answers = self.writer.answers(levels)
            return [Sample(prompts[row], answer) for row, answer in zip(rows, answers, strict=True)]

        loop: Loop[Sample] = Loop(self.model, self.writer.pad, settings.start, self.seed, folder, self.run)
        loop.train(drawn, drawn(settings.start.epochs)[:_VALID])

    def _check(self, held: Contests, most: int) -> _Check:
        drawn = np.random.default_rng(self.seed).permutation(np.unique(held.state))[:most]
        own = held.chosen(np.isin(held.state, drawn))
        asked, places = np.unique(own.state, return_inverse=True)
        return _Check(own, self.writer, self._prompts(asked), places)

    def _prompts(self, states: Ints) -> list[Tokens]:
        return self.writer.prompts.of(self.states.chosen(states), self.catalogue)


@dataclass(frozen=True, eq=False)
class _Check:
    """Contests that are held back, the prompts of their states, and which of these each contest is of: `places` [n]."""

    contests: Contests
    writer: LevelWriter
    prompts: Sequence[Tokens]
    places: Ints

    def weights(self, model: PreTrainedModel) -> Floats:
        """What the model as it is now weighs by, of each prompt: [prompts, K]."""
        return expected_weights(chances(model, self.writer, self.prompts), len(self.writer.aspects))

    def auc(self, model: PreTrainedModel) -> float:
        """How well the contests are ordered in the mean over all vectors that the model may write.

        It moves with every round; that of the expected weights stands still until they are far enough from uniform.
        """
        vectors = simplex(all_levels(len(self.writer.aspects)))
        right = ordered(vectors, self.contests.difference[:, None])
        return float((chances(model, self.writer, self.prompts)[self.places] * right).sum(axis=1).mean())
