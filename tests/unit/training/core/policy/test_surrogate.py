"""Rewards, advantages and the surrogate: hand-worked numbers, properties, and TRL's loss on the same batch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from tests.unit.training.peers import gradients, relative_gap, tiny_qwen, word_tokenizer
from training.core.errors import DataError
from training.core.heads import entropies
from training.core.policy.advantages import Clamped, GroupAdvantage, standardise
from training.core.policy.groups import Group, Request, Response, Reward, Round, Tally
from training.core.policy.rewards import Term, by_group, log_rewards, rewarded
from training.core.policy.schedule import Linear, Schedule, value_at
from training.core.policy.surrogate import (
    Aggregation,
    Clip,
    Episode,
    Surrogate,
    clipped_gain,
    k3,
    uncertainty_threshold,
)
from training.core.policy.variant import Difficulty, groups_that_differ
from training.core.sequences import Tree

numbers = st.floats(-100, 100)
columns = st.lists(numbers, min_size=2, max_size=8)


def group(*responses: tuple[int, ...], **values: list[float]) -> Group:
    rewards = {name: Reward(torch.tensor(value), 1.0) for name, value in values.items()}
    return Group(Request((1,)), tuple(Response(tokens, (1,)) for tokens in responses), rewards)


def rewards(*values: float) -> Group:
    return group(*[(n,) for n in range(len(values))], reward=list(values))


# Rewards


def term(name: str, weight: Schedule, *values: Any, **how: Any) -> Term:
    """A term that gives these values to every group; None where there are none."""
    return Term(name, weight, by_group(lambda group: torch.tensor(values) if values else None), **how)


def paid(*terms: Term, progress: float = 0.0) -> Group:
    return rewarded([group((7,), (8,))], terms, progress)[0]


def test_a_term_is_logged_weighted_and_one_of_weight_zero_is_logged_as_it_is_and_not_added() -> None:
    tally, judged = Tally(), paid(term("paid", 0.5, 1.0, 3.0), term("watched", 0.0, 1.0, 1.0))
    log_rewards([judged], tally)
    assert judged.total().tolist() == [0.5, 1.5]
    assert tally.means() == {"reward": 1.0, "reward/paid": 1.0, "reward/watched": 1.0}


def test_a_term_that_does_not_judge_a_group_leaves_no_trace() -> None:
    judged = paid(term("some", 1.0), term("all", 1.0, 1.0, 1.0))
    assert (judged.total().tolist(), set(judged.rewards)) == ([1.0, 1.0], {"all"})


def test_a_term_is_called_once_with_all_groups_and_sees_the_rewards_of_those_before_it() -> None:
    calls: list[int] = []

    def lengths(groups: Sequence[Group]) -> list[Tensor]:
        calls.append(len(groups))
        return [torch.tensor([float(len(response.tokens)) for response in one.responses]) for one in groups]

    terms = [Term("length", 0.0, lengths), Term("square", 1.0, by_group(lambda g: g.rewards["length"].value ** 2))]
    found = rewarded([group((7,), (8, 9)), group((1, 2, 3)), group()], terms, 0.0)
    assert calls == [3]
    assert [one.total().tolist() for one in found] == [[1.0, 4.0], [9.0], []]


def test_rewards_that_a_group_brings_along_are_forgotten_when_it_is_rewarded_anew() -> None:
    old = group((7,), (8,), other=[5.0, 5.0])
    assert set(rewarded([old], [term("new", 1.0, 1.0, 2.0)], 0.0)[0].rewards) == {"new"}


def test_a_term_that_forgets_a_group_is_named() -> None:
    forgetful = Term("lazy", 1.0, lambda groups: [None] * (len(groups) - 1))
    with pytest.raises(DataError, match="'lazy' gave 1 results for 2 groups"):
        rewarded([group((7,)), group((8,))], [forgetful], 0.0)


def test_a_value_is_clamped_before_it_is_weighed_and_a_missing_slot_stays_missing() -> None:
    judged = paid(
        term("wild", 0.5, -30.0, 8.0, clamp=(-10.0, 10.0)),
        term("slots", 1.0, [math.nan, 99.0], [2.0, 1.0], clamp=(0, 2)),
    )
    assert judged.total().tolist() == [-5.0, 4.0]
    assert judged.rewards["slots"].value.tolist() == [[pytest.approx(math.nan, nan_ok=True), 2.0], [2.0, 1.0]]


def test_the_weight_of_a_term_may_change_with_the_progress_of_the_training() -> None:
    fading = term("fades", Linear(1.0, 0.0, begin=0.8), 1.0, 2.0)
    totals = [paid(fading, progress=progress).total().tolist() for progress in (0.0, 0.8, 0.9, 1.0)]
    assert totals == [pytest.approx([share, 2 * share]) for share in (1.0, 1.0, 0.5, 0.0)]


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_a_reward_that_is_not_one_finite_value_per_response_is_named(values: list[float]) -> None:
    with pytest.raises(DataError, match="reward term 'odd'"):
        paid(term("odd", 1.0, *values))


def test_a_slot_may_be_missing_but_not_infinite() -> None:
    with pytest.raises(DataError, match="not finite"):
        paid(term("odd", 1.0, [1.0, math.nan], [math.inf, 2.0]))
    assert set(paid(term("odd", 1.0, [1.0, math.nan], [3.0, 2.0])).rewards) == {"odd"}


@pytest.mark.parametrize(("reward", "kept"), [(0.05, False), (0.1, True), (0.95, True), (0.99, False)])
def test_groups_that_are_hopeless_or_learnt_already_are_filtered_out(reward: float, kept: bool) -> None:
    assert Difficulty(0.1, 0.95)(rewards(reward - 0.01, reward + 0.01), Round()) is kept


def test_what_is_too_hard_may_change_with_the_progress_of_the_training() -> None:
    harder = Difficulty(Linear(0.4, 0.0), 1.0)
    assert [harder(rewards(0.1, 0.3), Round(progress=progress)) for progress in (0.0, 0.4, 0.6)] == [False, False, True]


def test_a_response_without_a_measure_neither_drops_its_group_nor_counts_in_its_mean() -> None:
    nan, round = math.nan, Round()
    lists = {"half": [0.4, nan, nan, 0.6], "easy": [nan, 1.0], "none": [nan, nan]}
    difficulty = Difficulty(0.5, 0.9, measure=lambda group: group.rewards["list"].value)
    kept = {name: difficulty(group((7,), list=values), round) for name, values in lists.items()}
    assert kept == {"half": True, "easy": False, "none": False}
    assert round.tally.means() == {"unmeasured": 5 / 8}


# Advantages


def test_grpo_divides_by_the_sample_deviation_plus_eps() -> None:
    # mean 2, sample deviation sqrt((1 + 0 + 1) / 2) = 1
    advantage = GroupAdvantage()([rewards(1.0, 2.0, 3.0)], Round())[0]
    assert advantage.tolist() == pytest.approx([-1 / 1.0001, 0.0, 1 / 1.0001])


def test_clamped_advantages_are_counted() -> None:
    round = Round()
    found = Clamped(GroupAdvantage(), 1.0)([rewards(0.0, 0.0, 0.0, 0.0, 10.0), rewards(1.0, 1.0)], round)
    assert found[0].tolist() == pytest.approx([-0.447204] * 4 + [1.0], abs=1e-5)
    assert found[1].tolist() == [0.0, 0.0]
    assert round.tally.means() == {"flat_groups": 0.5, "clamped_advantages": pytest.approx(1 / 7)}


def test_population_deviation_and_an_eps_inside_the_root_are_other_numbers() -> None:
    values = torch.tensor([1.0, 2.0, 3.0])
    inside = standardise(values, ddof=0, eps=0.25, inside_root=True)
    assert inside.tolist() == pytest.approx([-1 / math.sqrt(2 / 3 + 0.25), 0.0, 1 / math.sqrt(2 / 3 + 0.25)])


def test_a_missing_slot_counts_nowhere_and_a_slot_that_only_one_response_has_is_not_compared() -> None:
    nan = math.nan
    values = torch.tensor([[1.0, 5.0, nan], [nan, 7.0, nan], [3.0, 9.0, 4.0]])
    found = standardise(values, ddof=0, eps=1e-12)
    third = math.sqrt(8 / 3)
    assert found.flatten().tolist() == pytest.approx([-1.0, -2 / third, 0.0, 0.0, 0.0, 0.0, 1.0, 2 / third, 0.0])


@given(columns, st.sampled_from([0, 1]), st.booleans())
def test_advantages_of_a_group_sum_to_zero(values: list[float], ddof: int, inside: bool) -> None:
    found = standardise(torch.tensor(values).double(), ddof=ddof, eps=1e-4, inside_root=inside)
    assert found.sum().item() == pytest.approx(0.0, abs=1e-6)


@given(columns, numbers, st.floats(0.1, 10))
def test_advantages_do_not_change_when_all_rewards_are_shifted(values: list[float], shift: float, scale: float) -> None:
    column = torch.tensor(values).double()
    assume(column.std() > 1e-3)
    plain = standardise(column, ddof=1, eps=1e-12)
    assert torch.allclose(standardise(column * scale + shift, ddof=1, eps=1e-12), plain, atol=1e-6)


sizes = st.floats(1e-6, 1e12).map(lambda size: float(torch.tensor(size)))


@given(sizes, st.sampled_from([-1.0, 1.0]), st.integers(1, 24), st.sampled_from([torch.float32, torch.float64]))
@example(0.1, 1.0, 6, torch.float32)
@example(99.9, 1.0, 8, torch.float32)
@example(3333.0, 1.0, 8, torch.float32)
@example(1e12, -1.0, 7, torch.float32)
@example(0.0, 1.0, 4, torch.float32)
def test_a_group_with_equal_rewards_has_no_advantage_at_any_size_of_reward(
    size: float, sign: float, count: int, dtype: torch.dtype
) -> None:
    round, reward = Round(), Reward(torch.full((count,), sign * size, dtype=dtype), 1.0)
    flat = replace(rewards(*[0.0] * count), rewards={"reward": reward})
    assert GroupAdvantage()([flat], round)[0].tolist() == [0.0] * count
    assert round.tally.means()["flat_groups"] == 1.0
    assert not groups_that_differ(flat, round)
    for ddof, inside in ((0, False), (1, True)):
        assert not standardise(reward.value, ddof=ddof, eps=1e-12, inside_root=inside).any()


@given(sizes, st.permutations([0.1, 0.2, 0.3, 0.7]))
def test_totals_that_differ_by_rounding_alone_are_equal(size: float, weights: list[float]) -> None:
    terms = [torch.full((1,), size) * weight for weight in weights]
    orders = torch.cat([terms[0] + terms[1] + terms[2] + terms[3], terms[3] + (terms[2] + (terms[1] + terms[0]))])
    assert standardise(orders, ddof=1, eps=1e-12).tolist() == [0.0, 0.0]


@given(sizes)
def test_rewards_that_differ_are_told_apart_however_large_they_are(size: float) -> None:
    found = standardise(torch.tensor([size, size * 1.001, size]), ddof=1, eps=1e-12 * size)
    assert found.tolist() == pytest.approx([-1 / math.sqrt(3), 2 / math.sqrt(3), -1 / math.sqrt(3)], rel=1e-3)


@pytest.mark.parametrize("eps", [0.0, -1e-4])
def test_an_eps_that_divides_by_nothing_is_refused(eps: float) -> None:
    with pytest.raises(DataError, match="eps"):
        standardise(torch.tensor([1.0, 2.0]), ddof=1, eps=eps)


# The surrogate


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [(1.1, 2.0, 2.2), (1.5, 2.0, 2.6), (1.5, -2.0, -3.0), (0.7, 2.0, 1.4), (0.7, -2.0, -1.6), (1.0, 5.0, 5.0)],
)
def test_the_clip_stops_a_gain_and_never_a_loss(ratio: float, advantage: float, gain: float) -> None:
    found = clipped_gain(torch.tensor(ratio), torch.tensor(advantage), torch.tensor(0.2), torch.tensor(0.3))
    assert found.item() == pytest.approx(gain)


@given(numbers, st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_at_ratio_one_no_clip_acts(advantage: float, low: float, high: float) -> None:
    ratio = torch.ones((), requires_grad=True)
    gain = clipped_gain(ratio, torch.tensor(advantage), torch.tensor(low), torch.tensor(high))
    gain.backward()
    assert gain.item() == pytest.approx(advantage)
    assert ratio.grad is not None and ratio.grad.item() == pytest.approx(advantage)


@given(st.floats(-5, 0), st.floats(-5, 0))
def test_k3_is_zero_at_the_reference_and_positive_elsewhere(log_prob: float, reference: float) -> None:
    now, before = torch.tensor([log_prob, reference], dtype=torch.float64)
    found = k3(now, before).item()
    assert found == pytest.approx(math.exp(reference - log_prob) - (reference - log_prob) - 1, abs=1e-9)
    assert found >= -1e-12


def test_the_uncertain_tokens_are_those_at_or_above_the_percentile_of_the_entropies() -> None:
    assert uncertainty_threshold(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), 0.8) == pytest.approx(3.2)
    assert uncertainty_threshold(torch.zeros(0), 0.8) == math.inf


def test_a_schedule_goes_straight_from_its_start_to_its_end() -> None:
    assert value_at(0.3, 0.5) == value_at(Linear(0.3, 0.3), 0.5) == 0.3
    assert [Linear(0.01).at(progress) for progress in (0.0, 0.25, 1.0)] == pytest.approx([0.01, 0.0075, 0.0])


EPISODES = [
    Episode(
        Tree((5, 6), ((4, 5, 2), (6, 2))),
        advantage=torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]),
        old=torch.tensor([-1.0, -4.0, -0.4, -2.0, -3.0]),
        reference=torch.tensor([-1.5, -3.0, -0.6, -2.5, -2.0]),
        uncertain=torch.zeros(5),
    ),
    Episode(
        Tree((7, 8, 9), ((9, 9, 9), (8, 2))),
        advantage=torch.tensor([0.5, 0.5, 0.5, -0.5, -0.5]),
        old=torch.tensor([-2.0, -2.0, -1.0, -5.0, -0.2]),
        reference=torch.tensor([-2.5, -1.0, -1.0, -4.0, -0.3]),
        uncertain=torch.zeros(5),
    ),
]


def loss_of(
    surrogate: Surrogate, episodes: Sequence[Episode] = EPISODES, progress: float = 0.0, temperature: float = 1.0
) -> tuple[float, Tensor, dict[str, float]]:
    """Mean loss, its gradients and what is logged, for a fresh model."""
    model = tiny_qwen(seed=0)
    batch = surrogate.collate([[episode] for episode in episodes], pad=0, progress=progress, temperature=temperature)
    value, terms = surrogate.loss(model, batch)
    (value / batch.learnt).backward()
    return value.item() / batch.learnt, gradients(model), {n: t.item() / batch.learnt for n, t in terms.items()}


# TRL sums the entropy bonus by token whatever its loss does, so the bonus is compared where ours does too.
@pytest.mark.parametrize(
    ("aggregate", "peer_name", "entropy"), [("response", "grpo", 0.0), ("token", "bnpo", 0.0), ("token", "bnpo", 0.02)]
)
def test_loss_and_gradients_are_those_of_the_grpo_trainer_of_trl(
    tmp_path: Path, aggregate: Aggregation, peer_name: str, entropy: float
) -> None:
    tiny_qwen(seed=0).save_pretrained(tmp_path / "base")
    arguments = GRPOConfig(
        str(tmp_path),
        beta=0.05,
        epsilon=0.1,
        epsilon_high=0.3,
        temperature=0.7,
        use_bias_correction_kl=False,  # the plain k3 of the papers, not weighed by the ratio
        entropy_coef=entropy,
        loss_type=peer_name,
        num_generations=4,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    peer = GRPOTrainer(
        str(tmp_path / "base"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a b"}] * 4),
        processing_class=word_tokenizer(),
    )
    expected = peer.compute_loss(peer.model.eval(), trl_batch(EPISODES))
    expected.backward()
    surrogate = Surrogate(Clip(0.1, 0.3), kl=0.05, aggregate=aggregate, entropy=Linear(entropy, entropy))
    value, gradient, logged = loss_of(surrogate, temperature=0.7)
    assert value == pytest.approx(expected.item(), abs=1e-5)
    assert relative_gap(gradient, gradients(peer.model)) < 1e-5
    if aggregate == "token":
        assert logged["kl"] == pytest.approx(peer._metrics["eval"]["kl"][0], abs=1e-5)
        assert logged["entropy"] == pytest.approx(peer._metrics["eval"]["entropy"][0], abs=1e-5)
        assert logged["clipped_low"] == pytest.approx(peer._metrics["eval"]["clip_ratio/low_mean"][0])
        assert logged["clipped_high"] == pytest.approx(peer._metrics["eval"]["clip_ratio/high_mean"][0])
        assert logged["clipped_low"] > 0


def trl_batch(episodes: Sequence[Episode]) -> dict[str, Tensor]:
    """The same episodes, one row per response, prompts padded on the left and responses on the right."""
    pairs = [(episode.tree.prompt, response) for episode in episodes for response in episode.tree.responses]
    tails = [len(response) for _, response in pairs]

    def rows(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[*value, *[0] * (max(tails) - len(value))] for value in values])

    def by_response(name: str) -> Tensor:
        joined = torch.cat([getattr(episode, name) for episode in episodes])
        return rows([part.tolist() for part in torch.split(joined, tails)])

    left = max(len(prompt) for prompt, _ in pairs)
    return {
        "prompt_ids": torch.tensor([[*[0] * (left - len(prompt)), *prompt] for prompt, _ in pairs]),
        "prompt_mask": torch.tensor([[0] * (left - len(prompt)) + [1] * len(prompt) for prompt, _ in pairs]),
        "completion_ids": rows([response for _, response in pairs]),
        "completion_mask": rows([[1] * len(response) for _, response in pairs]),
        "advantages": by_response("advantage")[:, 0],
        "old_per_token_logps": by_response("old"),
        "ref_per_token_logps": by_response("reference"),
        "num_items_in_batch": torch.tensor(float(sum(tails))),
    }


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3), st.sampled_from(["token", "response"]))
def test_what_stands_at_masked_places_has_no_influence(token: int, aggregate: Aggregation) -> None:
    surrogate = Surrogate(kl=0.05, entropy=Linear(0.01), aggregate=aggregate)
    model, batch = tiny_qwen(seed=0), surrogate.collate([EPISODES], pad=0, progress=0.0, temperature=1.0)
    trees = batch.trees
    padding = trees.segments == 0
    changed = replace(
        trees,
        input_ids=trees.input_ids.masked_fill(padding, token),
        tokens=trees.tokens.masked_fill(~trees.mask, token),
        source=trees.source.masked_fill(~trees.mask, token),
    )
    before, after = surrogate.loss(model, batch)[0], surrogate.loss(model, replace(batch, trees=changed))[0]
    assert after.item() == before.item()


@pytest.mark.parametrize("aggregate", ["token", "response"])
def test_a_batch_is_the_sum_of_its_parts_whatever_is_packed_together(aggregate: Aggregation) -> None:
    surrogate = Surrogate(kl=0.05, aggregate=aggregate)
    model = tiny_qwen(seed=0)
    together = surrogate.collate([EPISODES, []], pad=0, progress=0.0, temperature=1.0)
    alone = [surrogate.collate([[episode]], pad=0, progress=0.0, temperature=1.0) for episode in EPISODES]
    assert together.learnt == sum(batch.learnt for batch in alone) == (10 if aggregate == "token" else 4)
    losses = [surrogate.loss(model, batch)[0].item() for batch in alone]
    assert surrogate.loss(model, together)[0].item() == pytest.approx(sum(losses), abs=1e-5)


@pytest.mark.parametrize(
    ("old", "advantage", "silenced"),
    [(-90.0, 0.1, (0.0, 1.0)), (-90.0, -0.1, (0.0, 0.0)), (0.0, -0.1, (1.0, 0.0)), (0.0, 0.1, (0.0, 0.0))],
)
def test_the_clip_silences_what_has_moved_far_enough_in_the_direction_of_its_advantage(
    old: float, advantage: float, silenced: tuple[float, float]
) -> None:
    moved = [
        replace(one, old=torch.full_like(one.old, old), advantage=torch.full_like(one.old, advantage))
        for one in EPISODES
    ]
    _, _, logged = loss_of(Surrogate(), moved)
    assert (logged["clipped_low"], logged["clipped_high"]) == silenced


def test_an_unknown_old_policy_is_the_one_that_learns_and_the_ratio_is_one() -> None:
    fresh = [replace(episode, old=torch.full_like(episode.old, math.nan)) for episode in EPISODES]
    value, gradient, logged = loss_of(Surrogate(), fresh)
    advantages = torch.cat([episode.advantage for episode in fresh])
    assert value == pytest.approx(-advantages.mean().item(), abs=1e-6)
    assert (logged["ratio"], logged["clipped_low"], logged["clipped_high"]) == (pytest.approx(1.0), 0.0, 0.0)
    assert gradient.norm() > 0.1


def test_without_a_weight_of_the_kl_nothing_depends_on_a_reference() -> None:
    unknown = [replace(episode, reference=torch.full_like(episode.reference, math.inf)) for episode in EPISODES]
    value, gradient, logged = loss_of(Surrogate(), unknown)
    assert value == loss_of(Surrogate())[0]
    assert gradient.isfinite().all() and "kl" not in logged


def test_uncertain_tokens_may_move_further_than_the_others() -> None:
    marked = [replace(episode, uncertain=torch.ones(5)) for episode in EPISODES]
    narrow, wide = Clip(0.1, 0.1), Clip(0.4, 0.6)
    mixed = Surrogate(narrow, uncertain_clip=wide)
    assert loss_of(mixed, marked)[0] == pytest.approx(loss_of(Surrogate(wide))[0])
    assert loss_of(mixed)[0] == pytest.approx(loss_of(Surrogate(narrow))[0])
    assert loss_of(Surrogate(wide))[0] != pytest.approx(loss_of(Surrogate(narrow))[0])


@pytest.mark.parametrize("bonus", [0.0, 0.1])
def test_entropies_and_their_gradients_are_the_same_however_few_logits_are_there_at_once(
    bonus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrogate = Surrogate(entropy=Linear(bonus, bonus))
    value, gradient, logged = loss_of(surrogate)
    monkeypatch.setattr("training.core.heads.LOGITS_AT_ONCE", 3 * 32)
    again, other, logged_again = loss_of(surrogate)
    assert again == pytest.approx(value, abs=1e-6)
    assert relative_gap(other, gradient) < 1e-6
    assert logged_again["entropy"] == pytest.approx(logged["entropy"], abs=1e-6)


def test_of_the_entropies_nothing_is_kept_for_the_gradient_but_the_logits_themselves() -> None:
    logits = torch.randn(50, 32, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        entropies(logits)
    assert sum(kept.values()) <= logits.untyped_storage().nbytes()


def test_the_entropy_bonus_fades_with_the_progress_of_the_training() -> None:
    bonus = Surrogate(entropy=Linear(0.1))
    plain, _, logged = loss_of(Surrogate())
    assert loss_of(bonus)[0] == pytest.approx(plain - 0.1 * logged["entropy"], abs=1e-5)
    assert loss_of(bonus, progress=0.5)[0] == pytest.approx(plain - 0.05 * logged["entropy"], abs=1e-5)
    assert loss_of(bonus, progress=1.0)[0] == pytest.approx(plain, abs=1e-5)
