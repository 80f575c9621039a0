"""The policy trainer: it learns, and equal ways of learning the same thing give the same trajectory."""

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.config import parse_config
from tests.unit.training.alignment_runs import (
    GOLDEN,
    GOLDEN_RUNS,
    POLICY,
    REQUESTS,
    assert_same,
    many_high_tokens,
    optimise,
    ranked_beams,
    sampled,
    trajectory,
)
from tests.unit.training.conftest import TINY
from tests.unit.training.peers import tiny_qwen
from training.core.backbone import LoraSettings, build_backbone
from training.core.checkpoint import trainable
from training.core.errors import DataError, Preempted
from training.core.policy.advantages import GroupAdvantage
from training.core.policy.groups import Group, Round
from training.core.policy.reference import Reference
from training.core.policy.rewards import Term, by_group
from training.core.policy.rollouts import Sampling
from training.core.policy.schedule import Linear
from training.core.policy.surrogate import Clip, Episode, Surrogate
from training.core.policy.trainer import PolicyConfig
from training.core.policy.variant import Actor, Difficulty, Variant
from training.core.sequences import Tree
from training.core.tokens import Vocabulary


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_the_pinned_trajectory_has_not_moved(tmp_path: Path, name: str) -> None:
    pinned = json.loads((GOLDEN / f"{name}.json").read_text())
    found = trajectory(GOLDEN_RUNS[name](tmp_path))
    assert len(found["loss"]) >= 12
    for key, values in found.items():
        assert values == pytest.approx(pinned[key], rel=1e-5, abs=1e-6), f"{key}, recorded with {pinned['versions']}"


def test_the_policy_learns_to_put_the_true_item_first(tmp_path: Path) -> None:
    config = replace(POLICY, rounds=30, prompts=10, minibatch=10, learning_rate=0.005)
    trained, lines = optimise(tmp_path, ranked_beams(kl=0.0), config)
    hits = [line["reward/hit"] for line in lines if "reward/hit" in line]
    assert trained.rounds == 30
    assert hits[-1] > hits[0] + 0.03
    assert [line["clipped_low"] + line["clipped_high"] for line in lines if "clipped_low" in line] == [0.0] * 30


def test_free_samples_earn_more_and_more_reward(tmp_path: Path) -> None:
    _, lines = optimise(tmp_path, sampled(), replace(POLICY, rounds=25, learning_rate=0.01))
    rewards = [line["reward"] for line in lines if "reward" in line]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2


@pytest.mark.parametrize("variant", [ranked_beams(), sampled()], ids=["beams", "sampled"])
def test_accumulating_micro_batches_is_the_same_as_one_large_batch(tmp_path: Path, variant: Variant) -> None:
    # In float64: where all groups are flat the gradient is rounding noise, and Adam makes whole steps of float32's.
    one, other = (tiny_qwen(seed=0).double() for _ in range(2))
    _, parts = optimise(tmp_path / "parts", variant, replace(POLICY, rounds=3, rows=1, row_tokens=20), model=one)
    _, batch = optimise(tmp_path / "batch", variant, replace(POLICY, rounds=3, rows=50, row_tokens=40), model=other)
    assert_same(parts, batch, rel=1e-5, abs=1e-6)


def test_the_first_mini_batch_of_a_round_is_on_policy_and_later_ones_are_not(tmp_path: Path) -> None:
    _, lines = optimise(tmp_path, sampled(), replace(POLICY, reuse=2, rounds=2))
    ratios = [line["ratio"] for line in lines if "ratio" in line]
    assert len(ratios) == 2 * 2 * 2
    assert [ratio == pytest.approx(1.0, abs=1e-5) for ratio in ratios] == [True, False, False, False] * 2


def test_one_step_per_round_needs_no_old_log_probs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.core.policy.round.with_old", None)
    _, lines = optimise(tmp_path, sampled(), replace(POLICY, minibatch=4, rounds=2))
    assert [line["ratio"] for line in lines if "ratio" in line] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("killed_at", [0, 1, 3, 5])
