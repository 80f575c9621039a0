import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.semantic_judge.contests import Contests, by_users, ordered, won
from training.semantic_judge.importance import LEVELS, simplex

GRID = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])
SCORES = st.lists(GRID, min_size=3, max_size=3)


def between(preferred: list[list[float]], other: list[list[float]]) -> Contests:
    scores = (np.array(side, dtype=np.float32) for side in (preferred, other))
    return Contests.between(np.arange(len(preferred)), *scores, np.full(len(preferred), "rating"))


def test_the_reward_is_as_worked_out_by_hand() -> None:
    weights = np.array([[0.5, 0.3, 0.2]] * 4, dtype=np.float32)
    preferred = np.array([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 1, 1]], dtype=np.float32)
    other = np.array([[0, 1, 0], [1, 0, 0], [0.5, 0, 0], [1, 0, 0]], dtype=np.float32)
    # .5 > .3; .3 < .5; .25 = .25: a tie earns nothing; .5 = .5.
    assert won(weights, preferred - other).tolist() == [True, False, False, False]
    assert ordered(weights, preferred - other).tolist() == [1.0, 0.0, 0.5, 0.5]


@given(st.lists(st.integers(0, LEVELS - 1), min_size=3, max_size=3), SCORES, SCORES)
def test_of_a_pair_and_its_reverse_weights_win_at_most_one_and_order_one(
    levels: list[int], one: list[float], other: list[float]
) -> None:
    weights, difference = simplex(np.array(levels)), np.array(one, dtype=np.float32) - np.array(other, dtype=np.float32)
    assert int(won(weights, difference)) + int(won(weights, -difference)) <= 1
    assert float(ordered(weights, difference)) + float(ordered(weights, -difference)) == 1.0
    # In whole numbers, without any rounding: levels in thousandths, scores in halves.
    exact = sum((1000 * level + 1) * round(2 * value) for level, value in zip(levels, difference.tolist(), strict=True))
    assert bool(won(weights, difference)) == (exact > 0)


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=8))
def test_pairs_of_equal_scores_are_dropped_and_counted(pairs: list[tuple[list[float], list[float]]]) -> None:
    found = between([one for one, _ in pairs], [other for _, other in pairs])
    kept = [number for number, (one, other) in enumerate(pairs) if one != other]
    assert found.state.tolist() == kept
    assert found.equal == len(pairs) - len(kept)


def test_scores_that_differ_by_the_rounding_of_float32_are_equal() -> None:
    assert between([[0.1 + 0.2, 0, 0]], [[0.3, 0, 0]]).equal == 1


def test_the_pairs_of_a_state_come_together() -> None:
    differences = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=np.float32)
    found = Contests(np.array([7, 2, 7, 2]), differences, np.full(4, "rating"), 0)
    states, own = found.by_state()
    assert states.tolist() == [2, 7]
    assert [rows.tolist() for rows in own] == [differences[[1, 3]].tolist(), differences[[0, 2]].tolist()]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_users_are_held_back_whole_one_at_least_and_never_all(share: float) -> None:
    users = [f"u{n % 7}" for n in range(40)]
    held = by_users(users, share, seed=3)
    inside, outside = (
        {user for user, there in zip(users, held, strict=True) if bool(there) is part} for part in (True, False)
    )
    assert inside and outside and not inside & outside
