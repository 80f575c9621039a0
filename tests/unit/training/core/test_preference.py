"""Preference losses against hand-worked numbers, against each other, against TRL, and in the loop."""

import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl import DPOConfig, DPOTrainer

from tests.unit.training.alignment_runs import LOOP, prefer
from tests.unit.training.peers import gradients, relative_gap, tiny_qwen, word_tokenizer
from training.core.checkpoint import places, trainable
from training.core.errors import DataError, Preempted
from training.core.loop import Loop, LoopConfig, learning_rate
from training.core.preference import (
    Preference,
    PreferenceObjective,
    bradley_terry,
    sigmoid_dpo,
    softmax_dpo,
    with_reference,
)

OBJECTIVE = PreferenceObjective(beta=0.5)
numbers = st.floats(-20, 20)
SAMPLES = [
    Preference((5, 6, 7), (8, 9, 2), ((10, 2),)),
    Preference((15, 6, 7, 4, 4), (8, 2), ((10, 20, 11, 2), (9, 2), (8, 8, 2))),
    Preference((9,), (30, 2), ((31, 2), (29, 2))),
]


def test_bradley_terry_is_minus_the_log_of_the_probability_that_the_preferred_wins() -> None:
    # sigma(log 3) = 3 / 4
    loss = bradley_terry(torch.tensor([math.log(3.0)]), torch.tensor([0.0]))
    assert loss.tolist() == pytest.approx([math.log(4 / 3)])


def test_softmax_dpo_of_two_negatives_is_the_number_worked_out_by_hand() -> None:
    # beta * (d_l - d_w) = 0.5 * (log 4 - 0) = log 2 and 0.5 * (log 9 - 0) = log 3; -log sigma(-log 5) = log 6
    rejected = torch.tensor([[math.log(4.0), math.log(9.0)]])
    loss = softmax_dpo(torch.tensor([0.0]), rejected, torch.ones(1, 2, dtype=torch.bool), beta=0.5)
    assert loss.tolist() == pytest.approx([math.log(6.0)])


@given(numbers, numbers, st.floats(0.01, 3))
def test_softmax_dpo_with_one_negative_is_sigmoid_dpo(chosen: float, rejected: float, beta: float) -> None:
    d_w, d_l = torch.tensor([chosen]), torch.tensor([rejected])
    softmax = softmax_dpo(d_w, d_l[:, None], torch.ones(1, 1, dtype=torch.bool), beta)
    assert softmax.item() == pytest.approx(sigmoid_dpo(d_w, d_l, beta).item(), rel=1e-4, abs=1e-5)


@given(numbers, st.lists(numbers, min_size=1, max_size=4), st.lists(st.floats(), min_size=1, max_size=3))
def test_negatives_that_are_masked_have_no_influence(chosen: float, real: list[float], masked: list[float]) -> None:
    def loss_and_gradient(rejected: list[float], present: list[bool]) -> tuple[float, list[float]]:
        d_w, d_l = torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True)
        loss = softmax_dpo(d_w, d_l, torch.tensor([present]), beta=0.7).sum()
        loss.backward()
        assert d_w.grad is not None and d_l.grad is not None
        return loss.item(), [d_w.grad.item(), *d_l.grad[0].tolist()]

    loss, gradient = loss_and_gradient(real, [True] * len(real))
    padded, padded_gradient = loss_and_gradient(real + masked, [True] * len(real) + [False] * len(masked))
    assert padded == loss
    assert padded_gradient == gradient + [0.0] * len(masked)


@given(numbers, st.lists(numbers, min_size=1, max_size=5), numbers)
def test_softmax_dpo_sees_differences_only_and_is_never_negative(
    chosen: float, rejected: list[float], shift: float
) -> None:
    present = torch.ones(1, len(rejected), dtype=torch.bool)
    d_w, d_l = torch.tensor([chosen]).double(), torch.tensor([rejected]).double()
    loss = softmax_dpo(d_w, d_l, present, beta=1.0).item()
    assert loss >= 0
    assert softmax_dpo(d_w + shift, d_l + shift, present, beta=1.0).item() == pytest.approx(loss, abs=1e-9)


def test_the_gradient_of_softmax_dpo_is_that_of_finite_differences() -> None:
    chosen = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([[0.1, 2.0, -0.4], [0.0, 1.0, 5.0]], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True, True], [True, False, True]])
    assert torch.autograd.gradcheck(lambda w, r: softmax_dpo(w, r, present, 0.8), (chosen, rejected))


def loss_of(objective: PreferenceObjective, samples: Sequence[Preference], seed: int = 0) -> tuple[Tensor, dict]:
    model = tiny_qwen(seed)
    value, terms = objective.loss(model, objective.collate([[sample] for sample in samples], 64, pad=0))
    value.backward()
    return gradients(model), {"loss": value.item(), **{name: term.item() for name, term in terms.items()}}


