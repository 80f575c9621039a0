"""AGRL: rewards shaped by rules, and guided replay with a list of what waits for another epoch."""

import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.unit.training.alignment_runs import POLICY, Lines, assert_same, optimise
from tests.unit.training.peers import tiny_qwen
from training.core.checkpoint import places, read_cursor, trainable
from training.core.errors import DataError, Preempted
from training.core.policy.episodes import drafts, with_old
from training.core.policy.groups import Group, Request, Response, Reward, Round
from training.core.policy.rewards import by_group
from training.core.policy.rollouts import Sampling
from training.core.policy.surrogate import Surrogate
from training.core.policy.trainer import PolicyConfig, TrainedPolicy
from training.core.policy.variant import Actor, Variant
from training.core.policy.variants.agrl import RuleShaping, agrl
from training.core.policy.variants.guided_replay import FADING, GRADES, GUIDED, RETRIES, SLOTS, GuidedReplay
from training.core.sequences import Tokens

nan = math.nan

# Rule-aware reward shaping


DEFAULT = RuleShaping()


def shaped(*grades: list[float], shaping: RuleShaping = DEFAULT) -> list[float]:
    responses = tuple(Response((7,), (5,)) for _ in grades)
    group = Group(Request((5,)), responses, {GRADES: Reward(torch.tensor(grades, dtype=torch.float64), 0.0)})
    return shaping([group])[0].tolist()


def test_a_reward_is_the_gate_times_the_weighted_parts() -> None:
    # format, rule, label, category, attribute, closeness
    found = shaped(
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 1],
        [1, 1, 0, 1, 1, 2 / 3],
        [1, 0, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1],
    )
    assert found == pytest.approx([1.0, 0.6, 0.2 + 0.2 + 0.1 * 2 / 3, 0.0, 0.0])


def test_a_part_without_gold_is_left_out_and_the_others_weigh_the_more() -> None:
    assert shaped([1, 1, 1, nan, 0, 1], [1, 1, 0, nan, nan, 0.5]) == pytest.approx([0.6 / 0.8, 0.05 / 0.6])


shares, gold = st.floats(0, 1), st.sampled_from([0.0, 1.0, nan])


@given(shares, shares, shares, st.lists(gold, min_size=4, max_size=4), st.floats(0, 0.99))
def test_no_answer_with_a_wrong_label_earns_as_much_as_one_with_the_right_label_that_keeps_the_rules(
    category: float, attribute: float, closeness: float, steps: list[float], close: float
) -> None:
    shaping = RuleShaping(category + attribute + 0.01, category, attribute, closeness)
    right, wrong = shaped([1, 1, 1, *steps[:2], 1], [1, 1, 0, *steps[2:], close], shaping=shaping)
    assert right > wrong


@pytest.mark.parametrize("weights", [{"label": 0.4}, {"closeness": -0.1}, {"category": 0.3}])
def test_weights_that_let_a_wrong_label_win_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(DataError, match="let the label weigh more"):
        RuleShaping(**weights)


# Adaptive guided replay: answers are a label, which a request has as its context, and an end

CATEGORY_HINT, LABEL_HINT = 29, 30


def grade(group: Group) -> Tensor:
    """The label is right; or the category, which is that of all labels from 20 on."""
    firsts = [response.tokens[0] for response in group.responses]
    rows = [
        [
            1.0,
            1.0,
            float(one == group.request.context),
            float(one >= 20),
            nan,
            1 - abs(one - group.request.context) / 32,
        ]
        for one in firsts
    ]
    assert len(rows[0]) == len(SLOTS)
    return torch.tensor(rows, dtype=torch.float64)


def hint(request: Request, slot: str) -> Tokens | None:
    return {"category": (CATEGORY_HINT,), "label": (LABEL_HINT,)}.get(slot)


class Scripted:
    """Four answers: none knows label 20; request 21 knows its own once; 22 does after the first hint, 23 after both.

    24 never knows it, 25 always does.
    """

    batch_size, max_tokens, temperature = 64, 2, 1.0

    def telling(self) -> "Scripted":
        return self

    def __call__(self, model: object, requests: Sequence[Request], seed: tuple[int, ...]) -> list[Group]:
        groups = []
        for request in requests:
            truth, last = request.context, request.prompt[-1]
            knows = {21: last, 22: CATEGORY_HINT, 23: LABEL_HINT, 25: last}.get(truth) == last
            hinted = [truth, 9, truth, truth] if last in (CATEGORY_HINT, LABEL_HINT) else [truth, 9, 8, 7]
            firsts = hinted if knows else [7, 6, 5, 4]
            groups.append(self.group(request, [truth] * 4 if truth == 25 else firsts))
        return groups

    @staticmethod
    def group(request: Request, firsts: Sequence[int]) -> Group:
        return Group(request, tuple(Response((first, 2), request.prompt) for first in firsts))


