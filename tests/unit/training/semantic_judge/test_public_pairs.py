"""Public ratings as the judge's tables: nothing of the day or later is history, and parts do not mix."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.judge_kit import stage_spec
from training.core.stage import TableRef
from training.next_item.public_sets import CUTS
from training.semantic_judge.example_tables import (
    EVENTS,
    EXAMPLES,
    MEAN_RATING,
    PAIRS,
    read_examples,
    read_items,
    read_pairs,
)
from training.semantic_judge.public_pairs import PAIR_DAYS, Split, write_tables

pytestmark = pytest.mark.unit
START = date(2018, 3, 1)
PARTS = ("train", "valid", "test")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """30 users, 6 items each on days of their own, stars in a cycle; a late one of the first more than a year after."""
    folder = tmp_path / "data" / "amazon-office"
    folder.mkdir(parents=True)
    taken = [
        {
            "user_id": f"u{user}",
            "item_id": (user * 3 + place) % 20,
            "rating": (5.0, 1.0, 5.0, 3.0, 2.0, 5.0)[place],
            "event_time": datetime.combine(START + timedelta(days=user + 8 * place), datetime.min.time(), UTC),
        }
        for user in range(30)
        for place in range(6)
    ]
    late = START + timedelta(days=PAIR_DAYS + 60)
    taken.append(
        {"user_id": "u0", "item_id": 19, "rating": 1.0, "event_time": datetime.combine(late, datetime.min.time(), UTC)}
    )
    pq.write_table(pa.Table.from_pylist(taken), folder / "interactions.parquet")
    items = [{"item_id": item, "title": f"item {item}", "brand": "acme", "description": ""} for item in range(20)]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    return tmp_path / "data"


def tables(data: Path, out: Path, split: Split) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    write_tables(data, out, split)
    return tuple(pq.read_table(out / f"{name}.parquet").to_pylist() for name in (EXAMPLES, PAIRS))  # type: ignore[return-value]


@pytest.mark.parametrize("split", ["users", "time"])
def test_a_pair_is_of_one_user_a_year_apart_at_most_and_both_are_examples(
    data: Path, tmp_path: Path, split: Split
) -> None:
    examples, pairs = tables(data, tmp_path / "out", split)
    known = {(row["user_id"], row["as_of"], row["item_id"]): row for row in examples}
    assert len(known) == len(examples) and pairs
    for pair in pairs:
        preferred, other = (
            known[pair["user_id"], pair["as_of"], pair[f"{name}_item_id"]] for name in ("preferred", "other")
        )
        assert preferred["rating"] == 5.0 and other["rating"] <= 2.0 and pair["source"] == "rating"
        assert preferred["item_id"] != other["item_id"]
        # A member of several pairs is of the last one's part: no row of an earlier part tells of it.
        assert min(PARTS.index(one["split_time"]) for one in (preferred, other)) >= PARTS.index(pair["split_time"])
        assert preferred["history_item_ids"] == other["history_item_ids"]
    assert not any(
        pair["other_item_id"] == "19"
        and pair["user_id"] == "u0"
        and pair["as_of"].year == 2018
        and pair["as_of"].date() == START
        for pair in pairs
    ), "more than a year apart"
    spec = stage_spec(
        tmp_path,
        "teach",
        {name: TableRef((str(tmp_path / "out" / f"{name}.parquet"),)) for name in ("items", EXAMPLES, PAIRS)},
    )
    read = read_examples(spec, read_items(spec))
    assert len(read) == len(examples) and len(read_pairs(spec, read)) == len(pairs)


@pytest.mark.parametrize("split", ["users", "time"])
def test_history_is_of_days_before_and_hindsight_of_the_same_part(data: Path, tmp_path: Path, split: Split) -> None:
    examples, _ = tables(data, tmp_path / "out", split)
    rows = pq.read_table(data / "amazon-office" / "interactions.parquet").to_pylist()
    day_of = {(row["user_id"], str(row["item_id"])): row["event_time"] for row in rows}
    by_user = {row["user_id"]: row["split_time"] for row in examples}

    def part(user: str, day: date) -> str:
        return by_user[user] if split == "users" else PARTS[sum(day >= cut for cut in CUTS["office"])]

    for row in examples:
        assert all(day_of[row["user_id"], item] < row["as_of"] for item in row["history_item_ids"])
        for item in row["later_item_ids"]:
            assert row["as_of"] <= day_of[row["user_id"], item] < row["as_of"] + timedelta(days=90)
            assert item != row["item_id"]
            assert part(row["user_id"], day_of[row["user_id"], item].date()) == part(
                row["user_id"], row["as_of"].date()
            )
        before = [
            one["rating"] for one in rows if str(one["item_id"]) == row["item_id"] and one["event_time"] < row["as_of"]
        ]
        assert row[EVENTS] == (len(before) or None)
        assert row[MEAN_RATING] == (pytest.approx(sum(before) / len(before)) if before else None)


def test_no_user_is_in_two_parts_of_a_split_by_users(data: Path, tmp_path: Path) -> None:
    examples, _ = tables(data, tmp_path / "out", "users")
    parts: dict[str, set[str]] = {}
    for row in examples:
        parts.setdefault(row["user_id"], set()).add(row["split_time"])
    assert all(len(own) == 1 for own in parts.values()) and len(set.union(*parts.values())) > 1
