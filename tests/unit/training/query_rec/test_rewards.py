"""Rewards of lists against figures worked out by hand, and what they do in an advantage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.training.query_rec.test_query_lists import LISTS, tokens
from training.core.policy.groups import Group, Request, Response, Round
from training.core.policy.rewards import Term, rewarded
from training.core.policy.variants.il_grpo import SlotAdvantage
from training.query_rec.rewards import (
    References,
    RewardConfig,
    RewardShape,
    length_reward,
    list_terms,
    of_lists,
    query_terms,
    repeated,
    rouge_l,
)

CHANCES = {"red pen": 0.1, "lamp": 0.3, "pen": 0.02, "desk": 0.9}
BOUGHT = {"red pen": 0.25, "lamp": 0.0, "pen": 0.1, "desk": 0.1}
SHAPE = RewardShape(scale=2.0, shortest=4, longest=6)
WORDS = st.lists(st.sampled_from(["red", "pen", "lamp"]), max_size=5).map(" ".join)


def chances(places: Sequence[int], queries: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
    assert set(places) == {7} and all(len(set(own)) == len(own) for own in queries)
    return [np.array([CHANCES[query] for query in own], dtype=np.float32) for own in queries]


def terms_of(config: RewardConfig | None = None) -> list[Term]:
    return [
        *query_terms(LISTS, chances, config or RewardConfig(), SHAPE, lambda query: "pen" in query, BOUGHT.get, "r3"),
        *list_terms(LISTS),
    ]


def group(*answers: Sequence[str] | None) -> Group:
    """Of someone who searched for a red pen and then for a lamp; None answers what is no list."""
    broken = (*tokens("pen"), LISTS.next, LISTS.end)
    written = [broken if answer is None else LISTS.written(answer) for answer in answers]
    request = Request((), References({0: "red pen", 1: "Lamp"}), place=7)
    return Group(request, tuple(Response(one, ()) for one in written))


def test_by_hand() -> None:
    terms = terms_of()
    (found,) = rewarded([group(["red pen", "lamp"], ["pen"], None, ["desk", "pen", "pen"])], terms, 0.0)
    nan, value = float("nan"), {name: reward.value for name, reward in found.rewards.items()}
    expected = {
        "ctr@r3": [[0.2, 0.6, nan], [0.04, nan, nan], [nan] * 3, [1.0, 0.04, 0.04]],  # 2 p, at most 1
        "rouge": [[1.0, 1.0, nan], [2 / 3, nan, nan], [nan] * 3, [0.0, 0.0, 0.0]],
        "length": [[5 / 6, 1.0, nan], [0.75, nan, nan], [nan] * 3, [1.0, 0.75, 0.75]],  # 7, 4 and 3 letters
        "servability": [[1.0, 0.0, nan], [1.0, nan, nan], [nan] * 3, [0.0, 1.0, 1.0]],
        "purchases": [[0.25, 0.0, nan], [0.1, nan, nan], [nan] * 3, [0.1, 0.1, 0.1]],
        "format": [0.0, 0.0, -1.0, 0.0],
        "repetition": [0.0, 0.0, 0.0, -1 / 3],
        "found": [1.0, 0.0, 0.0, 0.0],
    }
    for name, rows in expected.items():
        assert torch.allclose(value[name], torch.tensor(rows), atol=1e-6, equal_nan=True), name


def test_what_is_no_list_learns_that_it_was_none_and_no_list_loses_its_group() -> None:
    terms = terms_of()
    rewards = rewarded([group(["red pen", "lamp"], ["pen", "desk"], None)], terms, 0.0)
    (advantages,) = SlotAdvantage(LISTS.slots)(rewards, Round(0, 0.0))
    lengths = [len(response.tokens) for response in rewards[0].responses]
    broken = advantages[2, : lengths[2]]
    assert (broken < 0).all() and len(set(broken.tolist())) == 1
    first = len(tokens("red pen")) + 1
    assert advantages[0, 0] > advantages[1, 0] and torch.allclose(advantages[0, :first], advantages[0, 0])


@given(WORDS, WORDS)
def test_rouge_is_symmetric_and_1_for_the_same_words_alone(one: str, other: str) -> None:
    assert rouge_l(one, other) == rouge_l(other, one)
    assert (rouge_l(one, other) == 1.0) == (one == other and one != "")


def test_rouge_and_repetition_by_hand() -> None:
    assert rouge_l("red desk lamp", "Red pen lamp") == pytest.approx(2 / 3)
    assert rouge_l("lamp red", "red lamp") == 0.5  # the order counts
    assert repeated(["red pen", "Red Pen", "red pens", "lamp"]) == 0.5  # 6 of 7 pairs of letters are .86
    assert repeated([]) == 0.0 and repeated(["a", "a"]) == 0.5 and repeated(["a", "b"]) == 0.0


def test_length_falls_outside_what_people_type() -> None:
    assert [length_reward(length, 4, 20) for length in (0, 2, 4, 20, 30, 40, 90)] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]


def test_for_a_whole_list_a_term_is_the_mean_of_its_queries_and_0_where_there_is_none() -> None:
    (found,) = rewarded([group(["red pen", "lamp"], ["pen"], None)], of_lists(terms_of()[:5]), 0.0)
    values = {name: reward.value.tolist() for name, reward in found.rewards.items()}
    assert values["ctr@r3"] == pytest.approx([0.4, 0.04, 0.0]) and values["servability"] == [0.5, 1.0, 0.0]


def test_gamma_makes_1_of_the_95th_percentile_and_the_log_says_what_is_long() -> None:
    queries = ["x" * length for length in range(1, 101)]
    shape = RewardShape.of(queries, np.linspace(0.0, 0.2, 101, dtype=np.float32))
    assert shape.scale == pytest.approx(1 / 0.19) and (shape.shortest, shape.longest) == (5, 95)
    assert RewardShape.of(["a"], np.zeros(1, dtype=np.float32)).shortest == 1


@pytest.mark.parametrize(("name", "paid"), [("servability", [0.3, 0.0]), ("purchases", [0.075, 0.0])])
def test_what_is_not_of_the_paper_is_watched_and_weighs_nothing_by_default(name: str, paid: list[float]) -> None:
    (found,) = rewarded([group(["red pen"], ["lamp"])], terms_of(), 0.0)
    assert found.rewards[name].weight == 0.0
    (weighed,) = rewarded([group(["red pen"], ["lamp"])], terms_of(RewardConfig(**{name: 0.3})), 0.0)
    assert weighed.rewards[name].weighted[:, 0].tolist() == pytest.approx(paid)