REPLAY = GuidedReplay(hint, Scripted(), share=1.0)


def played(replay: GuidedReplay, truths: Sequence[int], round: Round) -> dict[int, Group]:
    """What comes out of a replay for requests with these labels, by label."""
    requests = [Request((5 + n,), truth, n, n) for n, truth in enumerate(truths)]
    rewards = agrl(Scripted(), by_group(grade), replay).rewards
    actor = Actor(tiny_qwen(0), rewards, Scripted(), (0, 0), round, requests)
    return {one.request.context: one for one in replay(actor.answer(requests, attempt=0), actor, round)}


def firsts(group: Group) -> list[int]:
    return [response.tokens[0] for response in group.responses]


def test_a_group_that_failed_has_its_worst_answers_replaced_and_learns_them_without_the_hint() -> None:
    round = Round()
    found = played(REPLAY, [21, 22, 23], round)
    assert firsts(found[21]) == [21, 9, 8, 7]
    assert firsts(found[22]) == [7, 6, 22, 22] and firsts(found[23]) == [7, 6, 23, 23]
    assert {response.prompt for response in found[22].responses} == {(6,)}
    # Category and label wrong: 0.1 / 0.8 of the closeness 1 - 15 / 32 and 1 - 16 / 32; right: 1.
    assert found[22].total().tolist() == pytest.approx([0.125 * 17 / 32, 0.125 * 16 / 32, 1.0, 1.0])
    means = round.tally.means()
    assert means["agrl/triggered"] == pytest.approx(2 / 3)
    assert (means["agrl/accepted_1"], means["agrl/accepted_2"]) == (0.5, 1.0)
    assert round.memory == {RETRIES: [], GUIDED: [1, 2]}
    assert [len(episode.tree.responses) for episode in drafts(found[22], torch.zeros(4), 64)] == [4]


def test_the_hint_may_be_kept_and_the_answers_are_learnt_after_it() -> None:
    kept = played(replace(REPLAY, strip=False), [22], Round())[22]
    assert [response.prompt for response in kept.responses] == [(5,), (5,), (5, CATEGORY_HINT), (5, CATEGORY_HINT)]
    episodes = drafts(kept, torch.tensor([-1.0, -2.0, 1.0, 2.0]), 64)
    assert [(episode.tree.prompt, episode.advantage.tolist()) for episode in episodes] == [
        ((5,), [-1.0, -1.0, -2.0, -2.0]),
        ((5, CATEGORY_HINT), [1.0, 1.0, 2.0, 2.0]),
    ]


def test_an_answer_that_repeats_its_hint_is_not_learnt() -> None:
    round = Round()
    assert played(replace(REPLAY, leaks=lambda request, response: response.tokens[0] == 22), [22], round) == {}
    assert round.memory[RETRIES] == [[0, 0]]


def test_the_hardest_groups_are_guided_first_and_none_at_the_end_of_the_training() -> None:
    def triggered(replay: GuidedReplay, progress: float) -> float:
        round = Round(progress=progress)
        played(replay, [20, 22, 21, 23], round)
        return round.tally.means()["agrl/triggered"]

    assert [triggered(replace(REPLAY, share=share), 0.0) for share in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.25, 0.5, 0.75]
    assert [triggered(replace(REPLAY, share=FADING), progress) for progress in (0.0, 0.8, 0.81, 1.0)] == [
        0.25,
        0.25,
        0,
        0,
    ]
    # 21 has one right answer in four, which is hard below 0.3 but easier than the others.
    eager = replace(REPLAY, threshold=0.3, share=0.75)
    assert firsts(played(eager, [21, 20, 22, 23], Round())[21]) == [21, 9, 8, 7]


def test_a_request_that_no_hint_helps_waits_for_a_later_epoch_and_takes_the_place_of_a_group_that_is_learnt() -> None:
    round = Round()
    assert set(played(REPLAY, [24, 25, 21], round)) == {25, 21}
    assert round.memory == {RETRIES: [[0, 0]], GUIDED: []}
    again = Round(memory=round.memory)
    assert set(played(REPLAY, [24, 25, 21], again)) == {25, 21}  # the same epoch: it is not due
    assert again.memory[RETRIES] == [[0, 0]]
    later = Round(epoch=1, memory=round.memory)
    found = played(REPLAY, [22, 25, 21], later)  # in place 0 there is another request now, which a hint helps
    assert set(found) == {22, 21}
    assert later.tally.means()["agrl/retried"] == pytest.approx(1 / 3)
    assert later.memory == {RETRIES: [], GUIDED: [0]}