def referenced(samples: Sequence[Preference]) -> list[Preference]:
    return with_reference(tiny_qwen(seed=1), samples, pad=0, row_tokens=64)


def test_loss_and_gradients_of_one_negative_are_those_of_the_dpo_trainer_of_trl(tmp_path: Path) -> None:
    arguments = DPOConfig(str(tmp_path), beta=0.3, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False)
    rows = [{"prompt": "a b", "chosen": " c", "rejected": " d"}]
    peer = DPOTrainer(
        tiny_qwen(seed=0),
        tiny_qwen(seed=1),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=word_tokenizer(),
    )
    pairs = [replace(sample, rejected=sample.rejected[:1]) for sample in SAMPLES]
    batch = peer.data_collator(
        [
            {"prompt_ids": [*pair.prompt], "chosen_ids": [*pair.chosen], "rejected_ids": [*pair.rejected[0]]}
            for pair in pairs
        ]
    )
    expected = peer.compute_loss(peer.model, batch)
    expected.backward()
    gradient, values = loss_of(PreferenceObjective(beta=0.3), referenced(pairs))
    assert values["loss"] / len(pairs) == pytest.approx(expected.item(), abs=1e-5)
    assert relative_gap(gradient / len(pairs), gradients(peer.model)) < 1e-5
    logged = peer._metrics["train"]
    assert values["reward_margin"] / len(pairs) == pytest.approx(logged["rewards/margins"][0], abs=1e-4)
    assert values["reward_accuracy"] / len(pairs) == pytest.approx(logged["rewards/accuracies"][0])
    assert values["chosen_log_prob"] / len(pairs) == pytest.approx(logged["logps/chosen"][0], abs=1e-4)
    assert values["rejected_log_prob"] / len(pairs) == pytest.approx(logged["logps/rejected"][0], abs=1e-4)


def test_the_reference_sums_do_not_depend_on_what_is_packed_together() -> None:
    together = [sample.reference for sample in referenced(SAMPLES)]
    alone = [referenced([sample])[0].reference for sample in SAMPLES]
    for one, other, sample in zip(together, alone, SAMPLES, strict=True):
        assert len(one) == 1 + len(sample.rejected)
        assert one == pytest.approx(other, abs=1e-4)


def test_the_loss_of_a_batch_is_the_sum_of_the_losses_of_its_preferences() -> None:
    samples, objective = referenced(SAMPLES), PreferenceObjective(beta=0.5, ntp_weight=0.3)
    gradient, values = loss_of(objective, samples)
    parts = [loss_of(objective, [sample]) for sample in samples]
    assert values == pytest.approx({name: sum(part[name] for _, part in parts) for name in values}, rel=1e-4, abs=1e-4)
    assert relative_gap(sum(part for part, _ in parts), gradient) < 1e-4


def test_at_the_reference_itself_the_loss_is_the_log_of_the_number_of_candidates() -> None:
    _, values = loss_of(PreferenceObjective(), referenced(SAMPLES[1:2]), seed=1)
    assert values["loss"] == pytest.approx(math.log(4.0), abs=1e-4)
    assert values["reward_margin"] == pytest.approx(0.0, abs=1e-4)


def test_the_auxiliary_term_is_the_mean_negative_log_prob_of_the_chosen_response_per_token() -> None:
    samples = referenced(SAMPLES[:1])
    _, plain = loss_of(PreferenceObjective(), samples)
    _, mixed = loss_of(PreferenceObjective(ntp_weight=0.5), samples)
    assert mixed["loss"] - plain["loss"] == pytest.approx(-0.5 * plain["chosen_log_prob"] / 3, abs=1e-4)


