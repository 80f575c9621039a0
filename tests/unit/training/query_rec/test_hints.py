"""What of a model's queries is shown, and what stands in place of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.query_rec.catalogue_words import CatalogueWords, words_of
from training.query_rec.hints import FilterConfig, Hint, HintFilter, Written
from training.query_rec.prompts import Behaviours

ITEMS = [
    *((f"Red pens, pack {n}", "pens") for n in range(5)),
    *((f"Blue pen {n} für Kinder", "pens") for n in range(3)),
    *((f"desk lamp {n}", "lamps") for n in range(4)),
    *((f"عطر {n} 🎉", "gifts") for n in range(4)),
]
CATALOGUE = CatalogueWords.of(ITEMS)
FILTER = HintFilter(FilterConfig(log_prob=-3.0, items=4, longest=20, unsafe=("Knives", "rude")), CATALOGUE)
PERSON = Behaviours((1,), ("view",), ("Red pen set",))
NOBODY = Behaviours((), (), ())


def test_a_query_finds_what_has_all_of_its_words_in_any_form_and_order() -> None:
    assert CATALOGUE.found("pens RED").tolist() == [0, 1, 2, 3, 4] == CATALOGUE.found("red pen pen").tolist()
    assert CATALOGUE.found("red lamp").tolist() == CATALOGUE.found("").tolist() == CATALOGUE.found("?!").tolist() == []
    assert (CATALOGUE.kind("pen"), CATALOGUE.kind("lamp"), CATALOGUE.kind("table")) == ("pens", "lamps", "")
    assert words_of("Glass bus, PENS") == ["glass", "bus", "pen"]


@given(st.text())
def test_what_is_found_has_every_word(query: str) -> None:
    asked = set(words_of(query))
    found = set(CATALOGUE.found(query).tolist())
    assert found == {n for n, (text, _) in enumerate(ITEMS) if asked and asked <= set(words_of(text))}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("red pens", ""),
        ("عطر", ""),  # right to left
        ("🎉 عطر", ""),
        ("red pen 🧑\u200d🎨", ""),  # an emoji of several signs
        ("", "broken"),
        (" \n", "broken"),
        ("red pen \ufffd", "broken"),  # half a character
        ("red pen\u202e", "broken"),  # turns what comes behind it
        ("red\x00pen", "broken"),
        ("red pen " * 2_000, "long"),
        ("red pen rude", "unsafe"),
        ("RUDE pens", "unsafe"),
        ("knife pens", "unservable"),
        ("knives pen", "unsafe"),
        ("blue pen", "unservable"),  # three are not four
    ],
)
def test_nobody_is_shown(query: str, reason: str) -> None:
    assert FILTER.refused(query) == reason


def test_what_a_model_wrote_is_probable_and_of_what_was_seen() -> None:
    assert FILTER.refused_of(Written("red pens", -1.0), PERSON) == ""
    assert FILTER.refused_of(Written("red pens", -3.5), PERSON) == "improbable"
    assert FILTER.refused_of(Written("red pens", float("nan")), PERSON) == "improbable"
    assert FILTER.refused_of(Written("desk lamp", -1.0), PERSON) == "unrelated"
    assert FILTER.refused_of(Written("desk lamp", -1.0), NOBODY) == ""  # nothing can be said of who did nothing


def test_what_is_left_empty_is_filled_in_the_order_of_the_rows_with_where_it_came_from() -> None:
    written = [Written("Red pens", -1.0), Written("red PENS", -1.0), Written("nonsense", -0.1)]
    counted = {"co_click": ["red pens", "desk lamp", "rude"], "popular": ["pen", "lamp"]}
    assert FILTER.shown({"model": FILTER.kept(written, PERSON), **counted}, 3) == [
        Hint("Red pens", "model"),
        Hint("desk lamp", "co_click"),
        Hint("pen", "popular"),
    ]
    assert FILTER.shown({}, 3) == []


@given(st.lists(st.sampled_from(["red pens", "RED pens", "desk lamp", "rude", "x", ""])), st.integers(0, 4))
def test_hints_are_few_once_and_servable(queries: list[str], k: int) -> None:
    kept = FILTER.kept([Written(query, 0.0) for query in queries], NOBODY)
    shown = FILTER.shown({"again": reversed(queries), "model": kept, "popular": queries}, k)
    texts = [hint.query.lower() for hint in shown]
    assert len(shown) <= k and len(set(texts)) == len(texts)
    assert all(not FILTER.refused(hint.query) for hint in shown)