def test_how_well_requests_do_that_were_guided_once_is_logged() -> None:
    round = Round(memory={GUIDED: [1]})
    played(REPLAY, [20, 21], round)
    assert round.tally.means()["agrl/once_guided_accuracy"] == 0.25


def test_the_ratio_may_be_taken_against_the_hinted_policy_that_wrote_the_answer() -> None:
    hinted = Response((7, 2), (5,), behaviour=(-0.25, -0.5))
    mixed = Group(Request((5,)), (Response((8, 2), (5,)), hinted))
    known, _ = with_old(tiny_qwen(0), drafts(mixed, torch.zeros(2), 64), 0, 64, 1.0)
    assert known[0].old[2:].tolist() == [-0.25, -0.5]
    assert (known[0].old[:2] < 0).all() and not known[0].old.isnan().any()


# In a training

SAMPLING = Sampling(responses=4, max_tokens=3, end=2)
ROUNDS: PolicyConfig = replace(POLICY, rounds=8, row_tokens=48, checkpoint_rounds=3)
QUESTIONS = [Request((5 + n % 7, 9 + n % 3), 18 + n) for n in range(8)]


def grade_leniently(group: Group) -> Tensor:
    """Of every other request any answer is right: its group teaches nothing."""
    return grade(group) if group.request.context % 2 else torch.ones(len(group.responses), len(SLOTS))


def small_agrl() -> Variant:
    def to_label(request: Request, slot: str) -> Tokens | None:
        return (request.context, request.context) if slot == "label" else None

    replay = GuidedReplay(to_label, replace(SAMPLING, responses=16), share=0.5)
    return replace(agrl(SAMPLING, by_group(grade_leniently), replay), surrogate=Surrogate(kl=0.02))


def trained(folder: Path, variant: Variant) -> tuple[TrainedPolicy, Lines, dict[str, Tensor]]:
    model = tiny_qwen(seed=0)
    found, lines = optimise(folder, variant, ROUNDS, model=model, requests=QUESTIONS)
    return found, lines, trainable(model)


@pytest.mark.parametrize("killed_in", [2, 5])
@pytest.mark.parametrize("when", ["replay", "updates"])
def test_a_run_with_a_list_of_retries_that_was_killed_ends_with_the_bits_of_a_straight_one(
    tmp_path: Path, killed_in: int, when: str
) -> None:
    variant = small_agrl()
    waiting: list[Any] = []

    def watched(killed_in: int | None = None) -> Variant:
        def stop(place: str, round: Round) -> None:
            if (place, round.number) == (when, killed_in):
                os.kill(os.getpid(), signal.SIGTERM)

        def replay(groups: Sequence[Group], actor: Actor, round: Round) -> Sequence[Group]:
            waiting.append(round.memory.get(RETRIES))
            stop("replay", round)
            return variant.replay(groups, actor, round)

        def advantage(groups: Sequence[Group], round: Round) -> Sequence[Tensor]:
            stop("updates", round)
            return variant.advantage(groups, round)

        return replace(variant, replay=replay, advantage=advantage)

    _, expected, weights = trained(tmp_path / "straight", watched())
    straight = list(waiting)
    assert any(straight) and any(line.get("agrl/retried", 0.0) > 0 for line in expected)
    with pytest.raises(Preempted):
        trained(tmp_path / "killed", watched(killed_in))
    # In the replay the round has not been; in the updates it is finished.
    next_round = killed_in + (when == "updates")
    assert (read_cursor(places(tmp_path / "killed")[0]) or {})["memory"][RETRIES] == straight[next_round]
    waiting.clear()
    resumed, lines, ended = trained(tmp_path / "killed", watched())
    assert resumed.resumed_from == next_round
    assert waiting == straight[next_round:]
    assert_same(lines, expected, rel=0, abs=0)
    assert all(torch.equal(weight, ended[name]) for name, weight in weights.items())


def test_the_trainer_runs_it_and_logs_what_its_parts_count(tmp_path: Path) -> None:
    _, lines, _ = trained(tmp_path, small_agrl())
    rounds = [line for line in lines if "round" in line]
    logged = {
        "agrl/triggered",
        "agrl/accepted_2",
        "agrl/accuracy",
        "agrl/rule_adherence",
        "reward/rules",
        "kept_groups",
    }
    assert len(rounds) == 8
    assert logged <= set().union(*rounds)
