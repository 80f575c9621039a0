"""A business's reward and a judge's: each way to learn from both, and who is judged."""

from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.core.policy.advantages import standardise
from training.core.policy.groups import Group, Request, Response, Round
from training.core.policy.rewards import Term, by_group, pooled, rewarded
from training.core.policy.rollouts import Sampling
from training.core.policy.variants.two_rewards import Fusion, is_judged, judged, two_rewards

SAMPLING = Sampling(responses=4, max_tokens=3, end=2)
BUSINESS, SEMANTIC = torch.tensor([1.0, 0.0, 0.0, -1.0]), torch.tensor([0.2, 0.9, 0.4, 0.1])


def group(place: int = 0) -> Group:
    return Group(Request((5,), place=place), tuple(Response((7,), (5,)) for _ in range(4)))


def fixed(name: str, *values: Tensor | None, weight: float = 1.0) -> Term:
    return Term(name, weight, lambda groups: [values[one.request.place] for one in groups])


def advantages(fusion: Fusion, business: Tensor, *semantic: Tensor | None, weight: float = 1.0) -> list[list[float]]:
    groups = [group(place) for place in range(len(semantic))]
    paid = fixed("paid", *[business] * len(semantic))
    variant = two_rewards(fusion, SAMPLING, [paid], fixed("judge", *semantic, weight=weight))
    found = variant.advantage(rewarded(groups, variant.rewards, 0.0), Round())
    return [advantage.tolist() for advantage in found]


def z(values: Tensor) -> Tensor:
    return standardise(values, ddof=0, eps=1e-8)


def test_each_way_is_its_equation() -> None:
    def of(fusion: Fusion, weight: float = 1.0) -> Any:
        return advantages(fusion, BUSINESS, SEMANTIC, weight=weight)[0]

    assert of("business") == pytest.approx(z(BUSINESS).tolist())
    assert of("reward_sum", 2.0) == pytest.approx(z(BUSINESS + 2.0 * SEMANTIC).tolist())
    both = z(BUSINESS) + 2.0 * z(SEMANTIC)
    assert of("advantage_sum", 2.0) == pytest.approx(both.tolist())
    assert of("gdpo", 2.0) == pytest.approx((both / both.std(correction=0)).tolist())
    # Business standardised by the population's deviation: +-1.4142, 0, 0; the judge's last value is -1.0 and agrees.
    b, s = z(BUSINESS), z(SEMANTIC)
    agreed = b[3] + s[3] * s[3].abs() / b[3].abs()
    assert of("a2po") == pytest.approx([float(b[0]), 0.0, 0.0, float(agreed)])


@pytest.mark.parametrize("fusion", get_args(Fusion))
def test_a_request_that_is_not_judged_learns_from_business_alone(fusion: Fusion) -> None:
    judged_one, plain = advantages(fusion, BUSINESS, SEMANTIC, None)
    alone = torch.tensor(plain)
    expected = z(BUSINESS)
    assert (alone / alone[0]).tolist() == pytest.approx((expected / expected[0]).tolist())
    assert (judged_one == pytest.approx(plain)) == (fusion == "business")


@pytest.mark.parametrize("fusion", ["business", "reward_sum", "advantage_sum", "a2po"])
def test_where_nobody_is_judged_every_way_is_the_same_however_close_together_the_rewards_lie(fusion: Fusion) -> None:
    """As a ranker's chances of misses do; GDPO has one scale for the whole batch besides."""
    close = torch.tensor([3e-4, 1e-4, 2e-4, 1e-4])
    assert advantages(fusion, close, None, None) == advantages("a2po", close, None, None)


def test_a_reward_on_another_scale_drowns_the_other_in_a_sum_and_nowhere_else() -> None:
    moved = {
        fusion: torch.tensor(advantages(fusion, BUSINESS, 100.0 * SEMANTIC)[0])
        - torch.tensor(advantages(fusion, BUSINESS, SEMANTIC)[0])
        for fusion in get_args(Fusion)
    }
    still = {fusion for fusion, difference in moved.items() if float(difference.abs().max()) < 2e-3}
    assert still == {"business", "advantage_sum", "gdpo", "a2po"}


@given(st.integers(0, 10_000), st.integers(0, 5), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_smaller_share_is_a_part_of_a_larger_one(place: int, seed: int, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert not is_judged(place, less, seed) or is_judged(place, more, seed)


def test_the_judge_is_asked_about_its_share_alone_and_once_a_round_even_about_nobody() -> None:
    calls: list[list[int]] = []

    def ask(groups: Any) -> list[Tensor]:
        calls.append([one.request.place for one in groups])
        return [torch.full((4,), float(one.request.place)) for one in groups]

    some = judged(ask, 0.2, seed=3)
    said = some([group(place) for place in range(400)])
    assert calls[0] == [place for place in range(400) if is_judged(place, 0.2, 3)]
    assert 50 < len(calls[0]) < 110
    for place, values in enumerate(said):
        assert (values is not None) == (place in calls[0])
        assert values is None or values[0] == place
    assert some([]) == [] and calls[1] == []


def test_terms_that_are_pooled_are_watched_and_their_sum_is_one_reward() -> None:
    terms = [fixed("a", BUSINESS, weight=2.0), Term("b", 0.5, by_group(lambda one: SEMANTIC))]
    (found,) = rewarded([group()], pooled("both", terms), 0.0)
    assert found.total().tolist() == pytest.approx((2.0 * BUSINESS + 0.5 * SEMANTIC).tolist())
    assert {name: reward.weight for name, reward in found.rewards.items()} == {"a": 0.0, "b": 0.0, "both": 1.0}