@pytest.mark.parametrize(
    "chosen, rejected, reason",
    [
        ((1, 2), (), "no rejected response"),
        ((1, 2), ((3, 2), (1, 2)), "chosen response is among the rejected"),
        ((1, 2), ((3, 2), (4, 2), (3, 2)), "stands twice"),
    ],
)
def test_a_preference_that_would_teach_nonsense_is_refused(
    chosen: tuple[int, ...], rejected: tuple[tuple[int, ...], ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        Preference((5,), chosen, rejected)


def test_training_without_reference_log_probs_is_refused(tmp_path: Path) -> None:
    loop = Loop(tiny_qwen(0), 0, LoopConfig(), 0, tmp_path, "run", PreferenceObjective())
    with pytest.raises(DataError, match="call with_reference"):
        loop.train(lambda epoch: SAMPLES, SAMPLES)


def test_the_loop_learns_to_prefer_the_chosen_responses(tmp_path: Path) -> None:
    lines = prefer(tmp_path, OBJECTIVE)
    steps = [line for line in lines if "loss" in line]
    assert lines[-1]["valid_loss"] < 0.5 * steps[0]["loss"]
    assert steps[-1]["reward_margin"] > 0.5 and steps[-1]["reward_accuracy"] == 1.0
    assert lines[-1]["valid_reward_margin"] > 0.5 and lines[-1]["valid_reward_accuracy"] == 1.0


def test_accumulating_preferences_is_the_same_as_one_large_batch(tmp_path: Path) -> None:
    batch = prefer(tmp_path / "batch", OBJECTIVE, config=replace(LOOP, rows=4))
    parts = prefer(tmp_path / "parts", OBJECTIVE, config=replace(LOOP, rows=1, accumulate=4))
    for one, other in zip(batch, parts, strict=True):
        for name in one.keys() - {"tokens_per_second"}:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name


def test_the_best_weights_can_be_chosen_by_something_else_than_the_loss(tmp_path: Path) -> None:
    answers = iter([4.0, 3.0, 1.0, 2.0, 2.0])
    lines = prefer(tmp_path, OBJECTIVE, eval_fn=lambda: next(answers))
    assert [line["eval_value"] for line in lines if "eval_value" in line] == [4.0, 3.0, 1.0, 2.0, 2.0]
    cursor = json.loads((places(tmp_path)[0] / "cursor.json").read_text())
    assert cursor["best_loss"] == 1.0


def test_where_no_epoch_is_better_than_the_start_the_model_ends_as_it_was(tmp_path: Path) -> None:
    model, before = tiny_qwen(seed=0), trainable(tiny_qwen(seed=0))
    answers = iter([1.0, 1.5, 1.0])
    lines = prefer(tmp_path, OBJECTIVE, model=model, eval_fn=lambda: next(answers))
    assert next((line["step"], line["epoch"]) for line in lines if "eval_value" in line) == (0, 0)
    assert [line["step"] for line in lines if "loss" in line]  # it did learn
    assert all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())
    cursor = json.loads((places(tmp_path)[0] / "cursor.json").read_text())
    assert (cursor["best_loss"], cursor["best_step"], cursor["worse_epochs"]) == (1.0, 0, 2)


@pytest.mark.parametrize("killed_at", [1, 4])
def test_the_start_is_evaluated_once_also_by_a_run_that_was_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    asked: list[float] = []

    def eval_fn() -> float:
        asked.append(1.0)
        return 1.0

    def with_sigterm(step: int, total: int, config: LoopConfig) -> float:
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(step, total, config)

    straight = prefer(tmp_path / "straight", OBJECTIVE, eval_fn=eval_fn)
    once = len(asked)
    with monkeypatch.context() as patch, pytest.raises(Preempted, match="checkpoint saved"):
        patch.setattr("training.core.loop.learning_rate", with_sigterm)
        prefer(tmp_path / "killed", OBJECTIVE, eval_fn=eval_fn)
    model, before = tiny_qwen(seed=0), trainable(tiny_qwen(seed=0))
    resumed = prefer(tmp_path / "killed", OBJECTIVE, model=model, eval_fn=eval_fn)
    assert len(asked) == 2 * once
    assert [line.get("eval_value") for line in resumed] == [line.get("eval_value") for line in straight]
    assert all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())


def test_a_run_that_was_killed_before_its_first_checkpoint_logs_the_start_once(tmp_path: Path) -> None:
    answers = iter([1.0])
    with pytest.raises(StopIteration):
        prefer(tmp_path, OBJECTIVE, eval_fn=lambda: next(answers))
    lines = prefer(tmp_path, OBJECTIVE, eval_fn=lambda: 1.0)
    assert [line["step"] for line in lines].count(0) == 1


def test_a_run_that_was_killed_and_resumed_ends_with_the_bits_of_a_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [tiny_qwen(seed=0) for _ in range(3)]
    straight = prefer(tmp_path / "straight", OBJECTIVE, model=models[0])

    def with_sigterm(step: int, total: int, config: LoopConfig) -> float:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(step, total, config)

    with monkeypatch.context() as patch, pytest.raises(Preempted, match="checkpoint saved"):
        patch.setattr("training.core.loop.learning_rate", with_sigterm)
        prefer(tmp_path / "killed", OBJECTIVE, model=models[1])
    resumed = prefer(tmp_path / "killed", OBJECTIVE, model=models[2])
    assert [line.get("loss") for line in resumed] == [line.get("loss") for line in straight]
    for name, weight in trainable(models[0]).items():
        assert torch.equal(weight, trainable(models[2])[name]), name
