"""Rows of many days to one file a day, as a task of Spark does it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import arrow_schema, load_contract
from infra.lake.schema import read_footers
from spark_jobs.engine.staging import write_runs

SCHEMA = pa.schema([pa.field("day", pa.date32(), nullable=False), pa.field("n", pa.int64())])


def cut(table: pa.Table, places: Sequence[int]) -> list[pa.RecordBatch]:
    """The rows as batches that end at the `places`."""
    bounds = [0, *sorted(place % (len(table) + 1) for place in places), len(table)]
    return [batch for a, b in pairwise(bounds) for batch in table.slice(a, b - a).to_batches()]


@given(st.lists(st.integers(0, 4), max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_each_run_of_a_day_is_a_file_and_no_row_is_lost_wherever_batches_end(days: list[int], ends: list[int]) -> None:
    rows = [{"day": date(2024, 1, 1) + timedelta(days=day), "n": n} for n, day in enumerate(days)]
    with tempfile.TemporaryDirectory() as folder:
        batches = cut(pa.Table.from_pylist(rows, SCHEMA), ends)
        (told,) = write_runs(iter(batches), folder=Path(folder), schema=SCHEMA, partition="day")
        files = [pq.read_table(Path(folder) / name).to_pylist() for name in told.column("name").to_pylist()]
        assert told.column("day").to_pylist() == [file[0]["day"] for file in files]
        assert len(list(Path(folder).iterdir())) == len(files)
    assert files == [list(run) for _, run in groupby(rows, key=lambda row: row["day"])]


def test_what_spark_hands_over_gets_the_types_of_the_contract_and_passes_what_publish_checks(tmp_path: Path) -> None:
    contract = load_contract("histories")
    schema = arrow_schema(contract)
    # Spark names the elements of its lists otherwise, and marks nothing as required.
    loose = pa.schema(
        pa.field(f.name, pa.list_(pa.field("element", f.type.value_type)) if pa.types.is_list(f.type) else f.type)
        for f in schema
    )
    day, moment = date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)
    values = {
        "history_date": day, "user_id": "u", "as_of": moment, "item_ids": ["a"], "ratings": [None],
        "event_dates": [day - timedelta(days=1)], "history_len": 1,
    }  # fmt: skip
    batch = pa.RecordBatch.from_pylist([values, values], loose)
    (told,) = write_runs(iter([batch]), folder=tmp_path, schema=schema, partition=contract.partition)
    (footer,) = read_footers(contract, day, [str(tmp_path / told.column("name")[0].as_py())])
    assert footer.rows == 2


def test_a_missing_value_of_a_required_column_is_not_written(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pylist([{"day": date(2024, 1, 1), "n": None}], SCHEMA)
    strict = pa.schema([SCHEMA.field("day"), pa.field("n", pa.int64(), nullable=False)])
    with pytest.raises(ValueError, match="with null values to non-nullable"):
        list(write_runs(iter([batch]), folder=tmp_path, schema=strict, partition="day"))