@pytest.mark.parametrize("when", ["rollouts", "replay", "updates"])
def test_a_run_that_was_killed_and_resumed_ends_with_the_bits_of_a_straight_one(
    tmp_path: Path, killed_at: int, when: str
) -> None:
    models = [tiny_qwen(seed=0) for _ in range(3)]
    straight, expected = optimise(tmp_path / "straight", small_batches(), model=models[0], eval_fn=counted_down())
    with pytest.raises(Preempted, match="checkpoint saved"):
        optimise(tmp_path / "killed", sigterm_in_round(killed_at, when), model=models[1], eval_fn=counted_down())
    eval_fn = counted_down(1 + (killed_at >= 3))
    resumed, lines = optimise(tmp_path / "killed", small_batches(), model=models[2], eval_fn=eval_fn)
    assert resumed.resumed_from == killed_at + (when == "updates")
    assert replace(resumed, resumed_from=None, tokens_per_second=0) == replace(straight, tokens_per_second=0)
    assert_same(lines, expected, rel=0, abs=0)
    for name, weight in trainable(models[0]).items():
        assert torch.equal(weight, trainable(models[2])[name]), name


def small_batches() -> Variant:
    """Two batches of rollouts in each round of four prompts."""
    variant = sampled()
    return replace(variant, rollout=replace(variant.rollout, batch_size=2))


def counted_down(asked: int = 0) -> Callable[[], float]:
    answers = iter([3.0, 2.0, 1.0, 2.5][asked:])
    return lambda: next(answers)


def sigterm_in_round(number: int, when: str) -> Variant:
    """A variant that is asked to stop in that round: in its first batch of rollouts, after all, or in the updates."""
    variant, parts = small_batches(), {"rollouts": 2 * number, "replay": number, "updates": number}

    def asked_to_stop(place: str) -> None:
        parts[place] -= 1
        if when == place and parts[place] == -1:
            os.kill(os.getpid(), signal.SIGTERM)

    class Watched(Sampling):
        def __call__(self, *given: Any) -> list[Group]:
            asked_to_stop("rollouts")
            return super().__call__(*given)

    def replay(groups: Sequence[Group], *_: object) -> Sequence[Group]:
        asked_to_stop("replay")
        return groups

    def advantage(groups: Sequence[Group], round: Round) -> Sequence[Tensor]:
        asked_to_stop("updates")
        return variant.advantage(groups, round)

    return replace(variant, rollout=Watched(**vars(variant.rollout)), replay=replay, advantage=advantage)


def test_a_round_that_is_given_up_costs_no_more_rollouts(tmp_path: Path) -> None:
    variant = sigterm_in_round(0, "rollouts")
    rewarded: list[int] = []
    terms = [
        Term("high", 1.0, by_group(lambda group: rewarded.append(group.request.number) or many_high_tokens(group)))
    ]
    with pytest.raises(Preempted):
        optimise(tmp_path, replace(variant, rewards=terms))
    assert rewarded == []


def test_a_term_is_called_once_a_round_with_all_groups_of_it_and_its_weight_may_fade(tmp_path: Path) -> None:
    calls: list[int] = []

    def paid(groups: Sequence[Group]) -> list[Tensor]:
        calls.append(len(groups))
        return [torch.linspace(0.0, 2.0, len(group.responses)) for group in groups]

    variant = replace(small_batches(), rewards=[Term("paid", Linear(1.0, 0.0), paid)])
    _, lines = optimise(tmp_path, variant, replace(POLICY, rounds=4))
    assert calls == [4, 4, 4, 4]
    assert [line["reward/paid"] for line in lines if "reward/paid" in line] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_every_part_sees_how_far_the_training_is_and_what_it_kept_of_the_rounds_before(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, float, Any]] = []

    def look(part: str, round: Round) -> None:
        memory = round.memory.setdefault(part, [])
        seen.append((part, round.number, round.epoch, round.progress, list(memory)))
        memory.append((round.number, part))

    def replay(groups: Sequence[Group], actor: Actor, round: Round) -> Sequence[Group]:
        look("replay", round)
        return groups

    def keep(group: Group, round: Round) -> bool:
        if group.request.number == 0:
            look("keep", round)
        return True

    def advantage(groups: Sequence[Group], round: Round) -> list[Tensor]:
        look("advantage", round)
        return GroupAdvantage()(groups, round)

    variant = replace(sampled(), replay=replay, keep=keep, advantage=advantage)
    optimise(tmp_path, variant, replace(POLICY, rounds=4, prompts=4))
    # Ten requests, four a round: only the fourth begins in the second pass.
    where = [(0, 0, 0.0), (1, 0, 0.25), (2, 0, 0.5), (3, 1, 0.75)]
    for part in ("replay", "keep", "advantage"):
        # What is kept comes back as from a checkpoint, also where there was no stop: pairs are lists.
        expected = [(part, *found, [[n, part] for n in range(number)]) for number, found in enumerate(where)]
        assert [one for one in seen if one[0] == part] == expected


