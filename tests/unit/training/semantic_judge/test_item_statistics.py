"""What others had made of an item before a day, beside what a plain search says."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.stage import StageSpec, TableRef
from training.semantic_judge.examples import Catalogue, Item
from training.semantic_judge.item_statistics import ItemStatistics

CATALOGUE = Catalogue([Item(name, None, None, None, None) for name in "abc"])
START = datetime(2024, 1, 1, tzinfo=UTC)
Row = tuple[str, int, float | None, int]


def read(folder: Path, rows: list[Row]) -> ItemStatistics:
    items, days, ratings, events = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    table = pa.table(
        {
            "item_id": pa.array(items, pa.string()),
            "available_at": pa.array([START + timedelta(days=day) for day in days], pa.timestamp("us", "UTC")),
            "mean_rating_365d": pa.array(ratings, pa.float64()),
            "events_365d": pa.array(events, pa.int64()),
        }
    )
    pq.write_table(table, folder / "item_stats.parquet")
    tables = {"item_stats": TableRef((str(folder / "item_stats.parquet"),), 1, "real")}
    return ItemStatistics.read(StageSpec("semantic_judge", "evaluate", str(folder), 1, tables), CATALOGUE)


days = st.integers(0, 900)
listed = st.lists(st.tuples(st.sampled_from("abcz"), days, st.none() | st.floats(1, 5, width=32), st.integers(1, 99)))


@given(listed, st.lists(st.tuples(st.integers(0, 2), days), max_size=8))
def test_it_is_the_newest_row_that_was_there_and_is_not_a_year_old(
    rows: list[Row], asked: list[tuple[int, int]]
) -> None:
    rows = list({(row[0], row[1]): row for row in rows}.values())
    with TemporaryDirectory() as folder:
        found = read(Path(folder), rows) if rows else None
    if found is None:
        return
    first = (START - datetime(1970, 1, 1, tzinfo=UTC)).days
    ratings, events = found.of(*(np.array(column, dtype=np.int64) for column in _columns(asked, first)))
    for (item, day), rating, count in zip(asked, ratings, events, strict=True):
        there = [row for row in rows if row[0] == "abc"[item] and day - 365 <= row[1] <= day]
        newest = max(there, key=lambda row: row[1], default=(None, 0, None, np.nan))
        assert rating == pytest.approx(np.nan if newest[2] is None else newest[2], nan_ok=True)
        assert count == pytest.approx(newest[3], nan_ok=True)


def _columns(asked: list[tuple[int, int]], first: int) -> tuple[list[int], list[int]]:
    return [item for item, _ in asked], [first + day for _, day in asked]
