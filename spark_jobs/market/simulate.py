"""The market's log as files that a shop would land: people in blocks through Spark, one file a table and day.

What a person does depends on the seed and on their number alone, and a file's rows are sorted by what they are: the
same seed gives the same bytes, however many processes take part.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from infra.errors import DataError
from spark_jobs.market.draws import Draws
from spark_jobs.market.log import Log, logged
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.visits import Horizon, World

BLOCK = 2_000  # people at a time
_PROBED = 200  # people who tell how many rows one leaves
_BYTES = 100  # of a row, with what Spark needs for sorting it
_ROW_GROUP = 250_000
_ROWS = (
    "log string, day date, user_id string, item_id string, time timestamp, event_type string, rating double, "
    "price double, request_id string, position long, policy_version string, item_chance double, list_chance double, "
    "bid double"
)
_SHAPES = {
    "exposures": (
        "request_id", "user_id", "item_id", "time", "position", "policy_version", "item_chance", "list_chance", "bid",
    ),
    "events": ("user_id", "item_id", "time", "event_type", "rating", "price"),
}  # fmt: skip
_TIMES = {"exposures": "exposure_time", "events": "event_time"}


@dataclass(frozen=True)
class Simulated:
    """What was written: files and rows by table, and the number of people."""

    people: int
    rows: dict[str, int]


@dataclass(frozen=True)
class Order:
    """So many `rows` of all logs, about; from the day `start` on; into the `folder`, which must be new or empty."""

    rows: int
    seed: int
    start: date
    days: int
    folder: Path

    @property
    def end(self) -> date:
        """The last day."""
        return self.start + timedelta(days=self.days - 1)

    @property
    def horizon(self) -> Horizon:
        """For the world."""
        return Horizon(int(datetime.combine(self.start, time(), UTC).timestamp()) * 1_000_000, self.days)

    def require_room(self) -> None:
        """Raise a DataError if the folder is in use, or the disk could not hold the log."""
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise DataError(
                "The market writes into a folder of its own.",
                where=str(self.folder),
                why="It is there and not empty.",
                do="Name another folder, or remove it.",
            )
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        free, needed = shutil.disk_usage(there).free, self.rows * _BYTES
        if needed > free:
            raise DataError(
                f"The disk cannot hold {self.rows:,} rows of the market.",
                where=str(there),
                why=f"About {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free.",
                do="Choose a smaller --scale, or a folder on another disk.",
            )


def simulate(spark: SparkSession, shop: Shop, parameters: Parameters, order: Order) -> Simulated:
    """Write the log that was ordered.

    Raises:
        DataError: the folder is in use, or the disk could not hold the log; nothing was done.
    """
    order.require_room()
    world = World(shop, parameters, Draws(order.seed), order.horizon)
    people = _people(world, order.rows)
    known = spark.sparkContext.broadcast((world, people, BLOCK, parameters.logging.version))
    starts = spark.range(0, people, BLOCK, -(-people // BLOCK))
    lived = starts.mapInArrow(lambda batches: _lived(batches, *known.value), _ROWS)
    sort = ("log", "day", "time", "user_id", "position", "item_id", "event_type")
    ordered = lived.repartition(order.days, "day").sortWithinPartitions(*sort)
    order.folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{order.folder.name}.", dir=order.folder.parent))
    try:
        rows = _written(ordered, scratch)
        if order.folder.is_dir():
            order.folder.rmdir()
        scratch.rename(order.folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        known.destroy()
    return Simulated(people, rows)


def _people(world: World, rows: int) -> int:
    """How many people leave so many rows: the first ones tell."""
    log = logged(world, np.arange(_PROBED))
    each: float = sum(batch.num_rows for batch in (*log.exposures, *log.events)) / _PROBED
    return max(1, int(rows / max(each, 1.0) + 0.5))


def _lived(
    starts: Iterable[pa.RecordBatch], world: World, people: int, block: int, version: str
) -> Iterator[pa.RecordBatch]:
    for batch in starts:
        for start in batch["id"].to_pylist():
            log = logged(world, np.arange(start, min(people, start + block)))
            yield from _rows(log, pa.array(world.shop.item_ids, pa.string()), version)


def _rows(log: Log, item_ids: pa.Array, version: str) -> Iterator[pa.RecordBatch]:
    """Numbers to ids, both logs in one shape."""
    for name, batches in (("exposures", log.exposures), ("events", log.events)):
        table = pa.Table.from_batches(batches).combine_chunks()
        users = pc.binary_join_element_wise("m", pc.utf8_lpad(table["user"].cast(pa.string()), 9, "0"), "")
        when = table["time"].cast(pa.timestamp("us", "UTC"))
        columns = {
            "log": pa.array([name], pa.string()).take(pa.array(np.zeros(len(table), dtype=np.int8))),
            "day": when.cast(pa.date32()),
            "user_id": users,
            "item_id": item_ids.take(table["item"].combine_chunks()),
            "time": when,
        }
        if name == "exposures":
            columns |= {
                "request_id": pc.binary_join_element_wise(users, table["visit"].cast(pa.string()), "-"),
                "position": table["position"].cast(pa.int64()),
                "policy_version": pa.array([version]).take(pa.array(np.zeros(len(table), dtype=np.int8))),
                **{key: table[key] for key in ("item_chance", "list_chance", "bid")},
            }
        else:
            columns |= {key: table[key] for key in ("event_type", "rating", "price")}
        whole = {field.name: columns.get(field.name, pa.nulls(len(table), field.type)) for field in _arrow_schema()}
        yield from pa.table(whole, _arrow_schema()).to_batches(max_chunksize=100_000)


def _arrow_schema() -> pa.Schema:
    kinds = {"string": pa.string(), "date": pa.date32(), "timestamp": pa.timestamp("us", "UTC"), "double": pa.float64()}
    pairs = (column.split() for column in _ROWS.split(", "))
    return pa.schema([(name, kinds.get(kind, pa.int64())) for name, kind in pairs])


def _written(ordered: DataFrame, folder: Path) -> dict[str, int]:
    """One file of each table and day; how many rows each table has."""
    target = str(folder)
    files = ordered.mapInArrow(lambda batches: _files(batches, target), "log string, rows long").collect()
    found = dict.fromkeys(_SHAPES, 0)
    for file in files:
        found[file["log"]] += file["rows"]
    return found


def _files(batches: Iterable[pa.RecordBatch], folder: str) -> Iterator[pa.RecordBatch]:
    """A day of a table is written in one go: where Spark cuts its batches leaves no trace in the file."""
    for (name, day), parts in groupby(_days(batches), key=itemgetter(0, 1)):
        rows = pa.Table.from_batches([part for _, _, part in parts]).select(_SHAPES[name])
        path = Path(folder) / name / f"{day.isoformat()}.parquet"
        path.parent.mkdir(exist_ok=True)
        named = rows.rename_columns([_TIMES[name] if column == "time" else column for column in _SHAPES[name]])
        pq.write_table(named.combine_chunks(), path, row_group_size=_ROW_GROUP, compression="zstd")
        yield pa.record_batch({"log": [name], "rows": pa.array([len(rows)], pa.int64())})


def _days(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, date, pa.RecordBatch]]:
    for batch in batches:
        keys = pa.table({"log": batch["log"], "day": batch["day"]})
        starts = np.flatnonzero(_changes(keys)).tolist() if len(keys) else []
        for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
            yield batch["log"][start].as_py(), batch["day"][start].as_py(), batch.slice(start, end - start)


def _changes(keys: pa.Table) -> np.ndarray:
    name, day = (keys[column].combine_chunks().dictionary_encode().indices.to_numpy() for column in ("log", "day"))
    return np.concatenate([[True], (np.diff(name) != 0) | (np.diff(day) != 0)])
