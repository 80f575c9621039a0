"""Shares of searches that a purchase follows, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.query_rec.shop_kit import encode, known_query
from training.query_rec.catalogue_words import CatalogueWords
from training.query_rec.hint_list_measures import ListMeasures
from training.query_rec.hints import FilterConfig, Hint, HintFilter
from training.query_rec.purchases import PRIOR, Purchases

COUNTS = st.integers(0, 1000)


def test_a_share_is_of_all_searches_and_begins_with_the_mean() -> None:
    """Of 100 searches 20 are followed by a purchase: .2. `gift` has 30 searches for one purchase, `pen` 60 for 18."""
    found = Purchases.of(
        {
            "pen": known_query(typed=50, clicked=10, bought=18),
            "gift": known_query(typed=0, clicked=30, bought=1),  # only ever clicked as a hint: what a guard is for
            "lamp": known_query(typed=10, bought=1),
            "shown": known_query(shown=900),
            "elsewhere": known_query(shown=5, bought=2),
        }
    )
    assert PRIOR == 20 and found.mean == pytest.approx(0.2)
    expected = {"pen": (18 + 4) / 80, "gift": (1 + 4) / 50, "lamp": (1 + 4) / 30}
    assert found.shares == pytest.approx(expected)
    assert found.share(" PEN ") == found.expected("Pen") == pytest.approx(0.275)
    for unknown in ("shown", "elsewhere", "what the model wrote"):
        assert found.share(unknown) is None and found.expected(unknown) == found.mean


def test_of_several_purchases_behind_a_search_one_counts_and_without_a_search_nothing_is_known() -> None:
    assert Purchases.of({"pens": known_query(typed=2, bought=9)}).shares == {"pens": 1.0}
    assert Purchases.of({}).expected("pen") == Purchases.of({"a": known_query(shown=3)}).mean == 0.0


@given(st.dictionaries(st.sampled_from("abc"), st.tuples(COUNTS, COUNTS, COUNTS)))
def test_shares_are_shares_and_lie_between_the_query_and_the_mean(counts: dict[str, tuple[int, int, int]]) -> None:
    known = {
        query: known_query(typed=typed, clicked=clicked, bought=bought)
        for query, (typed, clicked, bought) in counts.items()
    }
    found = Purchases.of(known)
    for query, (typed, clicked, bought) in counts.items():
        if typed + clicked:
            own = min(bought / (typed + clicked), 1.0)
            low, high = sorted((own, found.mean))
            assert low - 1e-9 <= found.shares[query] <= high + 1e-9 and 0 <= low <= high <= 1
        else:
            assert found.share(query) is None


def test_the_measure_is_the_mean_of_the_hints_that_somebody_has_searched_for() -> None:
    words = HintFilter(FilterConfig(), CatalogueWords.of([("red pen", "pens")]))
    bought = Purchases({"pen": 0.3, "lamp": 0.1}, 0.2)
    measures = ListMeasures([["pen"]] * 3, [[], ["PEN"], []], words, bought, encode, 2)
    lists = [
        [Hint("Pen", "again"), Hint("new", "model")],
        [Hint("pen", "again"), Hint("lamp", "again"), Hint("x", "popular")],
    ]
    rows = measures.values([*lists, [Hint("new", "model")]])
    column = rows[:, measures.names.index("purchases@2")].tolist()
    assert column[:2] == pytest.approx([0.3, 0.2]) and column[2] != column[2]
    new = rows[:, measures.names.index("new_recall@2")].tolist()
    assert new[0] == 1.0 and new[1] != new[1] and new[2] == 0.0
