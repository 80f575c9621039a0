"""Checked rows to staged Parquet files: one file a partition for the rows that go on, one for the refused ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from infra.contracts import Contract, spark_ddl
from infra.lake import Lake
from infra.partitions import QUARANTINE_SUFFIX
from spark_jobs.engine.row_checks import CheckedRows

SOURCE_FILE, SOURCE_ROW, SOURCE_JSON = "_source_file", "_source_row", "_source_json"
FAULT_KEY = "fault"  # of the JSON of a landed row that could not be read: what is wrong with it
_FOLDER = "_folder"


def stage_good(
    lake: Lake, contract: Contract, checked: CheckedRows, keys: Mapping[date, str], token: int
) -> dict[date, list[str]]:
    """Write the rows that go on, of the partitions in `keys` (partition to run key); returns the files of each."""
    if not keys:
        return {}
    columns = [F.col(c.name).cast(c.dataType).alias(c.name) for c in StructType.fromDDL(spark_ddl(contract))]
    rows = checked.frame.where(~checked.refused).where(F.col(contract.partition).isin(list(keys))).select(*columns)
    return _write(lake, contract.table, contract.partition, rows, keys, token)


def stage_refused(
    lake: Lake, contract: Contract, checked: CheckedRows, keys: Mapping[date, str], token: int
) -> dict[date, list[str]]:
    """Write the refused rows in the shape of the quarantine table."""
    if not keys:
        return {}
    rows = refused_rows(contract, checked).where(F.col(contract.partition).isin(list(keys)))
    run_keys = F.create_map(*[F.lit(part) for day, key in keys.items() for part in (day, key)])
    stamped = rows.withColumn("run_key", run_keys[F.col(contract.partition)])
    ordered = lake.contract(f"{contract.table}{QUARANTINE_SUFFIX}").names
    return _write(
        lake, f"{contract.table}{QUARANTINE_SUFFIX}", contract.partition, stamped.select(*ordered), keys, token
    )


def refused_rows(contract: Contract, checked: CheckedRows) -> DataFrame:
    """The refused rows in the shape of the quarantine but for `run_key`; each under the first rule it breaks."""
    frame = checked.frame
    landed = SOURCE_FILE in frame.columns
    key = F.to_json(F.struct(*(contract.key or (contract.partition,))), {"ignoreNullFields": "false"})
    return frame.where(checked.refused).select(
        F.col(contract.partition),
        checked.first_broken.alias("rule"),
        key.alias("key_json"),
        (F.col(SOURCE_JSON) if landed else _row_json(contract)).alias("row_json"),
        (F.col(SOURCE_FILE) if landed else F.lit(None).cast("string")).alias("source_file"),
        (F.col(SOURCE_ROW) if landed else F.lit(None).cast("bigint")).alias("source_row"),
    )


def _row_json(contract: Contract) -> Column:
    return F.to_json(F.struct(*contract.names))


def _write(
    lake: Lake, table: str, partition: str, rows: DataFrame, keys: Mapping[date, str], token: int
) -> dict[date, list[str]]:
    """One Spark write, then every file moves to the folder of its run. The partition column stays inside the files."""
    scratch = Path(lake.root) / "staging" / f"{table}-{token}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        rows.withColumn(_FOLDER, F.col(partition).cast("string")).write.partitionBy(_FOLDER).parquet(str(scratch))
        written = {day: sorted((scratch / f"{_FOLDER}={day.isoformat()}").glob("*.parquet")) for day in keys}
        return {
            day: [
                _move(path, lake.staging(table, keys[day], day, token) / f"part-{n:05d}.parquet")
                for n, path in enumerate(paths)
            ]
            for day, paths in written.items()
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move(source: Path, target: Path) -> str:
    source.replace(target)
    return str(target)