def test_the_model_ends_with_the_weights_that_eval_fn_liked_best_the_first_ones_included(tmp_path: Path) -> None:
    model, before = tiny_qwen(seed=0), trainable(tiny_qwen(seed=0))
    answers = iter([1.0, 3.0, 2.0, 4.0])
    trained, _ = optimise(tmp_path, ranked_beams(), model=model, eval_fn=lambda: next(answers))
    assert (trained.best, trained.best_round) == (1.0, 0)
    assert all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())


ENDS: list[tuple[list[float], int, int]] = [([3, 2, 2, 2, 1], 2, 6), ([3, 3, 2, 4], 2, 8), ([1, 2], 1, 2)]


@pytest.mark.parametrize(("answers", "patience", "rounds"), ENDS)
def test_a_training_ends_after_so_many_evaluations_without_a_better_one(
    tmp_path: Path, answers: list[float], patience: int, rounds: int
) -> None:
    config, left = replace(POLICY, eval_rounds=2, patience=patience), iter([*answers, 5.0, 5.0])
    trained, lines = optimise(tmp_path, ranked_beams(), config, eval_fn=lambda: float(next(left)))
    assert trained.rounds == rounds == max(int(line["round"]) for line in lines if "round" in line)
    assert trained.best == min(answers[: 1 + rounds // 2])


def test_without_eval_fn_the_last_weights_stay(tmp_path: Path) -> None:
    model, before = tiny_qwen(seed=0), trainable(tiny_qwen(seed=0))
    trained, _ = optimise(tmp_path, ranked_beams(), model=model)
    assert math.isnan(trained.best)
    assert not all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())


def test_groups_that_the_filter_drops_are_not_learnt_from(tmp_path: Path) -> None:
    model, before = tiny_qwen(seed=0), trainable(tiny_qwen(seed=0))
    variant = replace(sampled(), keep=Difficulty(5.0, 6.0))
    _, lines = optimise(tmp_path, variant, replace(POLICY, rounds=2), model=model)
    assert [line["kept_groups"] for line in lines] == [0.0, 0.0]
    assert all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())


