"""Checked rows to staged Parquet files: one file a partition for the rows that go on, one for the refused ones.

The files are written with Arrow, where the rows are. Spark's own writer starts a process (`chmod`) for each file and
each folder where Hadoop's native library is missing, and no Python package of Spark has it: for two years of days that
was most of a small shop's time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import date
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from infra.contracts import Contract, arrow_schema, spark_ddl
from infra.lake import Lake
from infra.partitions import QUARANTINE_SUFFIX
from spark_jobs.engine.row_checks import CheckedRows

SOURCE_FILE, SOURCE_ROW, SOURCE_JSON = "_source_file", "_source_row", "_source_json"
JUDGED = "_judged"  # of a landed row without a date: the live version has refused it
FAULT_KEY = "fault"  # of the JSON of a landed row that could not be read: what is wrong with it


def stage_good(
    lake: Lake, contract: Contract, checked: CheckedRows, keys: Mapping[date, str], token: int
) -> dict[date, list[str]]:
    """Write the rows that go on, of the partitions in `keys` (partition to run key); returns the files of each."""
    if not keys:
        return {}
    columns = [F.col(c.name).cast(c.dataType).alias(c.name) for c in StructType.fromDDL(spark_ddl(contract))]
    return _write(lake, contract, checked.frame.where(~checked.refused).select(*columns), keys, token)


def stage_refused(
    lake: Lake, contract: Contract, checked: CheckedRows, keys: Mapping[date, str], token: int
) -> dict[date, list[str]]:
    """Write the refused rows in the shape of the quarantine table."""
    if not keys:
        return {}
    rows = refused_rows(contract, checked)
    run_keys = F.create_map(*[F.lit(part) for day, key in keys.items() for part in (day, key)])
    stamped = rows.withColumn("run_key", run_keys[F.col(contract.partition)])
    quarantine = lake.contract(f"{contract.table}{QUARANTINE_SUFFIX}")
    return _write(lake, quarantine, stamped.select(*quarantine.names), keys, token)


def refused_rows(contract: Contract, checked: CheckedRows) -> DataFrame:
    """The refused rows in the shape of the quarantine but for `run_key`; each under the first rule it breaks."""
    frame = checked.frame
    landed = SOURCE_FILE in frame.columns
    key = F.to_json(F.struct(*(contract.key or (contract.partition,))), {"ignoreNullFields": "false"})
    return frame.where(checked.refused).select(
        F.col(contract.partition),
        checked.first_broken.alias("rule"),
        key.alias("key_json"),
        (F.col(SOURCE_JSON) if landed else F.to_json(F.struct(*contract.names))).alias("row_json"),
        (F.col(SOURCE_FILE) if landed else F.lit(None).cast("string")).alias("source_file"),
        (F.col(SOURCE_ROW) if landed else F.lit(None).cast("bigint")).alias("source_row"),
    )


def _write(
    lake: Lake, contract: Contract, rows: DataFrame, keys: Mapping[date, str], token: int
) -> dict[date, list[str]]:
    """The tasks write into one folder, then every file moves to the folder of its run: only those of whole tasks do."""
    scratch = Path(lake.root) / "staging" / f"{contract.table}-{token}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    write = partial(write_runs, folder=scratch, schema=arrow_schema(contract), partition=contract.partition)
    try:
        written: dict[date, list[str]] = {}
        for day, name in rows.mapInArrow(write, "day date, name string").collect():
            written.setdefault(day, []).append(name)
        return {
            day: [
                _move(scratch / name, lake.staging(contract.table, keys[day], day, token) / f"part-{n:05d}.parquet")
                for n, name in enumerate(sorted(names))
            ]
            for day, names in written.items()
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_runs(
    batches: Iterator[pa.RecordBatch], *, folder: Path, schema: pa.Schema, partition: str
) -> Iterator[pa.RecordBatch]:
    """Write each run of rows of one day to a file; gives the days and the names of the files, once they are closed."""
    task = TaskContext.get()
    attempt = f"{task.partitionId():05d}-{task.attemptNumber()}" if task else "0"
    days: list[date] = []
    names: list[str] = []
    parts = (part for batch in batches for part in _by_day(batch, partition))
    for day, run in groupby(parts, key=itemgetter(0)):
        days.append(day)
        names.append(f"{attempt}-{len(names):05d}.parquet")
        with pq.ParquetWriter(folder / names[-1], schema) as writer:
            for _, part in run:
                writer.write_batch(part.cast(schema))
    yield pa.RecordBatch.from_arrays([pa.array(days, pa.date32()), pa.array(names, pa.string())], ["day", "name"])


def _by_day(batch: pa.RecordBatch, partition: str) -> Iterator[tuple[date, pa.RecordBatch]]:
    days = batch.column(batch.schema.get_field_index(partition))
    changes = np.flatnonzero(np.diff(days.cast(pa.int32()).to_numpy())) + 1
    for start, end in pairwise([0, *changes.tolist(), len(batch)]):
        if start < end:
            yield days[start].as_py(), batch.slice(start, end - start)


def _move(source: Path, target: Path) -> str:
    source.replace(target)
    return str(target)
