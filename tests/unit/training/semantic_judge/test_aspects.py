from __future__ import annotations

import numpy as np
import pytest

from training.semantic_judge.aspects import CONTEXT, aspects, expected, overall, values_of

pytestmark = pytest.mark.unit


def test_a_shop_without_context_has_three_aspects_in_the_same_order() -> None:
    assert aspects(True) == (*aspects(False), CONTEXT)
    assert [len(one.values) for one in aspects(True)] == [5, 3, 3, 3]
    assert all(len(one.words) == len(one.values) and list(one.values) == sorted(one.values) for one in aspects(True))


def test_levels_are_places_on_the_grid_and_unknown_ones_have_no_value() -> None:
    found = values_of(np.array([[0, 2, 1], [4, -1, 0]], dtype=np.int8), aspects(False))
    np.testing.assert_array_equal(found, np.array([[-1.0, 1.0, 0.5], [1.0, np.nan, 0.0]], dtype=np.float32))


def test_the_expected_value_and_the_score_of_hand_worked_numbers() -> None:
    chances = [np.array([[0.1, 0.2, 0.3, 0.2, 0.2]]), np.array([[0.0, 0.5, 0.5]]), np.array([[1.0, 0.0, 0.0]])]
    found = expected(chances, aspects(False))
    np.testing.assert_allclose(found, [[0.1, 0.75, 0.0]], atol=1e-6)  # -.1 - .1 + 0 + .1 + .2
    np.testing.assert_allclose(overall(found, np.array([[0.5, 0.25, 0.25]])), [0.2375], atol=1e-6)
