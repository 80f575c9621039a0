import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.semantic_judge.importance import LEVELS, all_levels, evenness, simplex

VECTORS = st.integers(1, 5).flatmap(lambda k: st.lists(st.integers(0, LEVELS - 1), min_size=k, max_size=k))


def test_levels_are_weights_as_worked_out_by_hand() -> None:
    weights = simplex(np.array([[4, 0, 0], [3, 1, 0], [0, 0, 0]]))
    expected = [
        [4.001 / 4.003, 0.001 / 4.003, 0.001 / 4.003],
        [3.001 / 4.003, 1.001 / 4.003, 0.001 / 4.003],
        [1 / 3] * 3,
    ]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@given(VECTORS)
def test_weights_are_on_the_simplex_and_in_the_order_of_the_levels(levels: list[int]) -> None:
    weights = simplex(np.array([levels]))[0]
    assert (weights > 0).all() and weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert (np.diff(weights[np.argsort(levels, kind="stable")]) >= 0).all()
    assert len(set(weights.tolist())) == len(set(levels))


@given(VECTORS, st.integers(2, 4))
def test_levels_on_another_scale_mean_nearly_the_same(levels: list[int], factor: int) -> None:
    one, other = simplex(np.array(levels)), simplex(np.array(levels) * factor)
    np.testing.assert_allclose(one, other, atol=1e-3 * len(levels))  # of one level above 0 each other takes up to 1e-3
    if len(set(levels)) == 1:
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_all_levels_are_all_of_them_once_and_uniform_in_the_mean() -> None:
    found = all_levels(3)
    assert len(found) == len({tuple(row) for row in found.tolist()}) == LEVELS**3
    assert found[:6].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 0, 4], [0, 1, 0]]
    np.testing.assert_allclose(simplex(found).mean(axis=0), 1 / 3, atol=1e-6)


def test_evenness_is_1_for_uniform_weights_and_0_where_one_aspect_is_all() -> None:
    found = evenness(np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(found, [1.0, 0.0, 0.5], atol=1e-6)
