"""The market's log as files that a shop would land: people in blocks through Spark, one file a table and day.

What a person does depends on the seed and on their number alone, and a file's rows are sorted by what they are: the
same seed gives the same bytes, however many processes take part. Between those who simulate and those who write, rows
travel as Arrow's own bytes, one piece for each block, table and day: Spark only brings them together.

The folder appears whole or not at all: it is written beside its place (`begun`), and renamed. What a killed run has
left there goes with the next run of the same order.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from common.truth import is_truth
from infra.errors import DataError
from spark_jobs.market.begun import begun
from spark_jobs.market.chats import LOGISTICS_STATES, ORDER_STATES
from spark_jobs.market.deliveries import delivered
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws
from spark_jobs.market.log import HINTS, LISTS, logged, tell_bids
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.visits import Horizon, World
from spark_jobs.market.written import LOGS, Written

BLOCK = 2_000  # people at a time
_PROBED = 200  # people who tell how many rows one leaves
_BYTES = 200  # of a row, with its share of the truth and what Spark needs for sorting it
_ROW_GROUP = 250_000
_PIECES, _NAMES = "log string, day date, block long, rows binary", ("log", "day", "block", "rows")


@dataclass(frozen=True)
class Simulated:
    """What was written: rows by table, the number of people, and how many real queries they could ask."""

    people: int
    rows: dict[str, int]
    queries: int


@dataclass(frozen=True)
class Order:
    """So many `rows` of the shop's logs, about, and the truth beside them; from the day `start` on; into the `folder`,
    which must be new or empty, and not begun by another order. Of them the tables `logs` are written."""

    rows: int
    seed: int
    start: date
    days: int
    folder: Path
    logs: frozenset[str] = frozenset(LOGS)

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


def simulate(
    spark: SparkSession, shop: Shop, parameters: Parameters, order: Order, desk: Desk | None = None
) -> Simulated:
    """Write the log that was ordered; without a `desk` nobody asks anything.

    Raises:
        DataError: the folder is in use, or begun by another order, or the disk could not hold the log; nothing was
            done.
    """
    order.require_room()
    world = World(shop, parameters, Draws(order.seed), order.horizon, desk=desk)
    people = _people(world, order.rows)
    known = spark.sparkContext.broadcast((world, people, BLOCK, order.logs))
    starts = spark.range(0, people, BLOCK, -(-people // BLOCK))
    pieces = starts.mapInArrow(lambda batches: _lived(batches, *known.value), _PIECES)
    ordered = pieces.repartition(order.days, "log", "day").sortWithinPartitions("log", "day", "block")
    try:
        with begun(order.folder, _told(order, shop, parameters, desk)) as scratch:
            rows = dict.fromkeys(order.logs, 0) | _written(ordered, Written(_words(world)), scratch)
    finally:
        known.destroy()
    return Simulated(people, rows, int(world.queries.real.sum()))


def _told(order: Order, shop: Shop, parameters: Parameters, desk: Desk | None) -> dict[str, str | int]:
    """All that the bytes depend on, in words that tell two orders apart."""
    return {
        "rows": order.rows,
        "seed": order.seed,
        "first day": order.start.isoformat(),
        "days": order.days,
        "tables": ", ".join(sorted(order.logs)),
        "parameters": parameters.hash,
        "catalogue": _hashed(shop.item_ids, shop.texts, shop.brands, shop.categories, shop.log_prices),
        "queries": _hashed(shop.asked),
        "wordings": _hashed(desk.intents, desk.wordings, desk.worded) if desk else "none",
    }


def _hashed(*columns: Iterable[object]) -> str:
    text = json.dumps([[str(value) for value in column] for column in columns])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _words(world: World) -> dict[str, pa.Array]:
    versions = {LISTS: world.logging.version, HINTS: world.hinting.version}
    named = {
        "item_id": world.shop.item_ids,
        "wish_item_id": world.shop.item_ids,
        "policy_version": [versions[number] for number in sorted(versions)],
        "query": world.queries.texts,
        "order_state": ORDER_STATES,
        "logistics_state": LOGISTICS_STATES,
        "cause": list(world.parameters.chats.causes),
        "intent": world.desk.intents if world.desk else (),
        "meant_intent": world.desk.intents if world.desk else (),
        "message": world.desk.wordings if world.desk else (),
    }
    return {column: pa.array(words, pa.string()) for column, words in named.items()}


def _people(world: World, rows: int) -> int:
    """How many people leave so many rows, beside those of the truth: the first ones tell."""
    log = logged(world, np.arange(_PROBED))
    told = [batch.num_rows for name, batches in log.batches.items() if not is_truth(name) for batch in batches]
    each: float = sum(told) / _PROBED
    return max(1, int(rows / max(each, 1.0) + 0.5))


def _lived(
    starts: Iterable[pa.RecordBatch], world: World, people: int, block: int, logs: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    for batch in starts:
        for start in batch["id"].to_pylist():
            log = logged(world, np.arange(start, min(people, start + block)))
            if start == 0:
                tell_bids(log, world)
            for name in logs & log.batches.keys():
                rows = pa.Table.from_batches(log.batches[name])
                days = delivered(name, rows, world.parameters.landing, world.draws)
                found = [(name, day, start, _packed(rows)) for day, rows in days]
                if found:
                    yield pa.RecordBatch.from_arrays([pa.array(column) for column in zip(*found, strict=True)], _NAMES)


def _packed(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _written(ordered: DataFrame, written: Written, folder: Path) -> dict[str, int]:
    """One file of each table and day; how many rows each table has."""
    target = str(folder)
    files = ordered.mapInArrow(lambda batches: _files(batches, written, target), "log string, rows long").collect()
    found = Counter[str]()
    for file in files:
        found[file["log"]] += file["rows"]
    return found


def _files(batches: Iterable[pa.RecordBatch], written: Written, folder: str) -> Iterator[pa.RecordBatch]:
    """A day of a table is written in one go: where Spark cuts its batches leaves no trace in the file."""
    for (name, day), pieces in groupby(_pieces(batches), key=itemgetter(0, 1)):
        rows = written.table(name, pa.concat_tables([pa.ipc.open_stream(rows).read_all() for _, _, rows in pieces]))
        path = Path(folder) / name / f"{day.isoformat()}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(rows.combine_chunks(), path, row_group_size=_ROW_GROUP, compression="zstd")
        yield pa.record_batch({"log": [name], "rows": pa.array([len(rows)], pa.int64())})


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, date, pa.Buffer]]:
    for batch in batches:
        for name, day, rows in zip(batch["log"], batch["day"], batch["rows"], strict=True):
            yield name.as_py(), day.as_py(), rows.as_buffer()
