"""The mixture of ranker and generator: its two weights, against numbers worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.core.errors import LeftOut
from training.generative_rec.log_linear import LogLinear, Pool
from training.ranker.features import Table
from training.ranker.learner import Labelled
from training.ranker.signals.base import Floats

NAMES = ("text.score", "generator.score", "generator.rank")
UNNAMED = float("nan")


class ByText:
    """A ranker whose score is one feature."""

    def scores(self, table: Table) -> Floats:
        return table.values[:, 0]

    def probabilities(self, scores: Floats) -> Floats:
        raise AssertionError("not of the ranker alone")

    def reasons(self, table: Table) -> tuple[tuple[str, ...], Floats]:
        return ("text",), table.values[:, :1]


def learnt(questions: list[list[tuple[float, float]]], taken: list[int]) -> Labelled:
    """Of each question its candidates, each the ranker's score and the generator's place; `taken`: which of them."""
    rows = [(score, 0.5, place) for one in questions for score, place in one]
    owners = np.repeat(np.arange(len(questions)), [len(one) for one in questions])
    hits = np.concatenate([np.arange(len(one)) == hit for one, hit in zip(questions, taken, strict=True)])
    return Labelled(Table(NAMES, np.array(rows, dtype=np.float32)), owners, hits)


def fitted(data: Labelled, beams: int = 1) -> LogLinear:
    return LogLinear.fit(Pool(ByText(), "generator", beams), data)


def test_of_two_items_that_the_ranker_puts_alike_the_named_one_is_taken_as_often_as_the_weight_says() -> None:
    """One beam: log(2 / 1) beside 0. Taken 3 times of 4: 2^w / (1 + 2^w) = 3/4, so w = log 3 / log 2."""
    mixture = fitted(learnt([[(0.0, UNNAMED), (0.0, 1.0)]] * 40, [1, 1, 1, 0] * 10))
    assert mixture.weights[1] == pytest.approx(math.log(3) / math.log(2), rel=1e-3)


def test_of_two_items_that_the_generator_does_not_name_the_ranker_decides() -> None:
    """A lead of 2, taken 9 times of 10: e^2w / (1 + e^2w) = 9/10, so w = log(9) / 2; the generator says nothing."""
    mixture = fitted(learnt([[(2.0, UNNAMED), (0.0, UNNAMED)]] * 10, [0] * 9 + [1]))
    assert mixture.weights == (pytest.approx(math.log(9) / 2, rel=1e-3), 0.0)


def test_what_few_questions_say_of_the_generator_may_be_chance() -> None:
    """Right in two of three is a gain of a third with a standard error of more than half of what one place is worth."""
    weights = fitted(learnt([[(0.0, UNNAMED), (0.0, 1.0)]] * 3, [1, 1, 0])).weights
    assert weights[1] == 0.0


def test_a_generator_that_is_wrong_more_often_than_not_gets_no_say() -> None:
    mixture = fitted(learnt([[(1.0, UNNAMED), (0.0, 1.0)]] * 4, [0, 0, 0, 0]))
    assert mixture.weights[1] == 0.0


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.floats(-3, 3, width=32), st.one_of(st.just(UNNAMED), st.integers(1, 5).map(float))),
        min_size=2,
        max_size=6,
    ),
    st.integers(0, 5),
)
def test_reasons_add_up_to_the_score_and_an_item_is_never_worse_for_being_named(
    candidates: list[tuple[float, float]], taken: int
) -> None:
    data = learnt([candidates, [(0.5, 1.0), (0.0, UNNAMED)]], [taken % len(candidates), 0])
    mixture = fitted(data, beams=5)
    groups, added = mixture.reasons(data.table)
    assert groups == ("text", "generator")
    assert added.sum(axis=1) == pytest.approx(mixture.scores(data.table), abs=1e-4)
    assert (added[:, 1] >= 0).all()


def test_the_mixture_that_is_read_back_is_the_one_that_was_written(tmp_path: Path) -> None:
    data = learnt([[(1.0, 1.0), (0.0, UNNAMED)], [(0.5, UNNAMED), (0.0, 1.0)]] * 3, [0, 1, 1, 1, 0, 0])
    mixture = fitted(data)
    assert not LogLinear.there_is_one(tmp_path)
    mixture.save(tmp_path)
    again = LogLinear.load(tmp_path, ByText())
    scores = mixture.scores(data.table)
    assert again.scores(data.table).tolist() == scores.tolist()
    assert again.probabilities(scores).tolist() == mixture.probabilities(scores).tolist()
    assert 0.0 <= mixture.probabilities(scores).min() < mixture.probabilities(scores).max() <= 1.0


def test_nothing_is_learnt_where_no_answer_is_a_candidate() -> None:
    data = learnt([[(1.0, 1.0), (0.0, UNNAMED)]], [7])
    with pytest.raises(LeftOut, match="no signal names an item that was taken next"):
        fitted(data)
