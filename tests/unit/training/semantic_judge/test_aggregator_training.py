"""Part B learns whose taste is whose, from pairs alone."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.unit.training.semantic_judge.two_tastes import (
    ASPECTS,
    CATALOGUE,
    SETTINGS,
    backbone,
    contests,
    states,
    writer,
)
from training.core.errors import Preempted
from training.semantic_judge.aggregator import LanguageAggregator, LevelWriter, chances, expected_weights
from training.semantic_judge.aggregator_rows import GLOBAL, MODEL, PERSONAL, UNIFORM, compared
from training.semantic_judge.aggregator_training import AggregatorTraining, Settings, Trained
from training.semantic_judge.contests import Contests
from training.semantic_judge.judge import Uniform
from training.semantic_judge.pair_regression import PairRegression

USERS = states(200)
LEARNT, HELD, ASKED = (contests(np.arange(*part), seed) for seed, part in enumerate([(0, 120), (120, 160), (160, 200)]))
SHORT = replace(
    SETTINGS,
    start=replace(SETTINGS.start, epochs=2),
    policy=replace(SETTINGS.policy, rounds=6, eval_rounds=2, checkpoint_rounds=1),
)


def train(
    folder: Path, settings: Settings, learnt: Contests = LEARNT
) -> tuple[Trained, PreTrainedModel, LevelWriter, list[dict[str, float]]]:
    of = writer()
    model = backbone(of)
    folder.mkdir(exist_ok=True)
    trained = AggregatorTraining(model, of, USERS, CATALOGUE, 1, folder, "run").train(learnt, HELD, settings)
    return trained, model, of, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_orders_the_pairs_of_new_users_better_than_uniform_and_than_one_vector_for_all(tmp_path: Path) -> None:
    trained, model, of, lines = train(tmp_path, SETTINGS)
    rows = {
        UNIFORM: Uniform(ASPECTS),
        GLOBAL: PairRegression.fit(LEARNT, USERS, CATALOGUE, personal=False),
        PERSONAL: PairRegression.fit(LEARNT, USERS, CATALOGUE, personal=True),
        MODEL: LanguageAggregator(model, of),
    }
    found = {row.name: row for row in compared(rows, ASKED, USERS, CATALOGUE, seed=1)}
    assert found[MODEL].surely > 0.05
    assert found[MODEL].auc[0] > found[GLOBAL].auc[0] + 0.05
    assert found[UNIFORM].gain == (0.0, 0.0, 0.0) and found[UNIFORM].evenness == pytest.approx(1.0)
    weights, n = rows[MODEL].weights(USERS.chosen(np.arange(160, 200)), CATALOGUE), np.arange(40)
    own, others = weights[n, n % 2], weights[n, 1 - n % 2]
    assert (own > others + 0.2).all()
    rounds = [line for line in lines if "reward/evenness" in line]
    assert len(rounds) == trained.rounds
    assert rounds[-1]["reward"] > rounds[0]["reward"]


def test_before_the_first_round_all_vectors_are_nearly_as_likely(tmp_path: Path) -> None:
    trained, model, of, _ = train(tmp_path, replace(SETTINGS, policy=replace(SETTINGS.policy, rounds=0)))
    assert (trained.rounds, trained.best_round) == (0, 0)
    told = chances(model, of, of.prompts.of(USERS.chosen(np.arange(100, 104)), CATALOGUE))
    assert -(told * np.log(told)).sum(axis=1).min() > 0.97 * np.log(125)
    np.testing.assert_allclose(expected_weights(told, 3), 1 / 3, atol=0.02)
    assert trained.start_gap < 0.02
    # And nothing else than a level: the policy that samples under the grammar is the one that learns.
    prompt = torch.tensor([of.prompts.of(USERS, CATALOGUE)[0]])
    first = model(prompt).logits[0, -1].softmax(0)[list(of.tokens)].sum()
    assert float(first) > 0.9


def test_pairs_that_no_vector_can_win_leave_the_start_as_it_is(tmp_path: Path) -> None:
    hopeless = Contests(LEARNT.state, -np.abs(LEARNT.difference), LEARNT.source, 0)
    trained, model, of, _ = train(tmp_path, SHORT, hopeless)
    assert "the reward says the same" in trained.left_out and trained.rounds == 0
    weights = LanguageAggregator(model, of).weights(USERS, CATALOGUE)
    np.testing.assert_allclose(weights, 1 / 3, atol=0.05)


@pytest.mark.parametrize("calls", [1, 4])
def test_a_training_that_was_killed_ends_with_the_bits_of_a_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    straight, expected, _, _ = train(tmp_path / "straight", SHORT)
    reward, left = LevelWriter.reward, [calls * SHORT.policy.prompts]

    def stops(self: LevelWriter, group: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return reward(self, group)  # type: ignore[arg-type]

    monkeypatch.setattr(LevelWriter, "reward", stops)
    with pytest.raises(Preempted):
        train(tmp_path / "killed", SHORT)
    monkeypatch.setattr(LevelWriter, "reward", reward)
    resumed, found, _, _ = train(tmp_path / "killed", SHORT)
    assert resumed.resumed_from == calls - 1  # that round is played again: it had learnt nothing yet
    assert replace(resumed, resumed_from=None) == straight
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_larger_kl_keeps_it_nearer_to_the_start(tmp_path: Path) -> None:
    settings, gone = replace(SHORT, policy=replace(SHORT.policy, rounds=40, eval_rounds=40)), {}
    for kl in (0.001, 5.0):
        _, _, _, lines = train(tmp_path / str(kl), replace(settings, kl=kl))
        told = [line["kl"] for line in lines if "kl" in line]
        assert told[0] == pytest.approx(0.0, abs=1e-6)
        gone[kl] = np.mean(told[-10:])
    assert gone[5.0] < 0.5 * gone[0.001]
