"""What each signal says, by hand, against a peer, and as a property: a list of its own is its scores, sorted."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.core.errors import LeftOut
from training.ranker.signals import base
from training.ranker.signals.base import Learnt, Pairs, Questions, Signal
from training.ranker.signals.covisit import CoVisit
from training.ranker.signals.personal import Personal
from training.ranker.signals.popularity import Popularity
from training.ranker.signals.sasrec import Chances, SASRec
from training.ranker.signals.self_attention import (
    Average,
    Network,
    SASRecConfig,
    batches,
    directions,
    padded,
    pieces_of,
    sampled_softmax,
    windows,
)
from training.ranker.signals.text import TextSimilarity, tf_idf
from training.ranker.signals.validation import Validation

SMALL = SASRecConfig(width=16, length=6, dropout=0.0, negatives=8, learning_rate=0.01, batch_size=8, epochs=60)


def rows(*sequences: list[int]) -> list[Any]:
    return [np.array(sequence, dtype=np.int64) for sequence in sequences]


def learnt(catalogue: int, *sequences: list[int], days: list[list[int]] | None = None) -> Learnt:
    when = days or [list(range(len(sequence))) for sequence in sequences]
    return Learnt(catalogue, rows(*sequences), rows(*when))


def score(signal: Signal, history: list[int], item: int) -> float:
    return float(signal.scores(Questions(rows(history)), Pairs(np.array([0]), np.array([item])))[0])


def test_co_visits_count_what_stands_behind_and_weigh_the_newest_most() -> None:
    shop = learnt(4, [0, 1, 2], [0, 1], [3, 0])
    forward = CoVisit.fit(shop, "forward", 1)
    assert score(forward, [0], 1) == pytest.approx(math.log(3))  # twice
    assert score(forward, [1], 0) == 0.0
    assert score(forward, [3, 1], 0) == pytest.approx(math.log(2) / math.log2(3))
    backward = CoVisit.fit(shop, "backward", 1)
    assert score(backward, [1], 0) == pytest.approx(math.log(3))
    assert score(CoVisit.fit(shop, "forward", 2), [0], 2) == pytest.approx(math.log(2))


def test_of_a_long_history_the_last_five_items_count() -> None:
    forward = CoVisit.fit(learnt(7, [0, 6]), "forward", 1)
    assert score(forward, [0, 1, 2, 3, 4], 6) > 0.0
    assert score(forward, [0, 1, 2, 3, 4, 5], 6) == 0.0


def test_what_a_user_takes_most_often_comes_first_and_the_newest_of_equals() -> None:
    personal = Personal.fit(learnt(5))
    asked = Questions(rows([1, 2, 1, 3]), rows([4, 4]))
    pairs, scores = personal.top(asked, 5)
    assert pairs.items.tolist() == [1, 4, 3, 2]
    assert scores.tolist() == pytest.approx([2 + 5 / 7, 2 + 2 / 7, 1 + 6 / 7, 1 + 4 / 7])


def test_a_habit_that_ended_is_forgotten() -> None:
    asked = Questions(rows([2, 1]), rows([0, 0, 0, 1]))
    assert score(Personal.fit(learnt(3)), [0, 0, 1], 0) > score(Personal.fit(learnt(3)), [0, 0, 1], 1)
    pairs, scores = Personal.fit(learnt(3), 2).top(asked, 3)
    assert pairs.items.tolist() == [1, 0, 2]
    assert scores.tolist() == pytest.approx([1 + 2**-1.0, 2**-1.5 + 2**-2 + 2**-2.5, 2**-0.5])


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_what_stands_in_the_past_and_in_the_history_is_known_once(events: list[int], cut: int, start: int) -> None:
    past, history = events[:cut], events[min(cut, start) :]
    (known,) = Questions(rows(history), rows(past)).known()
    # A history may begin as the past ends by chance: then as much is told once as could be the same. An item twice in a
    # row may be one that was viewed and bought on a day, which the past has once.
    assert len(known) <= len(past) + len(history)
    assert known.tolist()[: len(past)] == past
    told, asked = ([item for item, _ in groupby(line)] for line in (known.tolist(), history))
    assert told[len(told) - len(asked) :] == asked
    if len(set(events)) == len(events):
        assert known.tolist() == events


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=12),
    st.integers(1, 12),
    st.integers(0, 12),
)
def test_what_was_viewed_and_bought_on_a_day_is_no_second_past(
    days: list[tuple[int, int]], cut: int, start: int
) -> None:
    """A past has an item once a day, a history as often as something was done with it."""
    days = [(100 * day + item, times) for day, (item, times) in enumerate(days)]  # never the same: told apart for sure
    past, later = [item for item, _ in days[:cut]], days[min(cut - 1, start) :]
    history = [item for item, times in later for _ in range(times)]
    (known,) = Questions(rows(history), rows(past)).known()
    after = [item for item, times in days[cut:] for _ in range(times)]
    assert [item for item, _ in groupby(known.tolist())] == past + [item for item, _ in groupby(after)]
    # Only of the past's last item a history that begins with it cannot say whether it is told again, or anew.
    assert len(known) <= len(past) + len(after) + 2


def test_popularity_looks_back_as_far_as_it_is_told() -> None:
    shop = learnt(3, [0, 1], [0, 2], days=[[1, 9], [2, 10]])
    assert Popularity.fit(shop).counts.tolist() == [2, 1, 1]
    assert Popularity.fit(shop, 2).counts.tolist() == [0, 1, 1]
    assert Popularity.fit(shop, 1).counts.tolist() == [0, 0, 1]
    assert Popularity.fit(learnt(2), 1).counts.tolist() == [0, 0]


@pytest.mark.parametrize("dense", [False, True])
def test_likeness_is_the_sum_of_cosines_and_what_has_no_text_is_like_nothing(dense: bool) -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [0, 0]], dtype=np.float32)
    text = TextSimilarity.fit(vectors if dense else sp.csr_array(vectors))
    assert score(text, [0, 2], 1) == pytest.approx(0.8 + 0.6 / math.log2(3))
    assert score(text, [0], 3) == score(text, [3], 0) == 0.0
    pairs, _ = text.top(Questions(rows([0], [3])), 4)
    assert (pairs.questions.tolist(), pairs.items.tolist()) == ([0, 0], [0, 1])


def test_words_that_few_items_have_weigh_most() -> None:
    vectors = tf_idf(["red pen", "red ink", "red pen case", None])
    near = TextSimilarity.fit(vectors)
    assert score(near, [0], 2) > score(near, [0], 1) > 0.0
    assert np.diff(vectors.indptr).tolist()[-1] == 0
    assert tf_idf([None, ""]).shape == (2, 1)


def test_sasrec_learns_an_order_and_says_nothing_without_a_history() -> None:
    shop = learnt(8, *[[start, (start + 1) % 8, (start + 2) % 8, (start + 3) % 8] for start in range(8)] * 4)
    asked = Questions(rows(*[[n, (n + 1) % 8] for n in range(8)]))
    truth = np.array([(n + 2) % 8 for n in range(8)])
    model = SASRec.fit(shop, SMALL, Validation(asked, truth, rank_own=False))
    pairs, scores = model.top(Questions(rows([0, 1], [], [4])), 1)
    assert (pairs.questions.tolist(), pairs.items.tolist()) == ([0, 2], [2, 5])
    every = Pairs(np.repeat(np.arange(8), 8), np.tile(np.arange(8), 8))
    chances = np.exp(model.scores(asked, every)).reshape(8, 8)
    assert chances.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-4)
    assert model.said(Questions(rows([0, 1]))).best()[0] == pytest.approx(scores[0], abs=1e-5)


def test_sasrec_is_left_out_where_there_is_no_order_to_learn() -> None:
    nothing = Validation(Questions([]), np.empty(0, dtype=np.int64), rank_own=True)
    with pytest.raises(LeftOut, match="two events"):
        SASRec.fit(learnt(3, [0], [1]), SMALL, None)
    with pytest.raises(LeftOut, match="validate"):
        SASRec.fit(learnt(3, [0, 1]), SMALL, nothing)


def test_the_loss_is_the_cross_entropy_of_the_target_beside_what_was_drawn() -> None:
    network = Network(5, SMALL, torch.tensor([0.0, 9.0, 2.0, 4.0, 1.0]))
    with torch.no_grad():
        network.popularity.fill_(0.7)
    states, right, others = torch.randn(3, 16), torch.randn(3, 16), torch.randn(2, 16)
    both = torch.cat([right, others]).expand(3, 5, 16)
    cosines = torch.nn.functional.cosine_similarity(states.unsqueeze(1), both, dim=2) / SMALL.temperature
    known = cosines + 0.7 * torch.log1p(torch.tensor([0.0, 9.0, 2.0, 1.0, 9.0]))
    logits = torch.stack([line[[place, 3, 4]] for place, line in enumerate(known)])
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(3, dtype=torch.long))
    taken, drawn = torch.tensor([1, 2, 3]), torch.tensor([5, 2])
    right_one, others_one = [
        (directions(own), network.popular(items)) for own, items in ((right, taken), (others, drawn))
    ]
    found = sampled_softmax(network.asking(states), right_one, others_one)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_of_equally_likely_items_the_first_of_the_catalogue_are_listed() -> None:
    # Directly: products of equal vectors may differ in their last bit.
    said = Chances(torch.tensor([[0.3, *[1.0] * 5], [0.0] * 6, [0.3, *[1.0] * 5]]), np.array([True, False, True]))
    for n in range(1, 8):
        pairs, scores = said.top(n)
        assert pairs.questions.tolist() == [0] * min(n, 6) + [2] * min(n, 6)
        for question in (0, 2):
            own = pairs.questions == question
            assert [item for item in pairs.items[own] if item] == list(range(1, 6))[: (own & (pairs.items > 0)).sum()]
            assert (np.diff(scores[own]) <= 0).all()
    allowed = np.array([False, False, False, True, True, True])
    assert said.top(2, allowed)[0].items.tolist() == [3, 4, 3, 4]


@given(st.integers(0, 30), st.integers(2, 7))
def test_of_a_long_sequence_each_item_but_the_first_is_a_target_once(size: int, length: int) -> None:
    pieces = [piece.tolist() for piece in windows(np.arange(size), length)]
    assert sorted(item for piece in pieces for item in piece[1:]) == list(range(1, size))
    assert all(2 <= len(piece) <= length and piece == list(range(piece[0], piece[-1] + 1)) for piece in pieces)
    assert not pieces or len(pieces[0]) == min(size, length)


def test_an_epoch_of_a_large_shop_is_a_part_of_it_and_another_each_time() -> None:
    sequences = padded(rows(*[[n, n + 1, n + 2] for n in range(40)]), 6)
    small = replace(SMALL, batch_size=4, events=30)
    epochs = [torch.cat(list(batches(sequences, small))) for _ in range(2)]
    assert [len(epoch) for epoch in epochs] == [10, 10]
    assert epochs[0].tolist() != epochs[1].tolist()
    whole = torch.cat(list(batches(sequences, replace(small, events=120))))
    assert sorted(whole.tolist()) == sorted(sequences.tolist())


def test_what_a_shop_sells_most_is_learnt_and_goes_with_the_weights() -> None:
    shop = learnt(6, *[[start, 0] for start in range(1, 6)] * 4)
    asked = Questions(rows(*[[n] for n in range(1, 6)]))
    model = SASRec.fit(shop, replace(SMALL, epochs=3), Validation(asked, np.zeros(5, dtype=np.int64), rank_own=True))
    assert model.top(asked, 1)[0].items.tolist() == [0] * 5
    assert SASRec.of_arrays(model.arrays()).network.counts.tolist() == pytest.approx(np.log1p(shop.counts).tolist())
    assert model.network.warmth.item() != pytest.approx(-math.log(SMALL.temperature))


def test_one_that_was_packaged_before_counts_were_weighed_answers_as_it_did() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(5, SMALL, torch.tensor([0.0, 9.0, 2.0, 4.0, 1.0])).eval()
    later = ("weights.warmth", "weights.popularity", "weights.counts", "config.events")
    arrays = {name: value for name, value in SASRec(network, 1).arrays().items() if name not in later}
    found = SASRec.of_arrays(arrays).scores(Questions(rows([3, 1])), Pairs(np.zeros(5, dtype=np.int64), np.arange(5)))
    with torch.inference_mode():
        state, items = network.last(rows([3, 1])), network.item.weight[1:]
        expected = (torch.nn.functional.cosine_similarity(state, items) / SMALL.temperature).log_softmax(dim=0)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_average_begins_with_the_newest_step_and_keeps_more_and_more_up_to_its_share() -> None:
    network = Network(5, SMALL)
    average, found = Average(network, 0.2), list[float]()
    for value in (8.0, 0.0, 4.0, 4.0):
        with torch.no_grad():
            network.place.fill_(value)
        average.add(network)
        found.append(float(average.network.place[0, 0].detach()))
    second = 8.0 * 1 / 10
    third = second + (4.0 - second) * 9 / 11
    assert found == pytest.approx([8.0, second, third, third + (4.0 - third) * 0.8])
    assert network.place[0, 0] == 4.0


def test_a_batch_goes_in_pieces_that_hold_each_sequence_once_and_whole() -> None:
    lengths = [2, 6, 2, 3, 2, 2, 5, 2]
    batch = padded(rows(*[[10 * n + place for place in range(length)] for n, length in enumerate(lengths)]), 6)
    pieces = list(pieces_of(batch))
    assert [piece.shape[1] for piece in pieces] == [2, 3, 5, 6]
    assert sorted(item for piece in pieces for item in piece.flatten().tolist() if item) == sorted(
        item for item in batch.flatten().tolist() if item
    )
    assert [piece.tolist() for piece in pieces_of(batch[:1, :2])] == [batch[:1, :2].tolist()]


ITEMS = 9
_HISTORIES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=8), min_size=1, max_size=6)


def _signals(sequences: list[list[int]]) -> dict[str, Signal]:
    shop = learnt(ITEMS, *sequences)
    words = [f"w{item % 4} w{item % 3}" if item % 5 else None for item in range(ITEMS)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(ITEMS, SMALL)
    return {
        "forward": CoVisit.fit(shop, "forward", 3),
        "both": CoVisit.fit(shop, "both", 2),
        "personal": Personal.fit(shop),
        "popularity": Popularity.fit(shop, 3),
        "text": TextSimilarity.fit(tf_idf(words)),
        "sasrec": SASRec(network, 1),
    }


@settings(max_examples=60, deadline=None)
@given(
    _HISTORIES, _HISTORIES, st.integers(1, ITEMS), st.none() | st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS)
)
def test_a_list_is_the_scores_of_all_allowed_items_sorted(
    sequences: list[list[int]], histories: list[list[int]], n: int, allowed: list[bool] | None
) -> None:
    asked, mask = Questions(rows(*histories)), None if allowed is None else np.array(allowed)
    every = Pairs(np.repeat(np.arange(len(histories)), ITEMS), np.tile(np.arange(ITEMS), len(histories)))
    for name, signal in _signals(sequences).items():
        table = signal.scores(asked, every).reshape(len(histories), ITEMS)
        pairs, scores = signal.top(asked, n, mask)
        for question, line in enumerate(table):
            said = [i for i in range(ITEMS) if line[i] != 0 and (mask is None or mask[i])]
            if name == "sasrec" and not histories[question]:
                said = []
            expected = sorted(said, key=lambda item: (-line[item], item))[:n]
            own = pairs.questions == question
            assert scores[own].tolist() == pytest.approx(line[expected].tolist(), abs=1e-5), name
            assert set(pairs.items[own].tolist()) <= set(said), name


@settings(max_examples=20, deadline=None)
@given(_HISTORIES, _HISTORIES)
def test_what_is_written_answers_as_what_was_fitted(sequences: list[list[int]], histories: list[list[int]]) -> None:
    asked = Questions(rows(*histories))
    for signal in _signals(sequences).values():
        again = type(signal).of_arrays(signal.arrays())
        (pairs, scores), (same_pairs, same_scores) = signal.top(asked, 5), again.top(asked, 5)
        assert pairs.items.tolist() == same_pairs.items.tolist()
        assert scores.tolist() == same_scores.tolist()


def test_some_questions_at_a_time_have_the_answers_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Questions(rows([0, 1], [2], [], [3, 4, 5], [1]), rows([1], [], [2, 2], [], []))
    every = Pairs(np.repeat(np.arange(5), ITEMS), np.tile(np.arange(ITEMS), 5))
    signals = _signals([[0, 1, 2, 3], [2, 3, 4]])
    whole = {name: (signal.scores(asked, every), signal.top(asked, 4)[0].items) for name, signal in signals.items()}
    monkeypatch.setattr(base, "_QUESTIONS_AT_ONCE", 2)
    for name, signal in signals.items():
        assert signal.scores(asked, every) == pytest.approx(whole[name][0], rel=1e-5, abs=1e-6), name
        assert signal.top(asked, 4)[0].items.tolist() == whole[name][1].tolist(), name
