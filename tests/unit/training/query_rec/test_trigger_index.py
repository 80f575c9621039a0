"""Interests turned around: which queries a trigger leads to, over all people, and in which order."""

from __future__ import annotations

import math
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.query_rec.interest_lists import Interest
from training.query_rec.trigger_index import (
    BY_ITEM,
    BY_SEARCH,
    INDEX,
    TIES,
    IndexConfig,
    Trigger,
    index_of,
    ties,
)

_PENS, _RED = Trigger(BY_ITEM, "i1"), Trigger(BY_SEARCH, "red pens")


def tied(*rows: tuple[str, str, str, float]) -> pa.Table:
    return pa.Table.from_arrays([pa.array(own) for own in zip(*rows, strict=True)] or [[]] * 4, schema=TIES)


def test_every_trigger_of_an_interest_leads_to_all_its_queries_that_may_be_shown() -> None:
    interests = [Interest((1, 2), ("ink", "bomb")), Interest((2, 9), ("desk", "ink"))]
    found = list(ties([_PENS, _RED], interests, {"ink": 0.2, "desk": 0.1}))
    assert found == [
        ("item", "i1", "ink", 0.2),
        ("search", "red pens", "ink", 0.2),
        ("search", "red pens", "desk", 0.1),
    ]
    assert list(ties([], interests, {"ink": 0.2})) == []
    assert list(ties([None, _RED], interests, {"desk": 0.1})) == [("search", "red pens", "desk", 0.1)]


def test_the_order_is_that_of_the_formula() -> None:
    # i1: ink by three people, desk by one. ink is searched for 7 times, desk 1 time; chances .1 and .4.
    rows = [("item", "i1", "ink", 0.1)] * 3 + [("item", "i1", "desk", 0.4)]
    found = index_of(tied(*rows), {"ink": 7, "desk": 1}, IndexConfig(alpha=0.6)).to_pylist()
    ink_worth, desk_worth = (1 + 0.25) / 2, (math.log(2) / math.log(8) + 1) / 2
    desk_relevance = math.log(2) / math.log(4)
    assert [(row["place"], row["query"], row["people"]) for row in found] == [(1, "ink", 3), (2, "desk", 1)]
    assert found[0]["score"] == pytest.approx(0.6 * 1 + 0.4 * ink_worth)
    assert found[1]["score"] == pytest.approx(0.6 * desk_relevance + 0.4 * desk_worth)


def test_a_query_is_one_however_it_is_written_and_stands_as_it_was_written_most_often() -> None:
    interests = [Interest((1,), ("USB hub", "usb  HUB")), Interest((1,), ("\uff35SB hub",))]
    shown = {"USB hub": 0.2, "usb  HUB": 0.4, "\uff35SB hub": 0.3}
    assert list(ties([_PENS], interests, shown)) == [("item", "i1", "USB hub", 0.2)]
    rows = [("item", "i1", query, 0.2) for query in ("usb hub", "USB hub", "\uff35SB hub", "USB hub", "ink")]
    first, second = index_of(tied(*rows), {"usb hub": 3, "USB hub": 99}, IndexConfig()).to_pylist()
    assert (first["query"], first["people"], first["worth"]) == ("USB hub", 4, 1.0)
    assert (second["query"], second["worth"]) == ("ink", 0.5)


def test_a_night_without_ties_has_an_empty_index() -> None:
    assert index_of(tied(), {}, IndexConfig()).schema.names == INDEX.names
    assert len(index_of(tied(), {}, IndexConfig())) == 0


_ROWS = st.lists(
    st.tuples(
        st.sampled_from([BY_ITEM, BY_SEARCH]), st.sampled_from("abc"), st.sampled_from(["x", "y", "z"]), st.floats(0, 1)
    ),
    max_size=30,
)


@given(_ROWS, st.integers(1, 3), st.randoms())
def test_places_count_from_one_scores_fall_and_the_order_of_people_does_not_matter(
    rows: list[tuple[str, str, str, float]], top: int, random: Random
) -> None:
    config = IndexConfig(top=top)
    found = index_of(tied(*rows), {"x": 3}, config)
    mixed = random.sample(rows, len(rows))
    again = index_of(tied(*mixed), {"x": 3}, config).to_pylist()
    for row, other in zip(found.to_pylist(), again, strict=True):
        assert {name: own for name, own in row.items() if name not in ("score", "worth")} == {
            name: own for name, own in other.items() if name not in ("score", "worth")
        }
        assert 0 <= row["score"] <= 1 + 1e-12 and row["score"] == pytest.approx(other["score"])
    by_trigger: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in found.to_pylist():
        by_trigger.setdefault((row["kind"], row["trigger"]), []).append(row)
    assert set(by_trigger) == {(kind, trigger) for kind, trigger, _, _ in rows}
    for own in by_trigger.values():
        assert [row["place"] for row in own] == list(range(1, len(own) + 1)) and len(own) <= top
        assert [row["score"] for row in own] == sorted((row["score"] for row in own), reverse=True)


def test_weights_that_leave_one_side_out_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
        IndexConfig(alpha=1.0)
