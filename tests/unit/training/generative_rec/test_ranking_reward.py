"""The rewards of next items, worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest

from tests.unit.training.generative_rec.test_negatives import BOS, ITEMS
from tests.unit.training.ranker_kit import view
from training.core.policy.advantages import GroupAdvantage
from training.core.policy.groups import Group, Request, Response, Round
from training.core.policy.rewards import rewarded
from training.generative_rec.bids import Bids
from training.generative_rec.rewards import RANKING, ecpm, judge_reward, ranker_reward
from training.generative_rec.validation import Example


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


CHANCES = {("i1", "i3"): 0.5, ("i1", "i4"): 0.25, ("i2", "i3"): 0.125, ("i2", "i5"): float("nan")}
EXAMPLES = [Example("u0", (BOS,), 7, ("i1",)), Example("u1", (BOS,), 3, ("i2",))]


def beams(place: int, *items: int) -> Group:
    """What was answered to the example at a place, in a round that asks others before it."""
    request = Request((BOS,), ITEMS.tokens[EXAMPLES[place].item], number=5, place=place)
    return Group(request, tuple(Response(ITEMS.tokens[item], (BOS,)) for item in items))


def test_a_miss_earns_what_the_ranker_gives_it_after_the_history_of_its_request_and_a_hit_nothing_more() -> None:
    term = ranker_reward(0.5, view(lambda history, item: CHANCES[history[-1], item]), ITEMS, EXAMPLES)
    second, first = rewarded([beams(1, 5, 3), beams(0, 3, 4)], [*RANKING, term], 0.0)
    assert first.rewards["ranker"].value.tolist() == [0.5, 0.25]
    assert first.total().tolist() == [0.25, 0.125]  # no hit: nothing else teaches here
    assert second.rewards["ranker"].value.tolist() == [0.0, 0.0]  # it does not know i5, and i3 is the truth
    # 1 / log2(2) of 1 + 1 / log2(3) is the penalty of the first beam.
    assert second.total().tolist() == pytest.approx([-1 / 1.63093, 1.0], rel=1e-5)


def test_a_group_without_a_hit_teaches_what_the_ranker_prefers_and_nothing_without_it() -> None:
    term = ranker_reward(1.0, view(lambda history, item: CHANCES[history[-1], item]), ITEMS, EXAMPLES)
    for terms, learns in ((RANKING, False), ([*RANKING, term], True)):
        advantage = GroupAdvantage()(rewarded([beams(0, 4, 3)], terms, 0.0), Round())[0]
        assert bool(advantage.any()) == learns
    assert advantage[1] > 0.0 > advantage[0]
    assert term.function([]) == []


def test_the_ecpm_is_a_thousand_times_bid_and_chance_and_what_was_taken_was_clicked() -> None:
    day = date(1970, 1, 2)
    asked = [Example("u0", (BOS,), 4, ("i1",), as_of=day), Example("u1", (BOS,), 3, ("i2",), as_of=day)]
    hours = np.array([0, 23, 25]) * 3_600_000_000
    bids = Bids({"i3": (hours, np.array([9.0, 2.0, 50.0])), "i4": (hours[:1], np.array([0.5]))})
    term = ecpm(view(lambda history, item: CHANCES[history[-1], item]), bids, ITEMS, asked)
    request = Request((BOS,), ITEMS.tokens[4], place=0)
    other = Request((BOS,), ITEMS.tokens[3], place=1)
    groups = [
        Group(one, tuple(Response(ITEMS.tokens[item], (BOS,)) for item in items))
        for one, items in ((request, (3, 4)), (other, (5, 3)))
    ]
    first, second = (one.total().tolist() for one in rewarded(groups, [term], 0.0))
    assert first == [1000 * 2.0 * 0.5, 1000 * 0.5]  # the bid of the second day comes an hour after it has begun
    assert second == [0.0, 2000.0]  # nobody pays for i5, which the ranker does not know either


def test_the_judge_is_asked_about_the_items_of_the_request_that_they_answer() -> None:
    class Said:
        def scores(self, places: Sequence[int], items: Sequence[Sequence[str]]) -> list[Any]:
            assert (list(places), [list(own) for own in items]) == ([1, 0], [["i5", "i3"], ["i3", "i4"]])
            return [None, np.array([0.25, 0.75], dtype=np.float32)]

    semantic: Any = Said()
    second, first = rewarded([beams(1, 5, 3), beams(0, 3, 4)], [judge_reward(2.0, semantic, ITEMS)], 0.0)
    assert first.total().tolist() == [0.5, 1.5] and not second.rewards
