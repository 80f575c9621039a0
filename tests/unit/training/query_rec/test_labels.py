"""Ordered label lists, what falls out of them, and the behaviours behind each interest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.query_rec.interest_lists import Interest
from training.query_rec.labels import SOURCES, LabelConfig, concatenated, fitting, interests_of

CONFIG = LabelConfig(most=3, fits=0.5, together=0.5, interests=2, queries=2)
NOTHING = float("nan")


def cosines(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_query_stands_at_its_most_reliable_place_and_once() -> None:
    said = {"generated": ["ink", "Lamp "], "typed": ["lamp", "RED  pen"], "hint": ["red pen"], "rank": ["", "desk"]}
    expected = [("red pen", "hint"), ("lamp", "typed"), ("desk", "rank"), ("ink", "generated")]
    assert concatenated(said) == expected and concatenated({}) == []


@given(st.dictionaries(st.sampled_from(SOURCES), st.lists(st.sampled_from(["a", "A ", "b", "c", ""]), max_size=4)))
def test_no_query_is_lost_or_twice(said: dict[str, list[str]]) -> None:
    found = [query.lower() for query, _ in concatenated(said)]
    assert len(set(found)) == len(found)
    assert set(found) == {query.strip().lower() for own in said.values() for query in own if query.strip()}


def test_what_was_added_and_does_not_fit_is_left_out_and_what_was_done_never() -> None:
    labels = [("a", "hint"), ("b", "rank"), ("c", "rank"), ("d", "generated"), ("e", "generated")]
    near = np.array([0.0, 0.4, 0.5, 0.9, 0.9], dtype=np.float32)
    assert fitting(labels, near, CONFIG) == [0, 2, 3]
    assert fitting(labels, np.full(5, NOTHING, dtype=np.float32), CONFIG) == [0, 1, 2]


def test_interests_are_behaviours_that_lie_together_in_the_order_of_their_queries() -> None:
    """Behaviours 1 and 3 are of pens, 2 and 4 of desks, 5 of neither."""
    among = np.eye(5, dtype=np.float32)
    for one, two in ((0, 2), (1, 3)):
        among[one, two] = among[two, one] = 0.8
    nearness = cosines(
        [
            [0.1, 0.6, 0.1, 0.9, 0.0],  # desk
            [0.9, 0.1, 0.6, 0.1, 0.0],  # pen
            [0.2, 0.2, 0.2, 0.2, 0.2],  # nothing of this
            [0.6, 0.1, 0.7, 0.1, 0.0],  # pen again
            [0.6, 0.1, 0.7, 0.1, 0.0],  # one too many
        ]
    )
    found = interests_of(["desk", "pen", "boat", "ink", "nib"], nearness, among, CONFIG)
    assert found == [Interest((2, 4), ("desk",)), Interest((1, 3), ("pen", "ink"))]


def test_who_did_nothing_or_one_thing() -> None:
    assert interests_of(["pen"], np.zeros((1, 0), dtype=np.float32), np.zeros((0, 0), dtype=np.float32), CONFIG) == []
    one = np.ones((1, 1), dtype=np.float32)
    assert interests_of(["pen"], one, one, CONFIG) == [Interest((1,), ("pen",))]
