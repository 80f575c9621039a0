"""The mixture: what it is made of, what it learns, what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import LeftOut
from training.ranker.candidates import Candidates, Depth, candidates, places
from training.ranker.features import Facts, Table, features, of_the_store
from training.ranker.learner import Labelled, LearnerConfig, Ranker
from training.ranker.signals import base
from training.ranker.signals.base import Learnt, Pairs, Questions, Said
from training.ranker.signals.covisit import CoVisit
from training.ranker.signals.personal import Personal
from training.ranker.signals.popularity import Popularity

CONFIG = LearnerConfig(rounds=60, patience=20, num_leaves=(7,), min_data_in_leaf=5)


def _items(*sequence: int) -> np.ndarray:
    return np.array(sequence, dtype=np.int64)


SHOP = Learnt(5, [_items(0, 1, 2), _items(0, 1), _items(3, 1)], [_items(0, 1, 2), _items(4, 5), _items(5, 6)])
SIGNALS = {
    "popularity": Popularity.fit(SHOP),
    "personal": Personal.fit(SHOP),
    "forward": CoVisit.fit(SHOP, "forward", 1),
}


def test_candidates_are_what_any_signal_names_each_once_with_its_place_in_each() -> None:
    asked = Questions([_items(0), _items()])
    found = candidates(SIGNALS, asked, Depth(signal=2, popularity=1))
    assert list(zip(found.pairs.questions.tolist(), found.pairs.items.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 1),
    ]
    assert found.scores["popularity"].tolist() == [2, 3, 3]
    assert found.ranks["popularity"].tolist() == [2, 1, 1]
    assert np.isnan(found.ranks["personal"]).tolist() == [False, True, True]
    left = candidates(SIGNALS, asked, Depth(2, 1), None, [_items(0), _items()])
    assert left.pairs.items.tolist() == [1, 1]
    allowed = np.array([True, False, False, True, True])
    assert 1 not in candidates(SIGNALS, asked, Depth(2, 1), allowed).pairs.items


def test_each_signal_works_out_once_what_it_says_of_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out: list[int] = []

    class Counted(Popularity):
        def said(self, asked: Questions) -> Said:
            worked_out.append(len(asked))
            return super().said(asked)

    monkeypatch.setattr(base, "_QUESTIONS_AT_ONCE", 2)
    asked, signals = Questions([_items(0), _items(), _items(1)]), {**SIGNALS, "popularity": Counted.fit(SHOP)}
    found = candidates(signals, asked, Depth(2, 1), None, [_items(), _items(1), _items()])
    features(signals, found, asked, Facts.of(SHOP, [{"price": None, "category": None}] * 5))
    assert worked_out == [2, 1]
    assert found.best["popularity"].tolist() == [3, 3, 3]  # of all items, what may be ranked or not
    assert found.best["forward"].tolist() == pytest.approx([np.log(3), 0, np.log(2)])
    assert [list(found.pairs.items[found.pairs.questions == n]) for n in range(3)] == [[0, 1], [], [1, 2]]


def test_places_count_within_a_question() -> None:
    scores = np.array([1, 3, 0, 2, 5], dtype=np.float32)
    assert places(_items(0, 0, 0, 1, 1), scores, np.ones(5, dtype=bool)).tolist()[:2] == [2, 1]
    assert places(_items(0, 0, 1), scores[[0, 0, 4]], np.ones(3, dtype=bool)).tolist() == [1, 2, 1]
    # The second of the first question does not count: nobody stands behind it.
    counted = np.array([True, False, True, True, False])
    found = places(_items(0, 0, 0, 1, 1), np.array([1, 3, 2, 2, 5], dtype=np.float32), counted)
    assert found.tolist() == [2, 1, 1, 1, 1]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), max_size=6))
def test_what_is_joined_to_the_candidates_moves_none_of_their_places(wanted: list[tuple[int, int]]) -> None:
    asked = Questions([_items(0, 2), _items(3)])
    owners, numbers = (_items(*column) for column in zip(*sorted(wanted), strict=True)) if wanted else (_items(),) * 2
    alone = candidates(SIGNALS, asked, Depth(signal=1, popularity=1))
    found = candidates(SIGNALS, asked, Depth(signal=1, popularity=1), joined=Pairs(owners, numbers))

    def told(one: Candidates) -> dict[tuple[int, int], list[float]]:
        keys = zip(one.pairs.questions.tolist(), one.pairs.items.tolist(), strict=True)
        columns = [*one.scores.values(), *one.ranks.values()]
        return {key: [float(column[row]) for column in columns] for row, key in enumerate(keys)}

    assert set(told(found)) == {*told(alone), *wanted}
    for key, values in told(alone).items():
        np.testing.assert_equal(told(found)[key], values)


def test_features_by_hand() -> None:
    items = [{"price": price, "category": kind} for price, kind in
             [(1.0, "a > pens"), (3.0, "pens"), (None, None), (7.0, "ink"), (2.0, "ink")]]  # fmt: skip
    asked = Questions([_items(0, 3, 0), _items()])
    found = candidates(SIGNALS, asked, Depth(3, 2))
    table = features(SIGNALS, found, asked, Facts.of(SHOP, items))
    at = {
        (question, item): dict(zip(table.names, line.tolist(), strict=True))
        for question, item, line in zip(found.pairs.questions, found.pairs.items, table.values, strict=True)
    }
    one = at[0, 1]
    assert one["history.length"] == 3
    assert one["history.repeats"] == pytest.approx(1 / 3)
    assert one["history.count_of_the_last"] == 2
    assert one["category.share"] == pytest.approx(2 / 3)
    assert one["price.to_the_usual"] == pytest.approx(np.log(4 / 2))
    assert one["age.days"] == 5  # first taken on day 1, the last day is 6
    assert one["forward.of_the_last"] == pytest.approx(np.log(3))
    assert one["forward.share"] == 1.0
    assert at[1, 1]["history.length"] == 0
    again = at[0, 0]
    assert [again[f"personal.{name}"] for name in ("count", "since", "due")] == [2, 0, 0]
    assert one["personal.count"] == 0 and np.isnan([one["personal.since"], one["personal.due"]]).all()
    assert np.isnan(at[1, 1]["category.share"])
    bare = features(SIGNALS, found, asked, Facts.of(SHOP, [{"price": None, "category": None}] * 5))
    assert not any(name.startswith(("price", "category")) for name in bare.names)


def test_what_is_taken_again_and_again_is_due() -> None:
    asked = Questions([_items(0, 1, 2), _items(2)], [_items(0, 1, 0, 1), _items()])
    found = candidates(SIGNALS, asked, Depth(5, 5))
    table = features(SIGNALS, found, asked, Facts.of(SHOP, [{"price": None, "category": None}] * 5))
    columns = [table.names.index(f"personal.{name}") for name in ("count", "since", "due")]
    pairs = zip(found.pairs.questions.tolist(), found.pairs.items.tolist(), strict=True)
    at = dict(zip(pairs, table.values[:, columns].tolist(), strict=True))
    # Of the first user is known: 0 1 0 1, whose end the history tells again, then 2.
    assert (at[0, 0], at[0, 1], at[0, 2][:2]) == ([2, 2, 1], [2, 1, 0.5], [1, 0])
    assert at[1, 2][:2] == [1, 0] and np.isnan([at[0, 2][2], at[1, 2][2]]).all()


def test_what_the_store_says_of_a_user_is_a_group_of_features_of_all_candidates_and_free_of_direction() -> None:
    said = {"user_daily__events_30d": np.array([7.0, np.nan], dtype=np.float32)}
    asked = Questions([_items(0, 1), _items()], store_features=said)
    found = candidates(SIGNALS, asked, Depth())
    table = features(SIGNALS, found, asked, Facts.of(SHOP, [{"price": None, "category": None}] * 5))
    own = table.names.index("store.user_daily__events_30d")
    of_first = found.pairs.questions == 0
    assert of_first.any() and (~of_first).any()
    assert set(table.values[of_first, own].tolist()) == {7.0} and np.isnan(table.values[~of_first, own]).all()
    assert table.directions(("personal",))[own] == 0
    assert of_the_store(table.names) == ("user_daily__events_30d",)
    parts = [part.store_features["user_daily__events_30d"].tolist()[:1] for _, part in asked.parts(5)]
    assert parts == [[7.0]]


def _labelled(questions: int, seed: int, names: tuple[str, ...] = ("good.score", "noise.score")) -> Labelled:
    """Ten candidates each; the larger the first feature, the more often it is taken; one of four questions has none."""
    rng = np.random.default_rng(seed)
    good, noise = rng.normal(size=(2, questions, 10))
    taken = np.zeros((questions, 10), dtype=bool)
    taken[np.arange(questions), (good + rng.gumbel(size=good.shape)).argmax(axis=1)] = True
    taken[::4] = False
    values = np.stack([good.ravel(), noise.ravel()], axis=1).astype(np.float32)
    return Labelled(Table(names, values), np.repeat(np.arange(questions), 10), taken.ravel())


def test_larger_trees_stay_where_what_is_held_back_needs_them_and_not_where_chance_likes_them() -> None:
    """Of two signs an item is taken where they agree: two leaves see neither, four see both. Noise needs no leaves."""

    def settled(made: Callable[[int], Labelled], *leaves: int) -> str:
        config = replace(CONFIG, num_leaves=leaves, rounds=30, learning_rate=0.3, feature_fraction=1.0)
        learnt = Ranker.fit(made(1), made(2), config, seed=3)
        return str(learnt.trees.model_to_string()).partition("parameters:")[0]

    def agreeing(seed: int) -> Labelled:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (400, 4, 2)).astype(np.float32)
        signs[:, 1:, 1] = -signs[:, 1:, 0]
        signs[:, 0, 1] = signs[:, 0, 0]
        return Labelled(Table(("a.b", "c.d"), signs.reshape(-1, 2)), np.repeat(np.arange(400), 4), _first_of(4, 400))

    def noise(seed: int) -> Labelled:
        values = np.random.default_rng(seed).normal(size=(1600, 2)).astype(np.float32)
        return Labelled(Table(("a.b", "c.d"), values), np.repeat(np.arange(400), 4), _first_of(4, 400))

    assert settled(agreeing, 2, 4) == settled(agreeing, 4) != settled(agreeing, 2)
    assert settled(noise, 2, 3, 4, 5, 6) == settled(noise, 2)


def _first_of(candidates: int, questions: int) -> np.ndarray:
    return np.tile(np.arange(candidates) == 0, questions)


@pytest.mark.parametrize(("sign", "falls"), [(1.0, False), (-1.0, True)], ids=["speaks for it", "speaks against it"])
def test_whether_what_everybody_takes_is_the_likelier_item_the_held_back_questions_say(
    sign: float, falls: bool
) -> None:
    """Popularity alone tells which of ten items is taken: the most popular one, or the least."""
    names = ("noise.score", "popularity.score")
    made = (_labelled(600, seed, names=("popularity.score", "noise.score")) for seed in (1, 2))
    learnt, stop = (
        Labelled(Table(names, one.table.values[:, ::-1] * np.float32([1, sign])), one.questions, one.taken)
        for one in made
    )
    ranker = Ranker.fit(learnt, stop, CONFIG, seed=3)
    rising = np.stack([np.zeros(100), np.linspace(-3, 3, 100)], axis=1).astype(np.float32)
    scores = ranker.scores(Table(names, rising))
    assert (scores[-1] < scores[0]) == falls and abs(scores[-1] - scores[0]) > 0.5


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker.fit(_labelled(600, 1), _labelled(600, 2), CONFIG, seed=3)


def test_it_learns_which_feature_tells(ranker: Ranker) -> None:
    test = _labelled(300, 5)
    scores = ranker.scores(test.table).reshape(-1, 10)
    assert np.corrcoef(scores.ravel(), test.table.values[:, 0])[0, 1] > 0.9
    first = test.taken.reshape(-1, 10)[np.arange(300), scores.argmax(axis=1)].mean()
    assert first > 2 * test.taken.mean()


def test_a_probability_is_how_often_such_an_item_is_taken(ranker: Ranker) -> None:
    test = _labelled(3000, 7)
    chances = ranker.probabilities(ranker.scores(test.table))
    assert chances.mean() == pytest.approx(test.taken.mean(), abs=0.01)
    for low, high in ((0.0, 0.05), (0.05, 0.15), (0.15, 1.0)):
        own = (chances >= low) & (chances < high)
        assert chances[own].mean() == pytest.approx(test.taken[own].mean(), abs=0.03)
    order = np.argsort(ranker.scores(test.table))
    assert (np.diff(chances[order]) >= 0).all()
    assert ranker.probabilities(np.array([-1e9, 1e9], dtype=np.float32)).tolist() == [chances.min(), chances.max()]


def test_reasons_add_up_to_the_score(ranker: Ranker) -> None:
    table = _labelled(20, 9).table
    groups, found = ranker.reasons(table)
    assert groups == ("good", "noise")
    beside = ranker.scores(table) - found.sum(axis=1)
    assert beside == pytest.approx(np.full(len(beside), beside[0]), abs=1e-4)
    assert np.abs(found[:, 0]).mean() > 5 * np.abs(found[:, 1]).mean()


def test_over_what_was_learnt_from_each_group_adds_nothing_in_the_mean() -> None:
    learnt = _labelled(400, 1)
    ranker = Ranker.fit(learnt, _labelled(200, 2), replace(CONFIG, bagging_fraction=1.0), seed=3)
    table = learnt.answerable().table
    _, found = ranker.reasons(table)
    assert found.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-3)
    assert np.abs(found).mean(axis=0)[0] > 0.05
    shap = ranker.trees.predict(table.values, pred_contrib=True)
    assert np.corrcoef(found[:, 0], np.asarray(shap)[:, 0])[0, 1] > 0.9


def test_what_the_shop_no_longer_tells_is_unknown_and_what_is_new_is_read_over(ranker: Ranker) -> None:
    table = _labelled(10, 11).table
    more = Table(("new.score", *reversed(table.names)), np.column_stack([table.values[:, 0], table.values[:, ::-1]]))
    assert ranker.scores(more).tolist() == ranker.scores(table).tolist()
    unknown = np.column_stack([table.values[:, 0], np.full(len(table.values), np.nan)]).astype(np.float32)
    without = ranker.scores(Table(("good.score",), table.values[:, :1]))
    assert without.tolist() == ranker.scores(Table(table.names, unknown)).tolist()


def test_what_is_written_ranks_as_what_was_learnt(ranker: Ranker, tmp_path: Path) -> None:
    assert not Ranker.there_is_one(tmp_path)
    ranker.save(tmp_path)
    again, table = Ranker.load(tmp_path), _labelled(20, 13).table
    assert again.scores(table).tolist() == ranker.scores(table).tolist()
    assert again.probabilities(again.scores(table)).tolist() == ranker.probabilities(ranker.scores(table)).tolist()


def test_the_same_seed_gives_the_same_trees() -> None:
    first, second = (Ranker.fit(_labelled(100, 1), _labelled(100, 2), CONFIG, seed=3) for _ in range(2))
    assert first.trees.model_to_string() == second.trees.model_to_string()


def test_without_one_answer_among_the_candidates_there_is_nothing_to_learn() -> None:
    learnt = _labelled(40, 1)
    nothing = Labelled(learnt.table, learnt.questions, np.zeros_like(learnt.taken))
    for pair in ((nothing, learnt), (learnt, nothing)):
        with pytest.raises(LeftOut, match="no signal names"):
            Ranker.fit(*pair, CONFIG, seed=3)


def test_what_a_signal_says_of_an_item_never_speaks_against_it(ranker: Ranker) -> None:
    """Whatever the data; but of what a user had before, the data decide."""
    names = ("good.score", "noise.score")
    rising = np.stack([np.linspace(-3, 3, 200), np.zeros(200)], axis=1).astype(np.float32)
    assert (np.diff(ranker.scores(Table(names, rising))) >= 0).all()
    told = Table(("forward.score", "text.rank", "personal.score", "personal.rank", "price.value", "age.days"), rising)
    assert told.directions(("personal",)) == [1, -1, 0, 0, 0, 0]
    backwards = _labelled(60, seed=1, names=names)
    against = Labelled(Table(names, -backwards.table.values), backwards.questions, backwards.taken)
    learnt = Ranker.fit(against, against, LearnerConfig(rounds=30, min_data_in_leaf=5), seed=1)
    assert (np.diff(learnt.scores(Table(names, rising))) >= 0).all()
