"""The ranking reward of next items, worked by hand."""

import pytest

from training.core.policy.groups import Group, Request, Response
from training.core.policy.rewards import rewarded
from training.generative_rec.rewards import RANKING


def group(*responses: tuple[int, ...], truth: tuple[int, ...]) -> Group:
    return Group(Request((1,), truth), tuple(Response(tokens, (1,)) for tokens in responses))


def test_the_ranking_reward_pays_the_hit_and_charges_a_miss_the_more_the_higher_it_stands() -> None:
    beams = rewarded([group((7,), (8,), (9,), truth=(8,))], RANKING, 0.0)[0]
    # 1 / log2(i + 2) is 1, 0.63093, 0.5; their sum is 2.13093
    assert beams.rewards["hit"].value.tolist() == [0.0, 1.0, 0.0]
    assert beams.rewards["rank_penalty"].value.tolist() == pytest.approx([-1 / 2.13093, 0.0, -0.5 / 2.13093], rel=1e-5)
    assert beams.total().tolist() == pytest.approx([-0.469279, 1.0, -0.234639], rel=1e-5)


def test_without_a_hit_the_ranking_reward_is_zero_for_all() -> None:
    assert rewarded([group((7,), (8,), truth=(9,))], RANKING, 0.0)[0].total().tolist() == [0.0, 0.0]
