"""The rows that only count, by hand."""

from __future__ import annotations

from training.query_rec.counting import QueryCounts, Thing, filled_up

THINGS = {
    "p1": Thing("Acme Gel Pen, Blue", "Acme", "pens"),
    "p2": Thing("Felt Pens (12 pack)", None, "pens"),
    "l1": Thing("Desk Lamp - LED", "Acme", "lamps"),
    "x": Thing("", None, None),
}
SEARCHES = [
    ("gel pen", "p1"), ("Gel Pen", "p1"), ("gel pen", None), ("felt pens", "p2"), ("pens", "p2"), ("pens", "p1"),
    ("lamp", "l1"), ("boat", None), ("boat", "gone"), (" ", None),
]  # fmt: skip
COUNTS = QueryCounts.of(SEARCHES, THINGS)


def test_popular_queries_are_as_they_were_most_often_written() -> None:
    assert COUNTS.asked == {"gel pen": 3, "pens": 2, "boat": 2, "felt pens": 1, "lamp": 1}
    assert COUNTS.popular([], 3) == ["gel pen", "boat", "pens"]


def test_what_led_to_the_last_thing_counts_most() -> None:
    """p2: felt pens and pens, a half each; p1 behind it: gel pen 2/3 and pens 1/3, by a half."""
    assert COUNTS.co_click(["p1", "p2"], 4) == ["pens", "felt pens", "gel pen"]
    assert COUNTS.co_click(["l1", "p1"], 2) == ["gel pen", "lamp"]
    assert COUNTS.co_click(["nothing", "x"], 3) == []


def test_kinds_and_openings() -> None:
    assert COUNTS.category(["l1", "p2"], 2) == ["lamp", "gel pen"]  # lamp: all, by a half; gel pen: 2 of 5
    assert COUNTS.openings(["p1", "x", "p2", "l1"], 9) == ["desk lamp", "felt pens", "gel pen"]
    assert COUNTS.openings(["l1", "l1"], 9) == ["desk lamp"]


def test_what_is_empty_is_filled_up_without_saying_anything_twice() -> None:
    assert filled_up(["Lamp"], [["lamp", "pen"], ["boat", "ink"]], 3) == ["Lamp", "pen", "boat"]
    assert filled_up([], [], 3) == []


def test_again_is_what_one_searched_for_the_last_first_and_once() -> None:
    counts = QueryCounts.of([], {})
    assert counts.again(["pens", "Lamp", " ", "PENS", "desk"], 2) == ["desk", "PENS"]
    assert counts.rows([], ["pens"], 3)["again"] == ["pens"] and counts.again([], 3) == []
