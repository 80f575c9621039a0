"""Public data sets as the stages' tables: order, days, levels of feedback, profiles from the days before."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef
from training.next_item.public_sets import (
    CUTS,
    HISTORY,
    HOUSEHOLDS,
    Event,
    core,
    feedback,
    item_stats,
    profile,
    samples,
    write_tables,
)
from training.next_item.samples import of_subset, read_samples

START = date(2018, 1, 1)
events = st.lists(
    st.builds(
        Event,
        st.sampled_from(["u", "v"]),
        st.integers(0, 5).map(lambda n: START + timedelta(days=n)),
        st.sampled_from([f"i{n}" for n in range(6)]),
        st.none(),
    ),
    max_size=30,
)


@given(events)
def test_a_history_is_the_users_items_of_the_days_before_oldest_first(drawn: list[Event]) -> None:
    rows = list(samples(drawn, {}, CUTS["office"]))
    assert sorted((row["user_id"], row["sample_date"], row["item_id"]) for row in rows) == sorted(
        (event.user_id, event.day, event.item_id) for event in drawn
    )
    for row in rows:
        before = [event for event in drawn if event.user_id == row["user_id"] and event.day < row["sample_date"]]
        ordered = [event.item_id for event in sorted(before, key=lambda event: (event.day, event.item_id))]
        assert row["history_item_ids"] == ordered[-HISTORY:]


def test_levels_of_feedback() -> None:
    assert [feedback(rating) for rating in (1.0, 2.0, 3.0, 4.0, 5.0, None)] == [
        *["disliked"] * 2,
        *["neutral"] * 2,
        "liked",
        "unknown",
    ]


def test_a_profile_names_what_stands_most_often_and_what_came_last() -> None:
    items = {
        "a": {"title": "red pen", "brand": "Ace", "category": "Office > Pens"},
        "b": {"title": "blue pen", "brand": "Zed", "category": "Office > Pens"},
        "c": {"title": None, "brand": "Zed", "category": None},
    }
    past = [Event("u", START, item, None) for item in ("a", "b", "c", "gone")]
    assert profile(past, items) == "brands: Zed, Ace; kinds: Pens; lately: blue pen | red pen"
    assert profile(past[3:], items) is None


def test_a_set_without_times_is_read_by_its_order_and_its_last_item_is_the_test(tmp_path: Path) -> None:
    folder = tmp_path / "amazon-beauty"
    folder.mkdir()
    sequences = {"user_id": [7, 8], "item_ids": [[3, 1, 2, 0], [2, 3, 1]]}
    pq.write_table(pa.table(sequences), folder / "sequences.parquet")
    items = {
        "item_id": [0, 1, 2, 3, 4],
        "short_text": [f"title {n}" for n in range(5)],
        "attributes": [["OPI", "Makeup", "Nails"], ["Unknown", "Hair"], ["Unknown"], None, ["Makeup", "Nails"]],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    write_tables("beauty", tmp_path, tmp_path / "out")
    made = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert [(row["brand"], row["category"]) for row in made] == [
        ("OPI", "Makeup > Nails"),
        (None, "Hair"),
        (None, None),
        (None, None),
        (None, "Makeup > Nails"),  # a category is no brand, though it stands first
    ]
    table = TableRef((str(tmp_path / "out" / "next_item_training_set.parquet"),))
    spec = StageSpec("generative_rec", "sft", str(tmp_path), 1, tables={"next_item_training_set": table})
    rows = read_samples(spec, "leave_one_out")
    assert [(row.item_id, row.history) for row in of_subset(rows, "test")] == [
        ("0", ("3", "1", "2")),
        ("1", ("2", "3")),
    ]


def test_office_keeps_its_times_and_ratings(tmp_path: Path) -> None:
    folder = tmp_path / "amazon-office"
    folder.mkdir()
    times = [datetime(2018, 4, day, tzinfo=UTC) for day in (10, 11)]
    rows = {"user_id": ["u", "u"], "item_id": [0, 0], "rating": [1.0, 5.0], "event_time": times}
    pq.write_table(pa.table(rows), folder / "interactions.parquet")
    items = {"item_id": [0], "title": ["pen"], "brand": [""], "description": ["blue"]}
    pq.write_table(pa.table(items), folder / "items.parquet")
    write_tables("office", tmp_path, tmp_path)
    made = pq.read_table(tmp_path / "next_item_training_set.parquet").to_pylist()
    assert [(row["split_time"], row["feedback"], row["history_item_ids"], row["history_ratings"]) for row in made] == [
        ("train", "disliked", [], []),
        ("valid", "liked", ["0"], [1.0]),
    ]
    (first, second) = pq.read_table(tmp_path / "item_stats.parquet").to_pylist()
    assert (first["available_at"].date(), second["mean_rating_365d"]) == (date(2018, 4, 11), 3.0)


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="amazon-instruments"):
        write_tables("instruments", tmp_path, tmp_path)


def test_a_grocer_is_the_first_households_and_what_they_bought(tmp_path: Path) -> None:
    folder = tmp_path / "grocery"
    (folder / "events").mkdir(parents=True)
    lines = ["item_id,title,brand,category,source", "007,MILK,,DAIRY > MILK,grocery", "8,NAPKINS,,,grocery"]
    (folder / "items.csv").write_text("\n".join(lines))
    users = [str(2 + n) for n in range(HOUSEHOLDS)] + ["1000"]  # by number: as text 1000 would be the first
    for month, day in (("10", 21), ("11", 27)):
        when = [datetime(2017, int(month), day, hour, tzinfo=UTC) for hour in (8, 9)] * len(users)
        bought = {"user_id": [user for user in users for _ in "ab"], "event_time": when}
        items = ["8" if user == "1000" else "007" for user in bought["user_id"]]
        pq.write_table(pa.table({**bought, "item_id": items}), folder / "events" / f"2017-{month}.parquet")
    write_tables("grocery", tmp_path, tmp_path)
    assert pq.read_table(tmp_path / "items.parquet")["item_id"].to_pylist() == ["007"]
    rows = pq.read_table(tmp_path / "next_item_training_set.parquet").to_pylist()
    assert {row["user_id"] for row in rows} == set(users[:-1])
    own = [row for row in rows if row["user_id"] == "2"]
    assert [(row["split_time"], row["history_item_ids"]) for row in own] == [("train", []), ("test", ["007"])]
    write_tables("grocery_year", tmp_path, tmp_path / "year")
    assert pq.read_table(tmp_path / "year" / "items.parquet")["item_id"].to_pylist() == ["007", "8"]
    year = pq.read_table(tmp_path / "year" / "next_item_training_set.parquet")
    assert set(year["user_id"].to_pylist()) == set(users)


def test_a_market_is_what_was_bought_and_its_last_days_are_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "market"
    (folder / "events").mkdir(parents=True)
    when = [datetime(2026, 1, 1 + n, 8, tzinfo=UTC) for n in range(10)]
    events = {"user_id": ["u"] * 10, "item_id": ["a", "b"] * 5, "event_time": when, "event_type": ["purchase"] * 10}
    clicks = {**events, "event_type": ["click"] * 10}
    for kind, rows in (("1", events), ("2", clicks)):
        pq.write_table(pa.table(rows), folder / "events" / f"2026-01-0{kind}.parquet")
    pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["pen", None]}), folder / "items.parquet")
    write_tables("market", tmp_path, tmp_path / "out")
    assert [row["title"] for row in pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()] == ["pen", None]
    written = pq.read_table(tmp_path / "out" / "next_item_training_set.parquet")
    assert written.schema.metadata == {b"origin": b"simulated"}
    rows = written.to_pylist()
    assert [row["split_time"] for row in rows] == ["train"] * 8 + ["valid", "test"]
    assert {row["feedback"] for row in rows} == {"unknown"}
    write_tables("market", tmp_path, tmp_path / "none", least=6)
    assert pq.read_table(tmp_path / "none" / "next_item_training_set.parquet").num_rows == 0


@given(events, st.integers(1, 4))
def test_a_core_is_the_most_that_has_enough_of_each(drawn: list[Event], least: int) -> None:
    kept = core(drawn, least)
    for name in ("user_id", "item_id"):
        counts = Counter(getattr(event, name) for event in kept)
        assert all(count >= least for count in counts.values())
    assert core(kept, least) == kept and (least > 1 or kept == drawn)


def test_a_core_by_hand() -> None:
    pairs = ["ua", "ub", "va", "vb", "wb", "wc", "xc"]  # x has one; without it c has one, and then w
    kept = core([Event(user, START, item, None) for user, item in pairs], 2)
    assert [event.user_id + event.item_id for event in kept] == ["ua", "ub", "va", "vb"]


rated = st.lists(
    st.builds(
        Event,
        st.sampled_from(["u", "v", "w"]),
        st.integers(0, 380).map(lambda n: START + timedelta(days=n)),
        st.sampled_from(["i0", "i1"]),
        st.none() | st.integers(1, 5).map(float),
    ),
    max_size=12,
)


@given(rated)
def test_statistics_of_an_item_are_of_the_year_that_ends_with_a_day_of_its_own(drawn: list[Event]) -> None:
    rows = item_stats(drawn).to_pylist()
    assert [(row["item_id"], row["available_at"].date()) for row in rows] == sorted(
        {(event.item_id, event.day + timedelta(days=1)) for event in drawn}
    )
    for row in rows:
        last = row["available_at"].date() - timedelta(days=1)
        year = [one for one in drawn if one.item_id == row["item_id"] and 0 <= (last - one.day).days < 365]
        given_ = [one.rating for one in year if one.rating is not None]
        assert row["events_365d"] == len(year)
        assert row["mean_rating_365d"] == (pytest.approx(sum(given_) / len(given_)) if given_ else None)
