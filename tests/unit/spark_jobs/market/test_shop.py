"""The shop in numbers: which items it knows to be near each other."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.spark_jobs.market import kit

_WORDS = ("pen", "red", "desk", "lamp", "ink", "paper", "clip", "")


@settings(max_examples=25)
@given(st.integers(2, 400), st.randoms(use_true_random=False))
def test_the_near_items_are_those_of_a_whole_sort(count: int, random: Random) -> None:
    titles = [" ".join(random.choices(_WORDS, k=4)) for _ in range(count)]
    shop = kit.world(kit.items(count, title=titles, brand=None)).shop
    scores = shop.vectors @ shop.vectors.T
    np.fill_diagonal(scores, -np.inf)
    for item in range(count):
        near = shop.near[item][shop.near[item] >= 0]
        best = np.sort(scores[item])[::-1][: shop.near.shape[1]]
        assert len(set(near.tolist())) == len(near) and item not in near
        assert scores[item, near] == pytest.approx(best[best > 5e-5], abs=1e-4)
