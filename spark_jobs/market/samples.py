"""The samples of a market's shop as a folder of tables, for `python -m training bench`: what the shop knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import DataError
from infra.lake import Lake

TABLES = ("items", "item_stats", "bids", "next_item_training_set", "judge_training_set", "judge_pairs")
"""What the jobs of ranker, judge and generator read. Of `items` the newest delivery counts, of the others all days."""


def write_samples(lake: Lake, folder: Path) -> Mapping[str, int]:
    """Write `<table>.parquet` of each of the TABLES, with its origin; returns the rows of each.

    Raises:
        DataError: one of them was never filled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for table in TABLES:
        files = lake.files(table)
        if not files:
            do = "Land and build the shop, and join its training sets, as spark_jobs/README.md says."
            raise DataError(f"Nothing of the table {table!r} is there.", do=do)
        if table == "items":
            files = [file for file in files if file.partition == files[-1].partition]
        whole = pa.concat_tables([pq.read_table(file.path, partitioning=None) for file in files])
        origin = {"origin": lake.contract(table).origin}
        pq.write_table(whole.replace_schema_metadata(origin), folder / f"{table}.parquet")
        rows[table] = len(whole)
    return rows
