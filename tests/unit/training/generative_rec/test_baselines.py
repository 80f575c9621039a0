"""Baselines against numbers worked by hand and a slow, obvious co-visit count."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import replace
from datetime import date
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import DataError
from training.generative_rec.baselines import sasrec
from training.generative_rec.baselines.base import Known
from training.generative_rec.baselines.covisit import (
    COUNTINGS,
    LAST,
    Counting,
    CoVisit,
    Direction,
    asked_to_choose,
    order_matters,
)
from training.generative_rec.baselines.frequency import PersonalFrequency
from training.generative_rec.baselines.popularity import Popularity
from training.generative_rec.baselines.rows import BaselineName, rows
from training.generative_rec.baselines.sasrec import SASRec, SASRecConfig
from training.next_item.samples import NextItem

CATALOGUE = ["a", "b", "c", "d", "e"]
SEQUENCES = st.lists(st.lists(st.sampled_from(CATALOGUE), max_size=9), max_size=8)
HISTORY = st.lists(st.sampled_from(CATALOGUE), max_size=8)


def known(sequences: list[list[str]], **more: Any) -> Known:
    return Known(CATALOGUE, sequences, **more)


def test_popularity_ranks_by_count_then_by_place_in_the_catalogue() -> None:
    ranked = Popularity(known([["c", "c", "b"], ["a"]])).recommend([[]], 4)[0]
    assert ranked == [("c", 2.0), ("a", 1.0), ("b", 1.0), ("d", 0.0)]


def _counts(places: int, counting: Counting) -> bool:
    """Whether an item so many places after another one (before it where negative) counts."""
    sides: dict[Direction, bool] = {"both": True, "forward": places > 0, "backward": places < 0}
    return 0 < abs(places) <= counting.reach and sides[counting.direction]


@given(SEQUENCES, HISTORY, st.sampled_from(COUNTINGS))
def test_covisit_equals_the_double_loop_over_its_definition(
    sequences: list[list[str]], history: list[str], counting: Counting
) -> None:
    together: Counter[tuple[str, str]] = Counter()
    for sequence in sequences:
        for i in range(len(sequence)):
            for j in range(len(sequence)):
                together[sequence[i], sequence[j]] += _counts(j - i, counting)
    expected = {
        item: sum(
            math.log1p(together[seen, item]) / math.log2(2 + place)
            for place, seen in enumerate(reversed(history[-LAST:]))
        )
        for item in CATALOGUE
    }
    found = dict(CoVisit(known(sequences), [counting]).recommend([history], len(CATALOGUE))[0])
    assert found == pytest.approx(expected, rel=1e-5)


def test_covisit_without_a_known_history_falls_back_to_popularity() -> None:
    ranked = CoVisit(known([["b", "c"], ["c", "d"]])).recommend([[], ["gone"]], 3)
    assert [[item for item, _ in line] for line in ranked] == [["c", "b", "d"]] * 2


@given(SEQUENCES, HISTORY)
def test_own_items_are_left_out_where_they_may_not_be_ranked(sequences: list[list[str]], history: list[str]) -> None:
    for model in (CoVisit(known(sequences)), PersonalFrequency(known(sequences))):
        ranked = model.recommend([history], len(CATALOGUE), rank_own=False)[0]
        assert {item for item, _ in ranked} == set(CATALOGUE) - set(history)


def test_covisit_counts_the_way_that_ranks_validation_best() -> None:
    """Everyone goes round a-b-c-d-e: after an item comes the next one, and the one before it never."""
    asked = [_asked((one,), following) for one, following in zip("abcde", "bcdea", strict=True)]
    model = CoVisit(known(CYCLE, validation=asked))
    assert model.choice == ("forward, reach 3", 1.0)
    assert [line[0][0] for line in model.recommend(["a", "b", "c", "d", "e"], 1)] == list("bcdea")
    backwards = CoVisit(known([one[::-1] for one in CYCLE], validation=asked))
    assert backwards.choice == ("backward, reach 3", 1.0)


def test_what_is_chosen_is_what_was_the_best_and_nothing_is_said_where_nothing_was_chosen() -> None:
    asked = [_asked(("a", "b"), "d"), _asked(("c",), "e"), _asked(("e", "b"), "a")]
    model = CoVisit(known(CYCLE, validation=asked))
    qualities = {str(one): CoVisit(known(CYCLE), [one]).gains(asked).mean() for one in COUNTINGS}
    assert model.choice is not None
    assert model.choice.ndcg == qualities[model.choice.words] == max(qualities.values())
    assert CoVisit(known(CYCLE)).choice is None


def test_the_order_matters_where_forward_is_surely_better_and_not_by_chance_or_unasked() -> None:
    asked = [_asked((one,), following) for one, following in zip("abcde", "bcdea", strict=True)] * 4
    users = [replace(sample, user_id=f"u{n}") for n, sample in enumerate(asked)]
    assert order_matters(known(CYCLE, validation=users))
    assert not order_matters(known([one[::-1] for one in CYCLE], validation=users))
    assert not order_matters(known(CYCLE + [one[::-1] for one in CYCLE], validation=users))
    assert not order_matters(known(CYCLE))


@given(st.integers(0, 9000))
def test_at_most_two_thousand_evenly_spread_samples_are_asked_to_choose(count: int) -> None:
    samples = [_asked((), str(n)) for n in range(count)]
    found = [int(sample.item_id) for sample in asked_to_choose(known([], validation=samples))]
    assert len(found) <= 2000 and len(found) >= min(count, 1000)
    assert found == list(range(0, count, found[1] - found[0] if len(found) > 1 else 1))


def test_frequency_ranks_own_items_by_count_then_by_the_last_time_then_the_others_by_popularity() -> None:
    model = PersonalFrequency(known([["e", "e", "d"]]))
    ranked = model.recommend([["a", "b", "c", "b", "a", "c"]], 5)[0]
    assert [item for item, _ in ranked] == ["c", "a", "b", "e", "d"]
    assert dict(ranked) == pytest.approx({"c": 2 + 6 / 7, "a": 2 + 5 / 7, "b": 2 + 4 / 7, "e": 0.0, "d": 0.0})


def test_frequency_knows_what_the_user_did_before_a_history_that_is_cut() -> None:
    model = PersonalFrequency(known([["a"]], pasts={"u1": ["d", "d", "d"]}))
    asked = model.recommend([["b", "c"], ["b", "c"]], 2, users=["u1", "u2"])
    assert [[item for item, _ in line] for line in asked] == [["d", "c"], ["c", "b"]]


def test_every_name_of_a_baseline_has_its_row() -> None:
    assert set(rows(SMALL)) == set(get_args(BaselineName))


CYCLE = [[CATALOGUE[(start + step) % 5] for step in range(6)] for start in range(5)] * 8
SMALL = SASRecConfig(width=16, heads=2, layers=1, length=8, dropout=0.0, learning_rate=1e-2, epochs=30, patience=30)


def _asked(history: tuple[str, ...], item: str) -> NextItem:
    return NextItem("u", date(2018, 1, 1), item, history, "valid")


VALID = [_asked((before, now), after) for before, now, after in zip("abcde", "bcdea", "cdeab", strict=True)]


def test_sasrec_learns_what_follows_what() -> None:
    model = SASRec(known(CYCLE, validation=VALID, seed=1), SMALL)
    best = [line[0][0] for line in model.recommend([sample.history for sample in VALID], 1)]
    assert best == [sample.item_id for sample in VALID]


def test_sasrec_learns_from_a_part_of_a_large_catalogue_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "_SOFTMAX_ITEMS", 3)
    model = SASRec(known(CYCLE, validation=VALID, seed=1), SMALL)
    best = [line[0][0] for line in model.recommend([sample.history for sample in VALID], 1)]
    assert best == [sample.item_id for sample in VALID]


def test_items_that_were_drawn_stand_for_all() -> None:
    items = torch.tensor([[1.0], [2.0], [0.0], [3.0]]).expand(-1, 16) / 16
    states, targets, among = torch.ones(1, 16), torch.tensor([1]), torch.tensor([0, 1])
    # Logits 1, 2, 0, 3. Of the drawn items 0 and 1 the target is left out, and 0 counts twice.
    # -ln(e^2 / (e^2 + 2 e)) = 0.5514
    part = sasrec.cross_entropy(states, items[targets], items[among], targets, among, size=4)
    assert float(part) == pytest.approx(0.5514, abs=1e-4)
    # -ln(e^2 / (e + e^2 + 1 + e^3)) = 1.4402
    whole = sasrec.cross_entropy(states, items[targets], items, targets, None, size=4)
    assert float(whole) == pytest.approx(1.4402, abs=1e-4)


@pytest.mark.parametrize("softmax_items", [4, 100])
def test_parts_of_the_positions_teach_what_all_of_them_at_once_do(
    monkeypatch: pytest.MonkeyPatch, softmax_items: int
) -> None:
    monkeypatch.setattr(sasrec, "_SOFTMAX_ITEMS", softmax_items)
    model = SASRec(known(CYCLE, validation=VALID, seed=1), dataclasses.replace(SMALL, epochs=0))
    network, states, targets = (
        model._network,
        torch.randn(7, 16, requires_grad=True),
        torch.tensor([0, 1, 2, 3, 4, 0, 1]),
    )

    def gradients(at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(sasrec, "rows_at_once", lambda width: at_once)
        network.zero_grad()
        states.grad = None
        torch.manual_seed(2)
        model._learn(states, targets)
        assert states.grad is not None and network.item.weight.grad is not None
        return states.grad.clone(), network.item.weight.grad.clone()

    whole = gradients(100)
    assert all(float(one.abs().sum()) > 0 for one in whole)
    for at_once in (1, 3):
        for found, expected in zip(gradients(at_once), whole, strict=True):
            torch.testing.assert_close(found, expected)
    if softmax_items == 100:  # the whole catalogue: what autograd says of the plain loss
        network.zero_grad()
        fresh = states.detach().requires_grad_()
        torch.nn.functional.cross_entropy(network.logits(fresh), targets).backward()
        torch.testing.assert_close(fresh.grad, whole[0])
        torch.testing.assert_close(network.item.weight.grad, whole[1])


def test_sasrec_knows_what_a_user_without_a_history_begins_with() -> None:
    begun = [["a", *rest] for rest in ("b", "c", "d", "e")] * 20
    config = dataclasses.replace(SMALL, epochs=20)
    model = SASRec(known(begun, validation=[_asked((), "a")], seed=1), config)
    assert model.recommend([[]], 1)[0][0][0] == "a"


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5), st.integers(1, 6))
def test_the_best_of_equal_scores_are_those_of_a_full_sort(scores: list[int], k: int) -> None:
    model = Popularity(known([["c", "c", "b"], ["a"]]))
    values = np.array(scores, dtype=np.float32)
    model.scores = lambda histories: values[None].copy()  # type: ignore[method-assign]
    expected = sorted(range(5), key=lambda row: (-scores[row], -model.popularity[row], row))[:k]
    assert [item for item, _ in model.recommend([[]], k)[0]] == [CATALOGUE[row] for row in expected]


def test_sasrec_is_the_same_for_the_same_seed_and_leaves_the_global_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    asked = known(CYCLE, validation=VALID, seed=3)
    first, second = (SASRec(asked, SMALL).recommend([["a"]], 5) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())


def test_sasrec_scores_a_history_the_same_alone_and_in_a_batch() -> None:
    model = SASRec(known(CYCLE, validation=VALID, seed=1), SMALL)
    alone = model.scores([[0, 1]])[0]
    together = model.scores([[2], [0, 1], [], [1, 2, 3, 4, 0, 1, 2, 3, 4]])[1]
    assert together.tolist() == pytest.approx(alone.tolist(), abs=1e-5)


def test_sasrec_without_validation_samples_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to validate"):
        SASRec(known(CYCLE), SMALL)
