"""What the trained next-item model must do, in a world where the right answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.behaviour.conftest import GROUPS, SIZE, World, following

ITEMS = [f"{group}-{place}" for group in GROUPS for place in range(SIZE)]


def test_minimum_functionality_the_item_that_always_follows_comes_first(world: World) -> None:
    histories = [[item] for item in ITEMS]
    best = [line[0][0] for line in world.recommender.recommend(histories, 1)]
    assert best == [following(item) for item in ITEMS]


def test_minimum_functionality_without_a_history_there_is_still_a_full_list(world: World) -> None:
    line = world.recommender.recommend([[]], len(ITEMS))[0]
    assert sorted(item for item, _ in line) == sorted(ITEMS)


def test_invariance_the_other_requests_of_a_batch_change_nothing(world: World) -> None:
    history = ["pen-0", "pen-1"]
    alone = world.recommender.recommend([history], 5)[0]
    among = world.recommender.recommend([["ink-3"], history, [], ITEMS], 5)[1]
    assert [item for item, _ in among] == [item for item, _ in alone]
    assert [score for _, score in among] == pytest.approx([score for _, score in alone], abs=1e-4)


def test_invariance_an_item_that_left_the_catalogue_changes_nothing(world: World) -> None:
    model = world.recommender
    assert model.recommend([["gone-1", "pen-0", "gone-2"]], 5) == model.recommend([["pen-0"]], 5)


def test_invariance_a_longer_list_begins_with_the_shorter_one(world: World) -> None:
    model = world.recommender
    assert model.recommend([["ink-2"]], 10)[0][:3] == model.recommend([["ink-2"]], 3)[0]


@pytest.mark.parametrize("group", GROUPS)
def test_directional_a_history_in_a_group_lifts_every_item_of_the_group(world: World, group: str) -> None:
    model = world.recommender
    neutral = dict(model.recommend([[]], len(ITEMS))[0])
    after = dict(model.recommend([[f"{group}-0", f"{group}-1"]], len(ITEMS))[0])
    share = {name: sum(2.718281828 ** scores[f"{group}-{n}"] for n in range(SIZE)) for name, scores in
             (("neutral", neutral), ("after", after))}  # fmt: skip
    assert share["after"] > 2 * share["neutral"]


def test_directional_the_newest_item_counts_more_than_an_older_one_of_another_group(world: World) -> None:
    best = [line[0][0] for line in world.recommender.recommend([["pen-0", "ink-1"], ["ink-1", "pen-0"]], 1)]
    assert best == ["ink-2", "pen-1"]


def test_learned_models_beat_popularity_beyond_their_intervals_where_there_is_something_to_learn(world: World) -> None:
    metrics = json.loads((Path(world.evaluated.out) / "result.json").read_text())["metrics"]
    for model in ("forward", "sft"):
        assert metrics[f"{model}.recall@3.lo"] > metrics["popularity.recall@3.hi"]
    assert metrics["fused.minus.popularity.ndcg@10.lo"] > 0
    assert metrics["sft.recall@1"] > 0.95
