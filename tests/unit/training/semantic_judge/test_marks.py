"""PointAcc, PairAUC and spread against numbers by hand, and the routing of doubtful cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.unit.training.semantic_judge import scorer_kit as kit
from training.core.errors import DataError
from training.semantic_judge.aspects import UNKNOWN, Aspect, aspects, expected
from training.semantic_judge.examples import Cases, Floats
from training.semantic_judge.marks import Marks, likeliest, majority, spread
from training.semantic_judge.routing import Routed, doubt, threshold_of

TWO = aspects(False)[1:]  # future and novelty, three levels each


def one_hot(levels: list[list[int]]) -> list[Floats]:
    return [np.eye(3, dtype=np.float32)[[row[k] for row in levels]] for k in range(2)]


def test_marks_are_those_by_hand() -> None:
    # Two states: rows 0, 1, 3 and row 2.
    labels = np.array([[2, 0], [0, UNKNOWN], [1, 1], [2, 2]], dtype=np.int8)
    said = one_hot([[2, 2], [2, 0], [1, 0], [1, 2]])
    marks = Marks.of(said, labels, np.array([7, 7, 9, 7]), TWO)
    assert marks.right.tolist() == [[1, 1], [1, 0]] and marks.cells.tolist() == [[3, 2], [1, 1]]
    # Future: rows 0 and 3 above row 1: a tie (2, 2) and a wrong one (1 below 2). Novelty: row 3 above row 0, a tie.
    assert marks.ordered.tolist() == [[0.5, 0.5], [0, 0]] and marks.pairs.tolist() == [[2, 1], [0, 0]]
    found = marks.metrics(TWO)
    assert found["point_acc"] == 3 / 7 and found["pairs_in_order"] == 1 / 3
    assert (found["point_acc.future"], found["pairs_in_order.novelty"]) == (2 / 4, 0.5)
    gains = marks.gains()
    assert gains[:, 0].tolist() == [2 / 5, 1 / 2] and gains[0, 1] == 1 / 3 and np.isnan(gains[1, 1])


def test_of_nothing_nothing_is_known() -> None:
    empty = Marks.of(one_hot([]), np.zeros((0, 2), dtype=np.int8), np.zeros(0, dtype=np.int64), TWO)
    assert empty.gains().shape == (0, 2) and np.isnan(empty.metrics(TWO)["point_acc"])


@given(values=arrays.arrays(np.float32, (6, 3), elements=st.sampled_from([0.125, 0.25, 0.5, 1.0])))
def test_the_share_of_pairs_in_order_is_that_of_its_definition(values: Floats) -> None:
    chances = [values / values.sum(axis=1, keepdims=True)] * 2
    labels = np.array([[0, 0], [1, 0], [2, 0], [2, 0], [0, 0], [1, 0]], dtype=np.int8)
    marks = Marks.of(chances, labels, np.zeros(6, dtype=np.int64), TWO)
    worth = expected(chances, TWO)[:, 0]
    pairs = [(i, j) for i in range(6) for j in range(6) if labels[i, 0] > labels[j, 0]]
    rightly = [1.0 if worth[i] > worth[j] else 0.5 if worth[i] == worth[j] else 0.0 for i, j in pairs]
    assert marks.pairs.tolist() == [[12, 0]] and marks.ordered[0, 0] == sum(rightly)


def test_a_scorer_that_says_the_same_of_all_has_no_spread() -> None:
    found = spread(one_hot([[1, 0], [1, 2]]), TWO)
    assert found["spread.future"] == 0 and found["spread.novelty"] == 0.5
    assert [found[f"share.novelty.{place}"] for place in range(3)] == [0.5, 0, 0.5]
    labels = np.array([[0, 1], [0, 1], [2, UNKNOWN]], dtype=np.int8)
    assert majority(labels, labels) == 4 / 5


@dataclass
class Told:
    """A scorer that says what it is told of each item."""

    levels: Sequence[Sequence[float]]
    aspects: Sequence[Aspect] = (TWO[0],)
    asked: int = 0

    def chances(self, cases: Cases) -> list[Floats]:
        self.asked += len(cases)
        return [np.array([self.levels[item] for item in cases.item.tolist()], dtype=np.float32)]


def test_the_second_scorer_is_asked_about_what_the_first_doubts_most_and_nothing_else() -> None:
    cases = kit.cases(6, 4)
    sure = [[1 - n / 50, n / 100, n / 100] for n in range(24)]
    first, second = Told(sure), Told([[0, 0, 1]] * 24)
    routed = Routed.of(first, second, cases, 0.25)
    found, asked = routed.judged(cases)
    assert 0 < asked.sum() <= 6 and second.asked == asked.sum()
    assert cases.item[asked].min() > cases.item[~asked].max()  # doubt rises with the number
    np.testing.assert_array_equal(found[0][asked], [[0, 0, 1]] * int(asked.sum()))
    np.testing.assert_array_equal(found[0][~asked], first.chances(cases)[0][~asked])
    # What a case gets does not depend on what else is judged.
    for row in range(len(cases)):
        np.testing.assert_array_equal(routed.chances(cases.chosen(np.array([row])))[0][0], found[0][row])


@given(doubts=arrays.arrays(np.float32, st.integers(1, 30), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))
def test_no_more_than_the_share_is_routed(doubts: Floats) -> None:
    for share in (0.0, 0.3, 1.0):
        routed = doubts >= threshold_of(doubts, share)
        assert routed.sum() <= share * len(doubts)
        assert share != 1.0 or routed.all()
        assert not routed.any() or doubts[routed].min() > doubts[~routed].max(initial=-1)


def test_doubt_is_the_mean_entropy_and_bad_shares_are_refused() -> None:
    even, sure = [1 / 3] * 3, [0.0, 1.0, 0.0]
    assert doubt([np.array([even, sure]), np.array([sure, sure])]).tolist() == pytest.approx([0.5, 0.0])
    told = Told([sure] * 24)
    with pytest.raises(DataError, match="from 0 to 1"):
        Routed.of(told, told, kit.cases(1, 1), 1.2)
    with pytest.raises(DataError, match="other aspects"):
        Routed.of(told, Told([sure] * 24, TWO), kit.cases(1, 1), 0.5)
    assert likeliest([np.array([even, sure])]).tolist() == [[0], [1]]
