"""IL-GRPO, A2PO and AGRL in small: each is a few parts of a variant, and the core carries them as it is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.core.checkpoint import trainable
from training.core.errors import DataError
from training.core.policy.advantages import standardise
from training.core.policy.episodes import drafts, with_old
from training.core.policy.groups import Group, Request, Response, Reward, Round, Tally
from training.core.policy.rewards import Term, by_group, rewarded
from training.core.policy.rollouts import Rollout, Sampling
from training.core.policy.schedule import Linear
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.trainer import PolicyConfig
from training.core.policy.variant import Actor, Difficulty, Variant
from training.core.sequences import Tokens

from .alignment_runs import POLICY, many_high_tokens, optimise
from .peers import tiny_qwen

SEPARATOR = 31


def group_of(*responses: Tokens, **rewards: Sequence[float] | Sequence[Sequence[float]]) -> Group:
    values = {name: Reward(torch.tensor(value, dtype=torch.float64), 1.0) for name, value in rewards.items()}
    return Group(Request((5,)), tuple(Response(tokens, (5,)) for tokens in responses), values)


# IL-GRPO (AIGQ): an advantage per slot of the list, compared across rollouts, and one per list


@dataclass(frozen=True)
class SlotAdvantage:
    """Query j of a list is compared with query j of the other lists; a token has its query's advantage and its list's.

    Population statistics with eps inside the root; a separator belongs to the query that it ends.
    """

    list_weight: float
    eps: float = 1e-6

    def __call__(self, groups: Sequence[Group], round: Round) -> list[Tensor]:
        return [self._of(group) for group in groups]

    def _of(self, group: Group) -> Tensor:
        slots = torch.stack([r.weighted for r in group.rewards.values() if r.value.ndim == 2]).sum(dim=0)
        own = standardise(slots, ddof=0, eps=self.eps, inside_root=True)
        whole = self.list_weight * standardise(group.total(), ddof=0, eps=self.eps, inside_root=True)
        longest = max(len(response.tokens) for response in group.responses)
        rows = [self._row(response.tokens, slot, longest) for response, slot in zip(group.responses, own, strict=True)]
        return torch.stack(rows) + whole[:, None]

    @staticmethod
    def _row(tokens: Tokens, slots: Tensor, width: int) -> Tensor:
        row, slot = torch.zeros(width), 0
        for place, token in enumerate(tokens):
            row[place] = slots[slot] if slot < len(slots) else 0.0
            slot += token == SEPARATOR
        return row


def test_a_token_has_the_advantage_of_its_slot_and_of_its_list() -> None:
    nan = math.nan
    lists = group_of(
        (7, SEPARATOR, 8, 9, 2),
        (7, 7, SEPARATOR),
        query=[[1.0, 4.0], [3.0, nan]],
        format=[0.0, -1.0],
    )
    # Slot 0: mean 2, deviation 1, so -1 and +1. Slot 1: only one list has it. Lists: mean -0.5, deviation 0.5.
    found = SlotAdvantage(list_weight=0.5, eps=1e-12)([lists], Round())[0]
    assert found[0].tolist() == pytest.approx([-1 + 0.5, -1 + 0.5, 0.5, 0.5, 0.5])
    assert found[1, :3].tolist() == pytest.approx([1 - 0.5, 1 - 0.5, 1 - 0.5])
    episode = drafts(lists, found, row_tokens=64)[0]
    assert episode.advantage.tolist() == pytest.approx([-0.5, -0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_an_advantage_by_token_must_reach_to_the_end_of_the_response() -> None:
    with pytest.raises(DataError, match="2 advantages for 3 tokens"):
        drafts(group_of((7, 8, 2)), torch.zeros(1, 2), row_tokens=64)


def queries(group: Group) -> Tensor:
    """One value per query, its share of tokens above 15; NaN where a list has fewer than three."""
    rows = torch.full((len(group.responses), 3), math.nan)
    for row, response in zip(rows, group.responses, strict=True):
        ends = [n for n, token in enumerate(response.tokens, start=1) if token in (SEPARATOR, 2)]
        for slot, (start, end) in enumerate(zip([0, *ends], [*ends, len(response.tokens)], strict=True)):
            if slot < 3 and end > start:
                row[slot] = sum(token > 15 for token in response.tokens[start:end]) / (end - start)
    return rows


IL_GRPO = Variant(
    Sampling(responses=6, max_tokens=8, end=2, top_k=16),
    [Term("query", 1.0, by_group(queries)), Term("length", 0.5, by_group(many_high_tokens))],
    Surrogate(Clip(0.1, 0.1), uncertain_clip=Clip(0.2, 0.28), entropy=Linear(0.01)),
    advantage=SlotAdvantage(list_weight=0.5),
    keep=Difficulty(-10.0, 10.0, measure=lambda group: group.rewards["query"].value.nanmean(dim=1)),
)


# A2PO (S-GRec): the semantic advantage helps where it agrees with the business advantage, and never against it


def fused(business: Tensor, semantic: Tensor, eps: float = 1e-8) -> tuple[Tensor, Tensor]:
    """A_biz + lambda * A_sem, and lambda; it is 0 where the signs differ or the business has none."""
    least, most = torch.minimum(business.abs(), semantic.abs()), torch.maximum(business.abs(), semantic.abs())
    share = torch.where(business * semantic > 0, least / (most + eps), 0.0)
    return business + share * semantic, share


def asymmetric(groups: Sequence[Group], round: Round) -> list[Tensor]:
    return [asymmetric_in(group, round.tally) for group in groups]


def asymmetric_in(group: Group, tally: Tally) -> Tensor:
    business = standardise(group.rewards["business"].value, ddof=0, eps=1e-8)
    if "semantic" not in group.rewards:
        return business
    semantic = standardise(group.rewards["semantic"].value, ddof=0, eps=1e-8)
    advantage, share = fused(business, semantic)
    tally.add("a2po/agreement", (business * semantic > 0).float())
    tally.add("a2po/lambda", share)
    return advantage


def test_semantics_strengthen_what_business_agrees_with_and_leave_the_rest() -> None:
    judged = group_of((7,), (8,), (9,), business=[3.0, 0.0, 0.0], semantic=[1.0, 0.5, -1.5])
    # A_biz = (2, -1, -1) / sqrt 2; A_sem = (1, 0.5, -1.5) / sqrt(3.5 / 3). First: lambda 0.654654; second: they differ;
    # third: the judge is the stronger one, so the update doubles.
    tally = Tally()
    assert asymmetric_in(judged, tally).tolist() == pytest.approx([2.020305, -0.707107, -1.414214], abs=1e-5)
    assert tally.means()["a2po/agreement"] == pytest.approx(2 / 3)
    assert tally.means()["a2po/lambda"] == pytest.approx((0.654654 + 0 + 0.509175) / 3, abs=1e-5)


def test_a_group_that_the_judge_has_not_seen_learns_from_business_alone() -> None:
    terms = [
        Term("business", 1.0, by_group(lambda g: torch.tensor([1.0, 0.0]))),
        Term("semantic", 1.0, by_group(lambda g: None)),
    ]
    found = asymmetric_in(rewarded([group_of((7,), (8,))], terms, 0.0)[0], Tally())
    assert found.tolist() == pytest.approx([1.0, -1.0])


@given(st.floats(-1e12, 1e12), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_where_business_has_no_preference_nothing_is_learnt_whatever_the_judge_says(
    reward: float, judged: list[float]
) -> None:
    terms = [
        Term("business", 1.0, by_group(lambda g: torch.full((len(judged),), reward))),
        Term("semantic", 1.0, by_group(lambda g: torch.tensor(judged))),
    ]
    indifferent = rewarded([group_of(*[(7,)] * len(judged))], terms, 0.0)[0]
    assert asymmetric_in(indifferent, Tally()).tolist() == [0.0] * len(judged)


def test_a_run_without_any_preference_of_business_leaves_the_policy_as_it_is(tmp_path: Path) -> None:
    model, before = tiny_qwen(0), trainable(tiny_qwen(0))
    terms = [
        Term("business", 1.0, by_group(lambda g: torch.full((len(g.responses),), 0.1))),
        Term("semantic", 0.0, by_group(many_high_tokens)),
    ]
    _, lines = optimise(tmp_path, replace(A2PO, rewards=terms, surrogate=Surrogate()), ROUNDS, model=model)
    assert {line["grad_norm"] for line in lines if "grad_norm" in line} == {0.0}
    assert all(torch.equal(weight, before[name]) for name, weight in trainable(model).items())


advantages = st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=6)


@given(advantages)
def test_semantics_never_flip_an_update_and_at_most_double_it(pairs: list[tuple[float, float]]) -> None:
    business, semantic = torch.tensor(pairs, dtype=torch.float64).T
    advantage, _ = fused(business, semantic)
    assert (advantage * business >= 0).all()
    assert (advantage.abs() <= 2 * business.abs() + 1e-9).all()


def sometimes_judged(group: Group) -> Tensor | None:
    """The request decides, so that every process and every variant has the same groups judged."""
    return many_high_tokens(group) if group.request.number % 2 else None


A2PO = Variant(
    Sampling(responses=6, max_tokens=4, end=2, top_k=16),
    [Term("business", 1.0, by_group(many_high_tokens)), Term("semantic", 0.0, by_group(sometimes_judged))],
    Surrogate(kl=1e-3, aggregate="response"),
    advantage=asymmetric,
)


# AGRL: where the policy fails, it tries again with a hint, and learns the better answer without it


@dataclass(frozen=True)
class GuidedReplay:
    """Groups with fewer right labels than `share` get hinted answers in the place of their worst, at most half."""

    hint: Callable[[Request], Tokens]
    share: float
    guided: Rollout
    strip: bool = True

    def __call__(self, groups: Sequence[Group], actor: Actor, round: Round) -> list[Group]:
        tally = round.tally
        hard = [group for group in groups if group.rewards["label"].value.mean() < self.share]
        hinted = [replace(g.request, prompt=g.request.prompt + self.hint(g.request)) for g in hard]
        answers = actor.answer(hinted, attempt=1, rollout=self.guided)
        mixed = {g.request.number: self._mix(g, other, actor) for g, other in zip(hard, answers, strict=True)}
        tally.add("agrl/triggered", [float(group.request.number in mixed) for group in groups])
        tally.add("agrl/accepted", [float(group is not None) for group in mixed.values()])
        found = [mixed.get(group.request.number, group) for group in groups]
        return [group for group in found if group is not None]

    def _mix(self, group: Group, guided: Group, actor: Actor) -> Group | None:
        right = guided.rewards["label"].value == 1
        good = [response for response, is_right in zip(guided.responses, right, strict=True) if is_right]
        good = good[: len(group.responses) // 2]
        own = group.total().argsort(descending=True)[: len(group.responses) - len(good)].tolist()
        learnt = [Response(r.tokens, group.request.prompt if self.strip else r.prompt) for r in good]
        responses = (*(group.responses[number] for number in own), *learnt)
        return actor.rewarded([Group(group.request, responses)])[0] if good else None


def label(group: Group) -> Tensor:
    return torch.tensor([float(response.tokens[0] == group.request.context) for response in group.responses])


def closeness(group: Group) -> Tensor:
    return torch.tensor([-abs(response.tokens[0] - group.request.context) / 100 for response in group.responses])


RULES = [Term("label", 1.0, by_group(label)), Term("closeness", 1.0, by_group(closeness))]
HINT = 30


class Scripted:
    """Four answers: after the hint two are right; without it only request 1 knows its label, once."""

    batch_size, max_tokens, temperature = 64, 2, 1.0

    def __call__(self, model: object, requests: Sequence[Request], seed: tuple[int, ...]) -> list[Group]:
        groups = []
        for request in requests:
            truth = request.context
            firsts = [truth, 9, truth, 8] if HINT in request.prompt else [7, truth if request.number == 1 else 6, 5, 4]
            groups.append(Group(request, tuple(Response((first, 2), request.prompt) for first in firsts)))
        return groups


def replayed(strip: bool, hint: Tokens = (HINT,)) -> tuple[list[Group], Tally]:
    actor, round = Actor(tiny_qwen(0), RULES, Scripted(), (0, 0)), Round()
    requests = [Request((5,), 20, 0), Request((6,), 21, 1)]
    replay = GuidedReplay(lambda request: hint, 0.25, Scripted(), strip)
    return replay(actor.answer(requests, attempt=0), actor, round), round.tally


def test_a_group_that_failed_has_its_worst_answers_replaced_and_learns_them_without_the_hint() -> None:
    (hard, easy), tally = replayed(strip=True)
    assert [response.tokens[0] for response in hard.responses] == [7, 6, 20, 20]
    assert {response.prompt for response in hard.responses} == {(5,)}
    assert [response.tokens[0] for response in easy.responses] == [7, 21, 5, 4]
    # Totals of the mixed group: -0.13, -0.14, 1, 1; standardised anew over all four.
    assert hard.total().tolist() == pytest.approx([-0.13, -0.14, 1.0, 1.0])
    assert tally.means() == {"agrl/triggered": 0.5, "agrl/accepted": 1.0}
    assert [len(episode.tree.responses) for episode in drafts(hard, torch.zeros(4), 64)] == [4]


def test_a_variant_may_keep_the_hint_and_the_answers_are_learnt_after_it() -> None:
    (hard, _), _ = replayed(strip=False)
    assert [response.prompt for response in hard.responses] == [(5,), (5,), (5, HINT), (5, HINT)]
    episodes = drafts(hard, torch.tensor([-1.0, -2.0, 1.0, 2.0]), 64)
    assert [(episode.tree.prompt, episode.advantage.tolist()) for episode in episodes] == [
        ((5,), [-1.0, -1.0, -2.0, -2.0]),
        ((5, HINT), [1.0, 1.0, 2.0, 2.0]),
    ]


def test_a_group_that_even_the_hint_does_not_help_is_left_out() -> None:
    groups, tally = replayed(strip=True, hint=())
    assert [group.request.number for group in groups] == [1]
    assert tally.means()["agrl/accepted"] == 0.0


def test_the_ratio_may_be_taken_against_the_hinted_policy_that_wrote_the_answer() -> None:
    hinted = Response((7, 2), (5,), behaviour=(-0.25, -0.5))
    mixed = Group(Request((5,)), (Response((8, 2), (5,)), hinted))
    known, _ = with_old(tiny_qwen(0), drafts(mixed, torch.zeros(2), 64), 0, 64, 1.0)
    assert known[0].old[2:].tolist() == [-0.25, -0.5]
    assert (known[0].old[:2] < 0).all() and not known[0].old.isnan().any()


SAMPLING = Sampling(responses=4, max_tokens=3, end=2)
AGRL = Variant(
    SAMPLING,
    RULES,
    Surrogate(kl=0.02),
    replay=GuidedReplay(lambda request: (request.context, request.context), 0.25, replace(SAMPLING, responses=16)),
)

ROUNDS: PolicyConfig = replace(POLICY, rounds=4, row_tokens=48)


@pytest.mark.parametrize(
    ("variant", "logged"),
    [
        (IL_GRPO, {"reward/query", "reward/length"}),
        (A2PO, {"a2po/agreement", "a2po/lambda", "reward/business", "reward/semantic"}),
        (AGRL, {"agrl/triggered", "agrl/accepted", "reward/label", "reward/closeness"}),
    ],
    ids=["il_grpo", "a2po", "agrl"],
)
def test_the_trainer_runs_a_variant_by_its_parts_and_logs_what_they_count(
    tmp_path: Path, variant: Variant, logged: set[str]
) -> None:
    requests = [Request((5 + n % 7, 9 + n % 3), 12 + n) for n in range(8)]
    _, lines = optimise(tmp_path, variant, ROUNDS, requests=requests)
    rounds, steps = [line for line in lines if "round" in line], [line for line in lines if "loss" in line]
    assert len(rounds) == 4 and steps
    assert logged <= set().union(*rounds)
    assert all(math.isfinite(step["loss"]) and step["grad_norm"] > 0 for step in steps)
