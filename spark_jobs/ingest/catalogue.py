"""Is an item id in the catalogue? Asked as of the day of the row: the newest delivery up to it, else the oldest one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import RowRule, load_contract
from infra.errors import DataError
from infra.lake import Lake
from infra.partitions import stands_in
from spark_jobs.engine.job import read_files

_DELIVERY, _ITEM_KNOWN = "_delivery", "_item_known"


class Catalogue:
    """The deliveries of the items table as they are live now."""

    def __init__(self, lake: Lake, asked_by: str) -> None:
        self._files = lake.files("items")
        self._days = sorted({file.partition for file in self._files})
        if not self._days:
            raise DataError(
                f"The items that {asked_by} refer to are not there.",
                why="No item was ever published: none was delivered, or all that was delivered was refused.",
                do="Ingest items first; what it refuses stands in its own messages.",
            )

    def delivery(self, day: date) -> date:
        """The delivery that counts on `day`."""
        return self._days[max(0, bisect_right(self._days, day) - 1)]

    def inputs(self, day: date) -> list[str]:
        """What of the catalogue a partition depends on, for its run key."""
        delivery = self.delivery(day)
        return sorted({f"items/{delivery}/{file.run_key}" for file in self._files if file.partition == delivery})

    def rule(self, days: Iterable[date]) -> RowRule:
        """Whether the item of a row is known. What lacks the items that were refused of it blames no row for them."""
        deliveries = {self.delivery(day) for day in days}
        lacking = any(stands_in(file.run_key) for file in self._files if file.partition in deliveries)
        level: Literal["drop", "fail"] = "drop" if lacking else "fail"
        later = " Many rows of it were refused: once it is delivered again, these rows are read again."
        text = f"item_id is in the catalogue (items) as of that day.{later if lacking else ''}"
        return RowRule("item_known", f"item_id is null or {_ITEM_KNOWN}", level, text)

    def mark(self, spark: SparkSession, rows: DataFrame, partition: str, days: Sequence[date]) -> DataFrame:
        """Add `_item_known`, which `rule` asks for."""
        deliveries = {day: self.delivery(day) for day in days}
        files = [file for file in self._files if file.partition in set(deliveries.values())]
        known = read_files(spark, load_contract("items"), files).select(
            F.col("snapshot_date").alias(_DELIVERY), "item_id", F.lit(True).alias(_ITEM_KNOWN)
        )
        as_of = F.create_map(*[F.lit(part) for pair in deliveries.items() for part in pair])
        marked = rows.withColumn(_DELIVERY, as_of[F.col(partition)]).join(known, [_DELIVERY, "item_id"], "left")
        return marked.withColumn(_ITEM_KNOWN, F.coalesce(_ITEM_KNOWN, F.lit(False))).drop(_DELIVERY)
