"""Merging the person's own lists with those of the index: each query once, with all that speaks for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.query_text import normalised
from feature_store import hints
from feature_store.hints import ITEM, SEARCH, Found, Shown, Why, merged, trigger_of

KNOWN = ["red pens", "Red  PENS", "ﬁles", "files", "ink", "عطر", "🎁 gift", "", "   "]
QUERIES = st.sampled_from(KNOWN) | st.text(max_size=5)


def own(query: str) -> Found:
    return Found(query, Why("u2q", SEARCH, "pens", "model", "3"))


def indexed(query: str, trigger: str = "i1", score: float = 0.5) -> Found:
    return Found(query, Why("x2q", ITEM, trigger, "model", "2026-01-20-a", score))


LISTS = st.lists(QUERIES.map(own), max_size=8)
TRIGGERED = st.tuples(st.lists(QUERIES, max_size=6), st.integers(0, 9))
INDEX = st.lists(TRIGGERED.map(lambda one: [indexed(query, f"i{one[1]}") for query in one[0]]), max_size=4)


def test_both_sides_take_turns_and_so_do_the_triggers() -> None:
    by_trigger = [[indexed("a1"), indexed("a2")], [indexed("b1", "i2"), indexed("b2", "i2")]]
    found = merged([own("o1"), own("o2"), own("o3")], by_trigger, 6)
    assert [shown.query for shown in found] == ["o1", "a1", "o2", "b1", "o3", "a2"]


def test_a_query_of_both_sides_stands_once_as_it_was_first_written_with_both_reasons() -> None:
    first, second = own("Red  Pens"), indexed("red pens")
    assert merged([first], [[second]], 5) == [Shown("Red  Pens", (first.why, second.why))]
    assert merged([first, first], [[], [second, second]], 5) == [Shown("Red  Pens", (first.why, second.why))]


def test_what_was_searched_for_just_now_is_no_hint_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "own_lists", lambda *_: [own("Red  Pens"), own("ink")])
    monkeypatch.setattr(hints, "of_triggers", lambda *_: [[indexed("red pens"), indexed("files")]])
    for done, expected in (
        ([("view", "i1"), ("search", " RED pens")], ["ink", "files"]),
        ([("search", "red pens"), ("view", "i1")], ["Red  Pens", "ink", "files"]),
        ([], ["Red  Pens", "ink", "files"]),
    ):
        assert [shown.query for shown in hints.hints_of(None, "ann", done)] == expected


@given(LISTS, INDEX, st.integers(0, 12))
def test_hints_are_few_and_once_and_each_says_who_wrote_it(
    lists: list[Found], by_trigger: list[list[Found]], most: int
) -> None:
    found = merged(lists, by_trigger, most)
    given_ = [*lists, *(one for each in by_trigger for one in each)]
    forms = [normalised(shown.query) for shown in found]
    assert all(forms) and len(set(forms)) == len(forms) <= most
    for shown, form in zip(found, forms, strict=True):
        said = {one.why for one in given_ if normalised(one.query) == form}
        assert set(shown.why) == said and len(shown.why) == len(said)
        assert any(one.query == shown.query and one.why == shown.why[0] for one in given_)
    assert len(found) == min(most, len({normalised(one.query) for one in given_} - {""}))
    assert found == merged(lists, by_trigger, 100)[:most]


@given(LISTS)
def test_without_the_other_side_the_order_of_the_one_stays(lists: list[Found]) -> None:
    forms = list(dict.fromkeys(normalised(one.query) for one in lists if normalised(one.query)))
    for found in (merged(lists, [], 100), merged([], [lists], 100), merged([], [[], lists, []], 100)):
        assert [normalised(shown.query) for shown in found] == forms
    assert merged([], [], 5) == []


def test_a_search_is_looked_up_by_its_one_form_and_all_else_by_its_item() -> None:
    assert trigger_of("search", "  Red\n PENS ") == (SEARCH, "red pens")
    assert trigger_of("purchase", "I-1") == (ITEM, "I-1")
