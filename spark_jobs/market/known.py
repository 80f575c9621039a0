"""What the market takes of a lake: the catalogue of the shop that people act on, and what people took."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from infra.contracts import load_contract
from infra.errors import DataError
from infra.lake import Lake
from spark_jobs.engine.job import read_files
from spark_jobs.engine.spark import spark_session

COLUMNS = ("item_id", "source", "title", "brand", "category", "price")


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
    parts = [pd.read_parquet(file.path, columns=list(COLUMNS)) for file in files if file.partition == newest]
    return pd.concat(parts, ignore_index=True)


def intents(lake: Lake) -> pd.DataFrame:
    """`kind`, `intent`, `text` of the newest delivery; none where nothing was ever published."""
    files = lake.files("intents")
    newest = max((file.partition for file in files), default=None)
    columns = ["kind", "intent", "text"]
    parts = [pd.read_parquet(file.path, columns=columns) for file in files if file.partition == newest]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in columns}, dtype=str)


def utterances(lake: Lake) -> pd.DataFrame:
    """`intent`, `text`: what customers say."""
    rows = intents(lake)
    return rows[rows["kind"] == "utterance"][["intent", "text"]]


def queries(lake: Lake) -> list[str]:
    """All that the lake has, each once."""
    parts = [pd.read_parquet(file.path, columns=["query"])["query"] for file in lake.files("queries")]
    return sorted(set(pd.concat(parts))) if parts else []


def delivered(items: DataFrame, night: date, listed: Collection[str]) -> pd.DataFrame:
    """The newest delivery as of a night, of the shop of the items `listed`."""
    known = items.where(F.col("snapshot_date") <= night)
    newest = known.agg(F.max("snapshot_date")).head()[0]
    return of_their_shop(known.where(F.col("snapshot_date") == newest).select(*COLUMNS).toPandas(), listed)


def of_their_shop(items: pd.DataFrame, listed: Collection[str]) -> pd.DataFrame:
    """Without the catalogues that stand beside the one of the items `listed`: nobody can be shown anything of them."""
    return items[items["source"].isin(items["source"][items["item_id"].isin(listed)].unique())]


def events(lake: Lake) -> DataFrame:
    """All of them."""
    return read_files(spark_session(lake.profile), load_contract("events"), lake.files("events"))


def taken(events: DataFrame, users: Sequence[str], most: int) -> pd.DataFrame:
    """`user_id`, `item_id` of the last things that each of `users` took, at most so many, newest first."""
    asked = events.sparkSession.createDataFrame(pd.DataFrame({"user_id": list(users)}), "user_id string")
    newest = Window.partitionBy("user_id").orderBy(F.desc("event_time"), "item_id", "event_type")
    own = events.join(F.broadcast(asked), "user_id", "left_semi").withColumn("place", F.row_number().over(newest))
    last = own.where(F.col("place") <= most).select("user_id", "item_id", "place").toPandas()
    return last.sort_values(["user_id", "place"], ignore_index=True)[["user_id", "item_id"]]
