"""The named variants: their equations worked by hand, what must hold of them, and the trainer runs each of them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.unit.training.alignment_runs import POLICY, many_high_tokens, optimise
from tests.unit.training.peers import gradients, relative_gap, tiny_qwen
from training.core.checkpoint import trainable
from training.core.errors import DataError, LeftOut
from training.core.policy.advantages import Advantage, GroupAdvantage
from training.core.policy.episodes import drafts
from training.core.policy.groups import Group, Request, Response, Reward, Round
from training.core.policy.rewards import Term, by_group, rewarded
from training.core.policy.rollouts import Sampling
from training.core.policy.schedule import Linear
from training.core.policy.surrogate import Surrogate
from training.core.policy.trainer import PolicyConfig
from training.core.policy.variant import Variant
from training.core.policy.variants.gdpo import DecoupledAdvantage, gdpo
from training.core.policy.variants.grpo import grpo
from training.core.policy.variants.il_grpo import NO_SLOT, SlotAdvantage, il_grpo, query_reward
from training.core.policy.variants.s_grec_a2po import AsymmetricAdvantage, fused, out_of_bounds, s_grec_a2po
from training.core.sequences import Tokens

SEPARATOR, RATIONALE, TRIGGER = 31, 30, 29
nan = math.nan


def group_of(*responses: Tokens, **rewards: Sequence[float] | Sequence[Sequence[float]]) -> Group:
    values = {name: Reward(torch.tensor(value, dtype=torch.float64), 1.0) for name, value in rewards.items()}
    return Group(Request((5,)), tuple(Response(tokens, (5,)) for tokens in responses), values)


def four(**rewards: list[float]) -> Group:
    return group_of((7,), (8,), (9,), (10,), **rewards)


def advantages_of(way: Advantage, *groups: Group, progress: float = 0.0) -> list[list[float]]:
    return [found.tolist() for found in way(groups, Round(progress=progress))]


# GDPO


def test_gdpo_standardises_each_reward_in_its_group_and_their_sum_over_the_batch() -> None:
    first = group_of((7,), (8,), right=[1.0, 0.0], short=[0.0, 5.0])
    second = group_of((7,), (8,), right=[1.0, 0.0], short=[3.0, 3.0])
    # Deviations: sqrt(0.5), 5 sqrt(0.5). First: +-0.70711 and -+0.70711, which cancel. Second: +-0.70711, and nothing.
    # Over the batch (0, 0, 0.70711, -0.70711): mean 0, sample deviation sqrt(1 / 3).
    found = advantages_of(DecoupledAdvantage(eps=1e-12), first, second)
    assert found[0] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert found[1] == pytest.approx([math.sqrt(1.5), -math.sqrt(1.5)])


def test_the_weights_of_gdpo_count_in_deviations() -> None:
    group = group_of((7,), (8,), right=[1.0, 0.0], short=[0.0, 5.0])
    weighted = replace(group, rewards={**group.rewards, "short": replace(group.rewards["short"], weight=0.5)})
    # 0.70711 - 0.5 * 0.70711
    assert advantages_of(DecoupledAdvantage(eps=1e-12, over_batch=False), weighted)[0] == pytest.approx(
        [0.5 * math.sqrt(0.5), -0.5 * math.sqrt(0.5)]
    )


def test_gdpo_tells_apart_what_a_sum_of_rewards_does_not() -> None:
    sums = [four(a=[1.0, 0.0, 0.0, 0.0], b=[0.0] * 4), four(a=[1.0, 0.0, 0.0, 0.0], b=[1.0, 0.0, 0.0, 0.0])]
    assert advantages_of(GroupAdvantage(), sums[0])[0] == pytest.approx(
        advantages_of(GroupAdvantage(), sums[1])[0], rel=1e-3
    )
    one, both = advantages_of(DecoupledAdvantage(), *sums)
    assert both[0] == pytest.approx(2 * one[0])


values = st.lists(st.floats(-10, 10).map(lambda x: round(x, 2)), min_size=4, max_size=4)


@given(values, values, st.sampled_from([0.1, 100.0, 1e6]))
def test_the_scale_of_one_reward_changes_nothing(business: list[float], semantic: list[float], scale: float) -> None:
    other = four(business=[2.0, 1.0, 0.0, 1.0], semantic=[0.0, 0.0, 1.0, 1.0])
    plain, scaled = ([four(business=business, semantic=[s * by for s in semantic]), other] for by in (1.0, scale))
    by_gdpo = [advantages_of(DecoupledAdvantage(eps=1e-12), *groups) for groups in (plain, scaled)]
    by_a2po = [advantages_of(AsymmetricAdvantage("semantic"), *map(watched, groups)) for groups in (plain, scaled)]
    for found in (by_gdpo, by_a2po):
        assert found[1] == [pytest.approx(one, abs=1e-4) for one in found[0]]


def watched(group: Group, name: str = "semantic") -> Group:
    """The group with a reward that does not enter the total."""
    return replace(group, rewards={**group.rewards, name: replace(group.rewards[name], weight=0.0)})


def test_a_hundred_times_a_reward_is_the_same_at_the_default_eps_and_drowns_the_other_in_a_plain_sum() -> None:
    small, large = (
        four(a=[1.0, 0.0, 0.0, 1.0], b=[0.0, 1.0, 0.0, 1.0]),
        four(a=[1.0, 0.0, 0.0, 1.0], b=[0.0, 100.0, 0.0, 100.0]),
    )
    assert advantages_of(DecoupledAdvantage(), large)[0] == pytest.approx(
        advantages_of(DecoupledAdvantage(), small)[0], abs=1e-3
    )
    assert advantages_of(GroupAdvantage(), small)[0][0] == pytest.approx(0.0)
    assert advantages_of(GroupAdvantage(), large)[0][0] < -0.8


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.integers(1, 8))
def test_a_flat_group_has_no_advantage_at_any_size_of_reward(business: float, semantic: float, count: int) -> None:
    flat = group_of(*[(7,)] * count, a=[business] * count, b=[semantic] * count)
    lively = four(a=[3.0, 0.1, 0.7, 0.3], b=[0.1, 0.2, 0.4, 0.9])
    for way in (DecoupledAdvantage(), DecoupledAdvantage(over_batch=False), AsymmetricAdvantage("b")):
        found = advantages_of(way, lively, flat)
        assert found[1] == [0.0] * count
        assert any(found[0])


# A2PO of S-GRec: the semantic advantage helps where it agrees with the business advantage, and never against it


def test_semantics_strengthen_what_business_agrees_with_and_leave_the_rest() -> None:
    judged = group_of((7,), (8,), (9,), business=[3.0, 0.0, 0.0])
    judged = replace(judged, rewards={**judged.rewards, "semantic": Reward(torch.tensor([1.0, 0.5, -1.5]), weight=0.0)})
    # A_biz = (2, -1, -1) / sqrt 2; A_sem = (1, 0.5, -1.5) / sqrt(3.5 / 3). First: lambda 0.654654; second: they differ;
    # third: the judge is the stronger one, so the update doubles but for lambda's 0.509175 of 1.38873.
    round = Round()
    found = AsymmetricAdvantage("semantic")([judged], round)[0]
    assert found.tolist() == pytest.approx([2.020305, -0.707107, -1.414214], abs=1e-5)
    means = round.tally.means()
    assert means["a2po/agreement"] == pytest.approx(2 / 3)
    assert means["a2po/lambda"] == pytest.approx((0.654654 + 0 + 0.509175) / 3, abs=1e-5)
    assert means["a2po/bound_violations"] == 0.0


def test_an_advantage_that_is_turned_around_or_more_than_doubled_is_out_of_bounds() -> None:
    business = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 0.0])
    advantage = torch.tensor([2.0, 2.01, -2.5, 0.5, 0.0, 0.01])
    assert out_of_bounds(business, advantage).tolist() == [False, True, True, True, False, True]


def test_a_group_that_the_judge_has_not_seen_learns_from_business_alone() -> None:
    terms = s_grec_a2po(
        Sampling(2, 1, 2), [Term("business", 1.0, by_group(lambda g: torch.tensor([1.0, 0.0])))], never_judged
    ).rewards
    round = Round()
    found = AsymmetricAdvantage("semantic")(rewarded([group_of((7,), (8,))], terms, 0.0), round)[0]
    assert found.tolist() == pytest.approx([1.0, -1.0])
    assert round.tally.means() == {"a2po/judged": 0.0}


never_judged = Term("semantic", 1.0, by_group(lambda group: None))


def test_a_run_without_any_preference_of_business_is_left_out_before_it_learns(tmp_path: Path) -> None:
    model, before = tiny_qwen(0), trainable(tiny_qwen(0))
    flat = Term("business", 1.0, by_group(lambda g: torch.full((len(g.responses),), 0.1)))
    variant = s_grec_a2po(SAMPLING, [flat], Term("semantic", 1.0, by_group(many_high_tokens)))
    with pytest.raises(LeftOut, match=r"(?s)says the same of all responses.*groups has two that earn differently"):
        optimise(tmp_path, replace(variant, surrogate=Surrogate()), ROUNDS, model=model)
    assert all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())


pairs_of_advantages = st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=6)


def added(business: float, semantic: float) -> float:
    """What a judge's advantage adds to a business's, written out: min(|b|, s^2 / |b|) sign(b) where the signs agree."""
    agree = business * semantic > 0
    return math.copysign(min(abs(business), semantic**2 / abs(business)), business) if agree else 0.0


@given(pairs_of_advantages)
def test_semantics_never_flip_an_update_and_at_most_double_it(pairs: list[tuple[float, float]]) -> None:
    business, semantic = torch.tensor(pairs, dtype=torch.float64).T
    advantage, share = fused(business, semantic, 1e-8)
    assert torch.equal(advantage.sign(), business.sign())
    assert ((share * semantic).abs() <= business.abs()).all() and (advantage.abs() <= 2 * business.abs()).all()
    assert not out_of_bounds(business, advantage).any()


@given(pairs_of_advantages)
def test_what_is_added_is_the_closed_form_for_both_signs(pairs: list[tuple[float, float]]) -> None:
    business, semantic = torch.tensor(pairs, dtype=torch.float64).T
    advantage, _ = fused(business, semantic, 1e-12)
    expected = [b + added(b, s) for b, s in pairs]
    assert advantage.tolist() == pytest.approx(expected, abs=1e-9)
    # Two negatives agree as two positives do: the judge may deepen a penalty as far as it may raise a reward.
    turned, _ = fused(-business, -semantic, 1e-12)
    assert torch.equal(turned, -advantage)


@given(st.floats(0.1, 4), st.floats(1e-9, 1e-4))
def test_what_is_added_doubles_up_to_the_judge_then_fades_without_a_jump(semantic: float, step: float) -> None:
    """It rises with |b| up to |s| and falls from there on: not monotone, and continuous where the two meet."""
    business = torch.tensor([0.5, 1 - step, 1.0, 1 + step, 2.0], dtype=torch.float64) * semantic
    more = (fused(business, torch.full_like(business, semantic), 1e-12)[0] - business) / semantic
    assert more.tolist() == pytest.approx([0.5, 1 - step, 1.0, 1 / (1 + step), 0.5], abs=1e-9)


rewards = st.integers(2, 8).flatmap(
    lambda size: st.tuples(*(st.lists(st.integers(-50, 50), min_size=size, max_size=size) for _ in range(2)))
)


@given(rewards)
def test_a_group_learns_what_the_closed_form_says_of_its_standardised_rewards(
    both: tuple[list[int], list[int]],
) -> None:
    """And nothing at all where the business pays the same for all of it, whatever the judge says."""

    def standard(values: list[int]) -> list[float]:
        spread = statistics.pstdev(values)
        return [(value - statistics.fmean(values)) / spread if spread else 0.0 for value in values]

    business, semantic = both
    responses = [(7 + number,) for number in range(len(business))]
    group = watched(
        group_of(*responses, business=[float(one) for one in business], semantic=[float(one) for one in semantic])
    )
    round = Round()
    found = AsymmetricAdvantage("semantic")([group], round)[0].tolist()
    expected = [b + added(b, s) for b, s in zip(standard(business), standard(semantic), strict=True)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(set(business)) > 1 or found == [0.0] * len(business)
    assert round.tally.means()["a2po/bound_violations"] == 0.0


# IL-GRPO of AIGQ: an advantage per slot of the list, compared across rollouts, and one per list


def query_slots(response: Response) -> list[int]:
    """Queries end with a separator; a rationale before them is of none."""
    slots, slot = [], 0
    for token in response.tokens:
        slots.append(NO_SLOT if token in (RATIONALE, TRIGGER) else slot)
        slot += token == SEPARATOR
    return slots


def trigger_slots(response: Response) -> list[int]:
    return [0 if token == TRIGGER else NO_SLOT for token in response.tokens]


LISTS = group_of((7, SEPARATOR, 8, 9, 2), (7, 7, SEPARATOR), query=[[1.0, 4.0], [3.0, nan]], format=[0.0, -1.0])


def test_a_token_has_the_advantage_of_its_slot_and_of_its_list() -> None:
    # Slot 0: mean 2, deviation 1, so -1 and +1. Slot 1: only one list has it. Lists: mean -0.5, deviation 0.5.
    found = SlotAdvantage(query_slots, eps=1e-12)([LISTS], Round())[0]
    assert found[0].tolist() == pytest.approx([-1 + 0.5, -1 + 0.5, 0.5, 0.5, 0.5])
    assert found[1, :3].tolist() == pytest.approx([1 - 0.5, 1 - 0.5, 1 - 0.5])
    episode = drafts(LISTS, found, row_tokens=64)[0]
    assert episode.advantage.tolist() == pytest.approx([-0.5, -0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_the_eps_of_a_slot_stands_inside_the_root() -> None:
    found = SlotAdvantage(query_slots, eps=3.0, list_weight=0.0)([LISTS], Round())[0]
    assert found[0].tolist() == pytest.approx([-0.5, -0.5, 0.0, 0.0, 0.0])


def test_the_weight_of_the_list_may_fade() -> None:
    way = SlotAdvantage(query_slots, list_weight=Linear(0.5, 0.0), eps=1e-12)
    halfway = advantages_of(way, LISTS, progress=0.5)[0]
    assert halfway[0] == pytest.approx([-1 + 0.25, -1 + 0.25, 0.25, 0.25, 0.25])


def test_a_trigger_has_its_own_advantage_only_and_a_rationale_that_of_the_list_only() -> None:
    thought = group_of(
        (RATIONALE, TRIGGER, 7, 2),
        (RATIONALE, TRIGGER, TRIGGER, 8),
        query=[[1.0], [3.0]],
        ctr=[[0.0], [2.0]],
        trigger=[[5.0], [1.0]],
        format=[0.0, -1.0],
    )
    found = SlotAdvantage(query_slots, trigger_slots, "trigger", 0.5, 1e-12)([thought], Round())[0]
    assert found.tolist() == [pytest.approx([0.5, 1.0, -1 + 0.5, -1 + 0.5]), pytest.approx([-0.5, -1.0, -1.0, 1 - 0.5])]
    assert query_reward(thought, "trigger").tolist() == [1.0, 5.0]


def test_a_query_beyond_those_that_are_rewarded_has_the_advantage_of_its_list() -> None:
    lists = group_of((7, SEPARATOR, 8), (9, SEPARATOR, 8), query=[[1.0], [3.0]], format=[0.0, -1.0])
    found = SlotAdvantage(query_slots, eps=1e-12)([lists], Round())[0]
    assert found[:, 2].tolist() == pytest.approx([0.5, -0.5])


def test_rewards_of_different_slots_are_not_summed() -> None:
    with pytest.raises(DataError, match=r"\(2, 1\) and \(2, 2\) values"):
        SlotAdvantage(query_slots)([group_of((7,), (8,), a=[[1.0], [2.0]], b=[[1.0, 2.0], [3.0, 4.0]])], Round())


def test_slots_that_are_not_one_per_token_are_refused() -> None:
    with pytest.raises(DataError, match="slots for 7 tokens were given, and there are 8"):
        SlotAdvantage(lambda response: query_slots(response)[:4])([LISTS], Round())


def test_an_advantage_by_token_must_reach_to_the_end_of_the_response() -> None:
    with pytest.raises(DataError, match="2 advantages for 3 tokens"):
        drafts(group_of((7, 8, 2)), torch.zeros(1, 2), row_tokens=64)


def test_il_grpo_clamps_rewards_and_advantages_as_the_paper_does_and_drops_what_is_too_easy_or_too_hard() -> None:
    wild = Term("ctr", 1.0, by_group(lambda g: torch.tensor([[99.0], [-99.0], [0.5], [0.5]])), clamp=(0.0, 1.0))
    variant = il_grpo(
        SAMPLING, [wild], [Term("format", 1.0, by_group(lambda g: torch.tensor([-99.0, 0, 0, 0])))], query_slots
    )
    judged = rewarded([four()], variant.rewards, 0.0)[0]
    assert judged.rewards["ctr"].value.flatten().tolist() == [1.0, 0.0, 0.5, 0.5]
    assert judged.rewards["format"].value.tolist() == [-10.0, 0.0, 0.0, 0.0]
    # Slot: +-sqrt 2 and 0; list: half of (-sqrt 3, 1 / sqrt 3, ...).
    found = variant.advantage([judged], Round())[0].flatten().tolist()
    root, third = math.sqrt(2), 0.5 / math.sqrt(3)
    assert found == pytest.approx([root - 0.5 * math.sqrt(3), -root + third, third, third], abs=1e-4)
    easy = [four(query=[[0.96]] * 4), four(query=[[0.5], [nan], [0.1], [0.3]]), four(query=[[0.05]] * 4)]
    assert [variant.keep(group, Round()) for group in easy] == [False, True, False]


# A second group over another prompt, as DyKnow-RAG (arXiv 2510.11122) has it, needs no mechanism of its own


def test_the_same_tokens_may_be_learnt_after_two_prompts_each_with_an_advantage_of_its_own() -> None:
    answers, bare, informed = ((7, 2), (8, 2)), (5,), (5, 9, 11)
    both = tuple(Response(tokens, prompt) for prompt in (bare, informed) for tokens in answers)
    advantages = torch.tensor([1.0, -1.0, 0.25, -2.0])

    def gradient(responses: Sequence[Response], advantages: Tensor) -> Tensor:
        surrogate, model = Surrogate(aggregate="response"), tiny_qwen(0)
        unknown = [
            replace(one, old=torch.full_like(one.old, nan))
            for one in drafts(Group(Request(bare), tuple(responses)), advantages, row_tokens=64)
        ]
        surrogate.loss(model, surrogate.collate([unknown], 0, 0.0, 1.0))[0].backward()
        return gradients(model)

    apart = gradient(both[:2], advantages[:2]) + gradient(both[2:], advantages[2:])
    assert relative_gap(gradient(both, advantages), apart) < 1e-5


# All of them


def queries(group: Group) -> Tensor:
    """One value per query, its share of tokens above 15; NaN where a list has fewer than three."""
    rows = torch.full((len(group.responses), 3), nan)
    for row, response in zip(rows, group.responses, strict=True):
        slots = query_slots(response)
        for slot in range(min(3, slots[-1] + 1)):
            own = [token > 15 for token, of in zip(response.tokens, slots, strict=True) if of == slot]
            row[slot] = sum(own) / len(own)
    return rows


def sometimes_judged(group: Group) -> Tensor | None:
    """The request decides, so that every process and every variant has the same groups judged."""
    return many_high_tokens(group) if group.request.number % 2 else None


SAMPLING = Sampling(responses=4, max_tokens=4, end=2, top_k=16)
ROUNDS: PolicyConfig = replace(POLICY, rounds=4, row_tokens=48)
HIGH = Term("high", 1.0, by_group(many_high_tokens))
SEMANTIC = Term("semantic", 1.0, by_group(sometimes_judged))


@pytest.mark.parametrize(
    ("variant", "logged"),
    [
        (grpo(SAMPLING, [HIGH]), {"flat_groups", "reward/high"}),
        (gdpo(SAMPLING, [HIGH, SEMANTIC]), {"flat_groups", "reward/high", "reward/semantic"}),
        (s_grec_a2po(SAMPLING, [HIGH], SEMANTIC), {"a2po/agreement", "a2po/lambda", "a2po/judged", "reward/semantic"}),
        (
            il_grpo(SAMPLING, [Term("query", 1.0, by_group(queries))], [replace(HIGH, weight=0.5)], query_slots),
            {"reward/query", "reward/high", "clamped_advantages", "unmeasured"},
        ),
    ],
    ids=["grpo", "gdpo", "s_grec_a2po", "il_grpo"],
)
def test_the_trainer_runs_a_variant_and_logs_what_its_parts_count(
    tmp_path: Path, variant: Variant, logged: set[str]
) -> None:
    _, lines = optimise(tmp_path, variant, ROUNDS)
    rounds, steps = [line for line in lines if "round" in line], [line for line in lines if "loss" in line]
    assert len(rounds) == 4 and steps
    assert logged <= set().union(*rounds)
    assert all(math.isfinite(step["loss"]) and step["grad_norm"] > 0 for step in steps)
