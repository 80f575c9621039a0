"""The generator as a signal: its own lists and chances, of the ranker's items, decoded once a question."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pytest

from training.generative_rec.fusion import GENERATOR, Beams, with_generator
from training.next_item.recommender import ListRequest, Ranking, Recommender
from training.ranker.bundle import Bundle
from training.ranker.candidates import Depth, candidates
from training.ranker.features import Facts, features
from training.ranker.signals.base import Learnt, Pairs, Questions
from training.ranker.signals.fitting import Chosen, Fitted
from training.ranker.signals.popularity import Popularity

ITEMS = ["a", "b", "c", "d"]
ASKED = Questions([np.array([0]), np.array([1, 2])], users=["ann", None])


class _Generator(Recommender):
    """Says d, then an item that the shop does not have, then a; it knows no c."""

    catalogue = ("a", "b", "d", "gone")

    def __init__(self) -> None:
        self.asked: list[list[ListRequest]] = []

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        self.asked.append(list(asked))
        line = [("d", math.log(0.5)), ("gone", math.log(0.3)), ("a", -1000.0)][:k]
        return [line for _ in asked]


@pytest.fixture
def bundle() -> Bundle:
    learnt = Learnt(4, [np.array([0, 1, 0])], [np.array([1, 2, 3])])
    items = [{"item_id": item, "price": None, "category": None} for item in ITEMS]
    fitted = Fitted({"popularity": Popularity.fit(learnt)}, Chosen(0, {}, None, None), {})
    return Bundle(ITEMS, fitted, Facts.of(learnt, items), {}, Depth(), True, "time", 0)


def test_a_beam_is_worth_its_probability_and_no_other_item_is_worth_anything(bundle: Bundle) -> None:
    beams = Beams(_Generator(), bundle, 3)
    pairs, chances = beams.top(ASKED, 100)
    assert pairs.questions.tolist() == [0, 0, 1, 1] and pairs.items.tolist() == [3, 0, 3, 0]
    assert chances[0] == pytest.approx(0.5) and 0.0 < chances[1] < 1e-37
    every = Pairs(np.repeat([0, 1], 4), np.tile(np.arange(4), 2))
    assert beams.scores(ASKED, every).tolist() == pytest.approx([chances[1], 0, 0, 0.5] * 2)


def test_a_question_is_decoded_once_with_its_user_and_what_may_be_ranked(bundle: Bundle) -> None:
    generator = _Generator()
    allowed = np.array([True, True, False, False])
    found = candidates(with_generator(bundle, generator, 3).signals, ASKED, Depth(), allowed)
    assert set(found.scores) == {"popularity", GENERATOR} and set(found.pairs.items.tolist()) == {0, 1}
    (asked,) = generator.asked
    assert [(list(one.history), one.user) for one in asked] == [(["a"], "ann"), (["b", "c"], None)]


def test_what_the_generator_says_is_a_group_of_features(bundle: Bundle) -> None:
    fused = with_generator(bundle, _Generator(), 3)
    found = candidates(fused.signals, ASKED, Depth())
    table = features(fused.signals, found, ASKED, fused.facts)
    own = [name for name in table.names if name.startswith(f"{GENERATOR}.")]
    assert own == ["generator.score", "generator.rank", "generator.share"]
    place = {name: table.values[:, table.names.index(name)] for name in own}
    of_d = found.pairs.items == 3
    assert place["generator.rank"][of_d].tolist() == [1.0, 1.0] and place["generator.share"][of_d].tolist() == [1, 1]
    of_b = found.pairs.items == 1
    assert np.isnan(place["generator.rank"][of_b]).all() and not place["generator.score"][of_b].any()


def test_beams_join_the_candidates_and_move_the_places_of_none(bundle: Bundle) -> None:
    """Item 3 is one that nobody took: popularity does not name it, the generator does."""
    alone = candidates(bundle.signals, ASKED, Depth())
    fused = candidates(with_generator(bundle, _Generator(), 3).signals, ASKED, Depth())
    kept = np.isin(fused.pairs.items, alone.pairs.items)
    assert set(fused.pairs.items.tolist()) == {*alone.pairs.items.tolist(), 3}
    assert fused.ranks["popularity"][kept].tolist() == alone.ranks["popularity"].tolist()
    assert fused.ranks[GENERATOR][fused.pairs.items == 3].tolist() == [1.0, 1.0]


def test_beams_that_are_left_out_are_no_candidates(bundle: Bundle) -> None:
    left_out = [np.array([3]), np.array([], dtype=np.int64)]
    fused = candidates(with_generator(bundle, _Generator(), 3).signals, ASKED, Depth(), None, left_out)
    assert fused.pairs.questions[fused.pairs.items == 3].tolist() == [1]
