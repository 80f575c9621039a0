"""The bid that held on a day, beside what a plain search says; and what is no bid."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, TableRef
from training.generative_rec.bids import Bids

START = datetime(2024, 1, 1, tzinfo=UTC)
Row = tuple[str, int, float]


def read(folder: Path, rows: list[Row]) -> Bids:
    items, hours, bids = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    times = pa.array([START + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC"))
    columns = {"item_id": pa.array(items, pa.string()), "bid_time": times, "bid": pa.array(bids, pa.float64())}
    pq.write_table(pa.table(columns), folder / "bids.parquet")
    return Bids.read(StageSpec("s", "a2po", str(folder), 1, {"bids": TableRef((str(folder / "bids.parquet"),))}))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 96), st.floats(0, 9)), min_size=1, max_size=12),
    st.sampled_from("abz"),
    st.integers(-1, 5),
)
def test_it_is_the_newest_that_stood_when_the_day_began(rows: list[Row], item: str, day: int) -> None:
    rows = list({row[:2]: row for row in rows}.values())
    with TemporaryDirectory() as folder:
        found = read(Path(folder), rows).of(item, (START + timedelta(days=day)).date())
    there = [row for row in rows if row[0] == item and row[1] <= 24 * day]
    assert found == max(there, key=lambda row: row[1], default=("", 0, 0.0))[2]


def test_a_shop_where_nobody_pays_is_left_out_and_a_bid_below_zero_refused(tmp_path: Path) -> None:
    with pytest.raises(LeftOut, match="the shop has no bids"):
        Bids.read(StageSpec("s", "a2po", str(tmp_path), 1))
    with pytest.raises(LeftOut, match="the shop has no bids"):
        read(tmp_path, [])
    with pytest.raises(DataError, match="below zero"):
        read(tmp_path, [("a", 1, -0.5)])
    assert read(tmp_path, [("a", 1, 0.5)]).of("b", date(2025, 1, 1)) == 0.0