def test_every_request_is_rolled_out_once_in_each_pass(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def replay(groups: Sequence[Group], *_: object) -> Sequence[Group]:
        seen.extend(group.request.prompt + group.request.context for group in groups)
        return groups

    optimise(tmp_path, replace(ranked_beams(), replay=replay), replace(POLICY, rounds=5))
    everything = sorted(request.prompt + request.context for request in REQUESTS)
    assert [sorted(seen[:10]), sorted(seen[10:])] == [everything, everything]
    assert seen[:10] != seen[10:]


def test_training_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no request"):
        optimise(tmp_path, ranked_beams(), requests=[])


def test_responses_that_do_not_fit_into_a_row_are_refused_before_any_is_paid_for(tmp_path: Path) -> None:
    asked: list[None] = []

    def paid(group: Group) -> Tensor:
        asked.append(None)
        return many_high_tokens(group)

    variant = replace(sampled(), rewards=(Term("paid", 1.0, by_group(paid)),))
    config = replace(POLICY, rounds=1, row_tokens=2 + 5)
    optimise(tmp_path / "fits", variant, config)
    assert asked
    asked.clear()
    with pytest.raises(DataError, match=r"(?s)prompt of 2 tokens and a response of up to 5 .*a row has 6 tokens"):
        optimise(tmp_path / "refused", variant, replace(config, row_tokens=6))
    with pytest.raises(DataError, match="a response of up to 2 do not fit"):
        optimise(tmp_path / "beams", ranked_beams(), replace(config, row_tokens=3))
    assert not asked


@pytest.mark.parametrize("variant", [ranked_beams(), sampled()], ids=["beams", "sampled"])
def test_what_writes_is_what_learns_and_the_log_says_how_nearly(tmp_path: Path, variant: Variant) -> None:
    _, lines = optimise(tmp_path, variant, replace(POLICY, rounds=2))
    (gap,) = (line["sampler_gap"] for line in lines if "sampler_gap" in line)
    assert 0.0 <= gap < 1e-5


@pytest.mark.parametrize("variant", [ranked_beams(), sampled()], ids=["beams", "sampled"])
def test_a_sampler_with_other_weights_than_the_policy_is_refused_before_anything_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    def of_another(rollout: Any, model: Any, requests: Sequence[Any], seed: Any, stop: Any) -> list[Group]:
        return list(rollout(tiny_qwen(seed=1), requests, seed))

    monkeypatch.setattr("training.core.policy.variant.roll_out", of_another)
    with pytest.raises(DataError, match=r"(?s)sampler is not the policy.*nats a token"):
        optimise(tmp_path, variant)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_update_reads_the_probabilities_that_the_rollout_drew_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of -log p over what was drawn comes near the entropy, where both are at the temperature of the draws."""
    surprises: list[Tensor] = []
    watched = Surrogate.loss
    monkeypatch.setattr(
        Surrogate, "loss", lambda self, model, batch: surprises.append(-batch.old) or watched(self, model, batch)
    )
    variant = replace(sampled(), rollout=Sampling(400, max_tokens=1, end=2, temperature=0.5), surrogate=Surrogate())
    config = replace(POLICY, rounds=1, minibatch=1, row_tokens=500, learning_rate=1e-9)
    _, lines = optimise(tmp_path, variant, config)
    entropies = [line["entropy"] for line in lines if "entropy" in line]
    assert torch.cat(surprises).mean().item() == pytest.approx(sum(entropies) / len(entropies), rel=0.02)
    assert sum(entropies) / len(entropies) < 0.9 * math.log(32)
    assert [line["ratio"] for line in lines if "ratio" in line] == pytest.approx([1.0] * 4, abs=1e-5)


def test_the_kl_holds_the_policy_at_its_reference(tmp_path: Path) -> None:
    config = replace(POLICY, rounds=12, learning_rate=0.01)
    free, held = (replace(sampled(), surrogate=Surrogate(kl=kl)) for kl in (1e-9, 1.0))
    drift = [
        [line["kl"] for line in optimise(tmp_path / name, variant, config)[1] if "kl" in line][-1]
        for name, variant in (("free", free), ("held", held))
    ]
    assert drift[1] < 0.3 * drift[0]


def test_the_reference_does_not_move_with_the_policy_not_even_with_adapters(vocabulary: Vocabulary) -> None:
    zeros = torch.zeros(3)
    episode = Episode(Tree((270, 271), ((272, 273, 2),)), zeros, zeros, zeros, zeros)
    for lora in (None, LoraSettings(rank=2)):
        model = build_backbone(replace(TINY, lora=lora), vocabulary, seed=7)
        reference = Reference(model, tuple(model.parameters()))
        before = reference.score([episode], 0, 64, 1.0)[0].reference
        with torch.no_grad():
            for weight in trainable(model).values():
                weight.add_(0.5 * torch.randn_like(weight))
        assert torch.equal(reference.score([episode], 0, 64, 1.0)[0].reference, before)
        moved = Reference(model, tuple(model.parameters()))
        assert not torch.allclose(moved.score([episode], 0, 64, 1.0)[0].reference, before)


def test_the_next_stage_starts_at_a_reference_of_its_own(tmp_path: Path) -> None:
    model = tiny_qwen(seed=0).double()
    _, first = optimise(tmp_path / "first", sampled(), model=model)
    _, second = optimise(tmp_path / "second", sampled(), model=model)
    assert first[-2]["kl"] > 1e-3
    assert second[0]["kl"] == pytest.approx(0.0, abs=1e-9)


def test_the_parts_of_a_variant_are_read_from_a_config() -> None:
    surrogate = {"clip": {"low": 0.1}, "uncertain_clip": {"high": 0.28}, "kl": 0.02, "aggregate": "response"}
    assert parse_config(Surrogate, surrogate) == Surrogate(
        Clip(0.1, 0.2), uncertain_clip=Clip(0.2, 0.28), kl=0.02, aggregate="response"
    )
    assert parse_config(PolicyConfig, {"prompts": 100, "minibatch": 30, "reuse": 2}).steps_per_round == 8
    with pytest.raises(DataError, match="not allowed"):
        parse_config(Surrogate, {"aggregate": "batch"})


def test_dropout_is_off_because_ratios_would_be_noise(tmp_path: Path, vocabulary: Vocabulary) -> None:
    model = build_backbone(replace(TINY, dropout=0.5), vocabulary, seed=7)
    variant = replace(sampled(), rewards=(Term("high", 1.0, by_group(many_high_tokens)),))
    _, lines = optimise(tmp_path, variant, replace(POLICY, rounds=1), model=model)
    assert next(line["ratio"] for line in lines if "ratio" in line) == pytest.approx(1.0, abs=1e-5)
