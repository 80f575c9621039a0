"""What of a model's queries is shown, and what stands in place of the others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.query_rec import catalogue_words
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
    assert words_of("हिन्दी, किताब cafe\u0301 \uff30\uff25\uff2e") == ["हिन्दी", "किताब", "caf\u00e9", "pen"]


@given(
    st.text() | st.lists(st.sampled_from(["red", "pens", "desk", "blue", "3", "table"])).map(" ".join),
    st.floats(0.01, 1),
)
def test_what_is_found_has_its_share_of_the_words_by_weight(query: str, share: float) -> None:
    asked, texts = set(words_of(query)), [set(words_of(text)) for text, _ in ITEMS]
    weights = {word: 1 + math.log((1 + len(texts)) / (1 + sum(word in text for text in texts))) for word in asked}
    least = share * sum(weights.values()) - 1e-9
    held = [sum(weights[word] for word in asked & text) for text in texts]
    assert CATALOGUE.found(query, share).tolist() == [n for n, sum_ in enumerate(held) if asked and sum_ >= least]
    every = [n for n, text in enumerate(texts) if asked and asked <= text]
    assert CATALOGUE.found(query).tolist() == every


def test_enough_of_the_words_finds_and_a_rare_one_counts_for_more() -> None:
    assert CATALOGUE.found("pen table").tolist() == []
    assert CATALOGUE.found("pen table", 0.25).tolist() == list(range(8))
    assert CATALOGUE.found("pen table", 0.5).tolist() == []  # nobody sells a table: that word weighs more
    assert CATALOGUE.found("red pens pack", 0.5).tolist() == [0, 1, 2, 3, 4]


@given(
    st.lists(st.sampled_from(["red pens", "Pens RED", "pen", "desk lamp", "lamp table", "", "\U0001f389"]), min_size=9)
)
def test_few_answers_are_kept_and_are_those_of_a_catalogue_that_keeps_none(queries: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_words, "KEPT", 2)
        own = CatalogueWords.of(ITEMS)
        for query in queries:
            for share in (0.5, 1.0):
                assert own.number(query, share) == len(CATALOGUE.found(query, share))
            assert own.kind(query) == CatalogueWords.of(ITEMS).kind(query)
    for kept in (own._number, own._kind):
        assert kept.cache_info().currsize <= kept.cache_info().maxsize == 2  # type: ignore[attr-defined]


def test_a_catalogue_keeps_so_many_answers_and_no_more() -> None:
    own = CatalogueWords.of(ITEMS)
    for number in range(catalogue_words.KEPT + 100):
        own.number(f"pen {number}", 0.25)
    kept = own._number.cache_info()  # type: ignore[attr-defined]
    assert kept.currsize == catalogue_words.KEPT and own.number("pen 0", 0.25) == len(own.found("pen 0", 0.25)) > 8
    # One query is one answer, however it is written.
    before = own._number.cache_info().misses  # type: ignore[attr-defined]
    assert own.number("0  PENS", 0.25) == own.number("pen 0", 0.25) and own._number.cache_info().misses == before  # type: ignore[attr-defined]


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
        ("pen red pens red pen", "stutters"),
        ("pen red pen red", ""),
        ("2622037 2127204", "wordless"),
        ("\u0662\u0666 \U0001f389", "wordless"),
        ("red pen rude", "unsafe"),
        ("RUDE pens", "unsafe"),
        ("knife pens", "unservable"),
        ("knives pen", "unsafe"),
        ("red pen \uff32\uff35\uff24\uff25", "unsafe"),  # in wide signs
        ("red pen r\u00fcd\u00e9", "unsafe"),
        ("red pen ru\u0308de\u0301", "unsafe"),  # the same in pieces
        ("red pen ru\u200dde", "unsafe"),  # a sign that is not seen
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


def test_what_somebody_searched_for_themselves_has_to_find_something_and_no_more() -> None:
    own = ["blue kinder", "table", "rude pen"]
    assert FILTER.refused(own[0]) == "unservable" and FILTER.refused(own[0], "again") == ""
    assert FILTER.shown({"again": own, "popular": own}, 3) == [Hint("blue kinder", "again")]
    assert FILTER.refused("501", "again") == "unservable", "who has searched for a number knows what it is"


@pytest.mark.parametrize("asked", ["red pens", " RED\t Pens", "\uff32ed pens"])
def test_what_was_asked_for_just_now_is_no_hint_however_it_is_written_and_its_place_is_filled(asked: str) -> None:
    rows = {"again": ["Red pens", "desk lamp"], "model": ["red PENS"], "popular": ["red pens", "pen"]}
    assert FILTER.shown(rows, 2, asked) == [Hint("desk lamp", "again"), Hint("pen", "popular")]
    assert (
        FILTER.shown(rows, 2, "red pen")
        == FILTER.shown(rows, 2)
        == [Hint("Red pens", "again"), *FILTER.shown(rows, 2)[1:]]
    )
    assert FILTER.shown(rows, 2, " ") == FILTER.shown(rows, 2)


@given(st.lists(st.sampled_from(["red pens", "RED pens", "desk lamp", "rude", "x", ""])), st.integers(0, 4))
def test_hints_are_few_once_and_servable(queries: list[str], k: int) -> None:
    kept = FILTER.kept([Written(query, 0.0) for query in queries], NOBODY)
    shown = FILTER.shown({"again": reversed(queries), "model": kept, "popular": queries}, k)
    texts = [hint.query.lower() for hint in shown]
    assert len(shown) <= k and len(set(texts)) == len(texts)
    assert all(not FILTER.refused(hint.query, hint.source) for hint in shown)
