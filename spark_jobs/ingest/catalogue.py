"""Is an item id in the catalogue? Asked as of the day of the row: the newest delivery up to it, else the oldest one.

Rows of no day (a judgment without a date) are asked of all deliveries. A row whose item was delivered, and refused, is
not to blame: it is set aside until the item is delivered again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import UNDATED, RowRule, load_contract, quarantine_contract
from infra.errors import DataError
from infra.lake import Lake
from infra.partitions import QUARANTINE_SUFFIX, stands_in
from spark_jobs.engine.job import read_files
from spark_jobs.landing.tables import Landed

_ASKED, _KNOWN, _REFUSED = "_asked", "_item_known", "_item_refused"
_ANY = date.max  # stands for all deliveries


class Catalogue:
    """The deliveries of the items table as they are live now, as `landed` asks for them."""

    def __init__(self, lake: Lake, landed: Landed) -> None:
        self._lake = lake
        self._undated_count = not landed.has_quiet_days
        self._files = lake.files("items")
        self._days = sorted({file.partition for file in self._files})
        if not self._days:
            raise DataError(
                f"The items that {landed.table} refer to are not there.",
                why="No item was ever published: none was delivered, or all that was delivered was refused.",
                do="Ingest items first; what it refuses stands in its own messages.",
            )

    @property
    def rules(self) -> tuple[RowRule, ...]:
        """Whether the item of a row is known, and whether it would be, had it not been refused; of rows with marks."""
        later = "Its item was refused by items: once that is delivered again, it is read again."
        return (
            RowRule("item_not_refused", f"not {_REFUSED}", "drop", later),
            RowRule(
                "item_known",
                f"item_id is null or {_KNOWN} or {_REFUSED}",
                "fail",
                "item_id is in the catalogue (items) as of that day.",
            ),
        )

    def inputs(self, day: date) -> list[str]:
        """What of the catalogue a partition depends on, for its run key."""
        deliveries = set(self._deliveries(day))
        return sorted({f"items/{f.partition}/{f.run_key}" for f in self._files if f.partition in deliveries})

    def mark(self, spark: SparkSession, rows: DataFrame, partition: str, days: Sequence[date]) -> DataFrame:
        """Add what `rules` ask about."""
        asked = {day: self._asked(day) for day in days}
        deliveries = sorted({delivery for day in days for delivery in self._deliveries(day)})
        items = self._items(spark, deliveries, any_too=_ANY in asked.values())
        lacking = sorted({f.partition for f in self._files if f.partition in deliveries and stands_in(f.run_key)})
        as_of = F.create_map(*[F.lit(part) for pair in asked.items() for part in pair])
        marked = rows.withColumn(_ASKED, as_of[F.col(partition)]).join(items, [_ASKED, "item_id"], "left")
        stranger = F.col("item_id").isNotNull() & F.col(_KNOWN).isNull()
        forgiven = F.col(_ASKED).isin(*lacking, *([_ANY] if lacking else []))
        refused = F.coalesce(~F.col(_KNOWN), F.lit(False)) | (stranger & forgiven)
        known = F.coalesce(_KNOWN, F.lit(False))
        return marked.withColumns({_REFUSED: refused, _KNOWN: known}).drop(_ASKED)

    def _asked(self, day: date) -> date:
        """The delivery that counts on `day`, or all."""
        if day == UNDATED and self._undated_count:
            return _ANY
        return self._days[max(0, bisect_right(self._days, day) - 1)]

    def _deliveries(self, day: date) -> list[date]:
        asked = self._asked(day)
        return self._days if asked == _ANY else [asked]

    def _items(self, spark: SparkSession, deliveries: Sequence[date], *, any_too: bool) -> DataFrame:
        """Each item of the deliveries once: the delivery (`_asked`), its id, and whether it is known or was refused."""
        contract = load_contract("items")
        files = [file for file in self._files if file.partition in set(deliveries)]
        known = read_files(spark, contract, files).select("snapshot_date", "item_id", F.lit(True).alias(_KNOWN))
        # A refused row without a date could be of any delivery.
        bad = [
            file for file in self._lake.files(f"items{QUARANTINE_SUFFIX}") if file.partition in {*deliveries, UNDATED}
        ]
        if bad:
            rows = read_files(spark, quarantine_contract(contract), bad)
            dates = F.when(F.col("snapshot_date") == UNDATED, F.array(*[F.lit(day) for day in deliveries])).otherwise(
                F.array("snapshot_date")
            )
            item = F.get_json_object("key_json", "$.item_id").alias("item_id")
            refused = rows.select(F.explode(dates).alias("snapshot_date"), item, F.lit(False).alias(_KNOWN))
            known = known.unionByName(refused)
        if any_too:
            known = known.withColumn("snapshot_date", F.explode(F.array("snapshot_date", F.lit(_ANY))))
        if bad or any_too:
            known = known.groupBy("snapshot_date", "item_id").agg(F.max(_KNOWN).alias(_KNOWN))
        return known.withColumnRenamed("snapshot_date", _ASKED)
