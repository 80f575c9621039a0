import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.sparse import csr_matrix

from tests.unit.training.semantic_judge.two_tastes import CATALOGUE, contests, states
from training.semantic_judge.contests import Contests, won
from training.semantic_judge.examples import EPOCH, Catalogue, Item, States, UserState
from training.semantic_judge.importance import simplex
from training.semantic_judge.pair_regression import PairRegression, UserFeatures, loss


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    design, difference = csr_matrix(rng.normal(size=(20, 4))), rng.normal(size=(20, 3))
    at = rng.normal(size=1 + 4 * 3)
    assert check_grad(lambda v: loss(v, design, difference)[0], lambda v: loss(v, design, difference)[1], at) < 1e-4


def test_one_vector_for_everybody_finds_the_weights_that_made_the_pairs() -> None:
    rng, users = np.random.default_rng(1), states(400)
    truth = np.array([0.6, 0.3, 0.1], dtype=np.float32)
    difference = rng.normal(size=(4000, 3)).astype(np.float32)
    difference *= np.sign(difference @ truth)[:, None]
    made = Contests(np.arange(4000) % 400, difference, np.full(4000, "rating"), 0)
    found = PairRegression.fit(made, users, CATALOGUE, personal=False).weights(users, CATALOGUE)
    np.testing.assert_allclose(found, np.tile(truth, (400, 1)), atol=0.03)


def test_user_features_tell_tastes_apart_where_one_vector_cannot() -> None:
    users, learnt, held = states(120), contests(np.arange(80), 1), contests(np.arange(80, 120), 2)
    right = {}
    for personal in (False, True):
        weights = PairRegression.fit(learnt, users, CATALOGUE, personal=personal).weights(users, CATALOGUE)
        assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-6) and (weights >= 0).all()
        right[personal] = won(weights[held.state], held.difference).mean()
    assert right[True] > right[False] + 0.1


def test_users_without_words_or_history_have_weights_too() -> None:
    empty = states(0).chosen(np.array([], dtype=np.int64))
    users = type(empty)(
        ["a", "b", "c"],
        np.zeros(3, dtype=np.int64),
        np.zeros(4, dtype=np.int64),
        *[np.zeros(0, dtype=np.int64)] * 2,
        [None] * 3,
        [None] * 3,
    )
    made = Contests(np.array([0, 1, 2]), simplex(np.eye(3)), np.full(3, "rating"), 0)
    weights = PairRegression.fit(made, users, CATALOGUE, personal=True).weights(users, CATALOGUE)
    assert np.isfinite(weights).all()


ITEMS = Catalogue(
    [Item(f"i{n}", "t", (None, "a", "b")[n % 3], (None, "x")[n % 2], (None, 0.0, 2.0, 9.5)[n % 4]) for n in range(12)]
)


def by_definition(user: UserState) -> list[float]:
    """What is counted of one state, one after the other."""
    items = [ITEMS.items[ITEMS.numbers[item]] for item in user.history]
    stars = [rating for rating in user.ratings if rating is not None]
    prices = [float(np.log(np.float32(item.price))) for item in items if item.price]
    size = max(len(items), 1)

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    return [
        float(np.log1p(len(items))),
        mean(stars),
        mean([float(one >= 5) for one in stars]),
        mean([float(one <= 2) for one in stars]),
        len({item.brand for item in items}) / size,
        len({item.category for item in items}) / size,
        mean(prices),
        float(np.std(prices)) if prices else 0.0,
    ]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 11), st.none() | st.sampled_from([1.0, 2.0, 3.5, 5.0])), max_size=6),
        min_size=1,
        max_size=6,
    )
)
def test_the_numbers_of_many_histories_are_those_of_each(histories: list[list[tuple[int, float | None]]]) -> None:
    users = [
        UserState(f"u{n}", EPOCH, tuple(f"i{item}" for item, _ in own), tuple(rating for _, rating in own))
        for n, own in enumerate(histories)
    ]
    found = UserFeatures(np.zeros(8, np.float32), np.ones(8, np.float32), None).of(States.of(ITEMS, users), ITEMS)
    wanted = [[1.0, *by_definition(user)] for user in users]
    np.testing.assert_allclose(found.toarray(), wanted, atol=1e-5)


def test_states_without_a_pair_change_no_coefficient() -> None:
    users, few = states(120), contests(np.arange(40), 1)
    alone = PairRegression.fit(few, users.chosen(np.arange(40)), CATALOGUE, personal=True)
    among = PairRegression.fit(few, users, CATALOGUE, personal=True)
    np.testing.assert_array_equal(alone.coefficients, among.coefficients)
