"""A draw depends on its keys alone, and is spread as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spark_jobs.market.draws import Draws

NUMBERS = np.arange(20_000)
GOLDEN = [0.2351145314094233, 0.7428438487824668, 0.11837019656231751]


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1, max_size=30), st.integers(0, 50))
def test_a_draw_does_not_depend_on_what_is_drawn_beside_it(seed: int, people: list[int], visit: int) -> None:
    draws, keys = Draws(seed), np.array(people)
    together = draws.uniform("click", keys[:, None], visit, np.arange(4)[None, :])
    alone = [[float(draws.uniform("click", person, visit, item)) for item in range(4)] for person in people]
    assert together.tolist() == alone


def test_the_golden_draws_of_a_seed() -> None:
    """Who changes these changes every market that there is."""
    assert Draws(7).uniform("click", np.array([0, 1, 2**40]), 3).tolist() == pytest.approx(GOLDEN, abs=0)


def test_purposes_seeds_and_keys_draw_apart() -> None:
    one = Draws(7).uniform("click", NUMBERS)
    others = [
        Draws(8).uniform("click", NUMBERS),
        Draws(7).uniform("cart", NUMBERS),
        Draws(7).uniform("click", NUMBERS, 0),
    ]
    for other in others:
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("name", "law"), [("uniform", "uniform"), ("normal", "norm"), ("gumbel", "gumbel_r"), ("exponential", "expon")]
)
def test_draws_follow_their_law(name: str, law: str) -> None:
    found = getattr(Draws(3), name)("x", NUMBERS, 5)
    assert stats.kstest(found, law).pvalue > 0.001
    assert stats.kstest(found + 0.05, law).pvalue < 1e-6  # the test would see a shift


def test_a_choice_follows_its_weights() -> None:
    found = np.bincount(Draws(1).choice(np.array([1.0, 0.0, 3.0]), "x", NUMBERS), minlength=3)
    assert found[1] == 0 and found[2] / found[0] == pytest.approx(3.0, rel=0.05)
