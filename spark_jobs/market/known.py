"""What the market takes from the lake: the catalogue of the day and what people took, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from infra.errors import DataError
from infra.lake import Lake
from spark_jobs.market.people import REMEMBERED


def catalogue(lake: Lake) -> pd.DataFrame:
    """The newest delivery."""
    files = lake.files("items")
    if not files:
        raise DataError(
            "The market has no catalogue.",
            why="No item was ever published.",
            do="Ingest one: `python -m spark_jobs landed`.",
        )
    newest = max(file.partition for file in files)
    columns = ["item_id", "title", "brand", "category", "price"]
    return pd.concat([pd.read_parquet(file.path, columns=columns) for file in files if file.partition == newest])


def taken(lake: Lake, users: Sequence[str]) -> pd.DataFrame:
    """`user_id`, `item_id` of the last things that each of `users` took, newest first."""
    files = [file.path for file in lake.files("events")]
    if not files:
        return pd.DataFrame({"user_id": pd.Series(dtype=str), "item_id": pd.Series(dtype=str)})
    asked = pd.DataFrame({"user_id": list(users)})
    with duckdb.connect() as connection:
        connection.register("asked", asked)
        return connection.execute(
            """select user_id, item_id from read_parquet(?) semi join asked using (user_id)
               qualify row_number() over (partition by user_id order by event_time desc, item_id) <= ?
               order by user_id, event_time desc, item_id""",
            [files, REMEMBERED],
        ).df()
