"""Landing files as one Spark frame of raw strings, each row with its file and its number in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from itertools import groupby
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.ingest.landing import ReadableFile
from spark_jobs.staging import SOURCE_FILE, SOURCE_JSON, SOURCE_ROW

RAW, READABLE = "_raw", "_readable"
_CORRUPT = "_corrupt_record"
_WHOLE = str(1 << 40)
_ROW_BITS = (1 << 33) - 1


def landing_session(spark: SparkSession) -> SparkSession:
    """A session that reads every landing file in one task: only so is the row number the place in the file."""
    session = spark.newSession()
    for key in ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes"):
        session.conf.set(key, _WHOLE)
    # A broken line has to look the same whatever columns a query asks for.
    session.conf.set("spark.sql.csv.parser.columnPruning.enabled", "false")
    # A damaged page that still decodes gives other values; only its checksum, where it has one, can tell.
    session.conf.set("parquet.page.verify-checksum.enabled", "true")
    # pandas writes nanoseconds, which Spark refuses as times.
    session.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    return session


def read_raw(spark: SparkSession, files: Sequence[ReadableFile], accepted: Sequence[str], landing: Path) -> DataFrame:
    """Columns: `_raw` (a struct of strings, null where the file lacks one), `_readable`, and the source columns."""

    def shape(file: ReadableFile) -> tuple[object, ...]:
        return (file.format, file.columns, file.types, file.array)

    if not files:
        return _nothing_read(spark, accepted)
    groups = (list(group) for _, group in groupby(sorted(files, key=lambda f: str(shape(f))), key=shape))
    return reduce(DataFrame.unionByName, (_read_alike(spark, group, accepted, landing) for group in groups))


def _nothing_read(spark: SparkSession, accepted: Sequence[str]) -> DataFrame:
    raw = ", ".join(f"`{name}`: STRING" for name in accepted)
    source = f"{SOURCE_FILE} STRING, {SOURCE_ROW} BIGINT, {SOURCE_JSON} STRING"
    return spark.createDataFrame([], f"{RAW} STRUCT<{raw}>, {READABLE} BOOLEAN, {source}")


def _read_alike(
    spark: SparkSession, files: Sequence[ReadableFile], accepted: Sequence[str], landing: Path
) -> DataFrame:
    first = files[0]
    paths = [_literal(file.file.path) for file in files]
    frame = _scan(spark, first, paths)
    types = dict(zip(first.columns, first.types or ("string",) * len(first.columns), strict=True))
    values = [
        (_text(name, types[name]) if name in types else F.lit(None).cast("string")).alias(name) for name in accepted
    ]
    readable = F.lit(True) if first.format == "parquet" else F.col(_CORRUPT).isNull()
    return frame.select(
        F.struct(*values).alias(RAW),
        readable.alias(READABLE),
        _name_below(landing).alias(SOURCE_FILE),
        (F.monotonically_increasing_id().bitwiseAND(F.lit(_ROW_BITS)) + 1).alias(SOURCE_ROW),
    ).withColumn(SOURCE_JSON, F.to_json(RAW))


def _scan(spark: SparkSession, like: ReadableFile, paths: list[str]) -> DataFrame:
    if like.format == "parquet":
        return spark.read.parquet(*paths)
    schema = ", ".join(f"`{name}` STRING" for name in (*like.columns, _CORRUPT))
    reader = spark.read.schema(schema).option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", _CORRUPT)
    if like.format == "csv":
        return reader.option("header", True).option("multiLine", True).option("escape", '"').csv(paths)
    return reader.option("multiLine", like.array).json(paths)


def _text(name: str, type_: str) -> Column:
    column = F.col(f"`{name}`")
    if type_.startswith("timestamp[ns"):
        return F.timestamp_micros(F.floor(column / 1000).cast("bigint")).cast("string")
    return F.to_json(column) if type_.startswith(("list", "struct", "map")) else column.cast("string")


def _name_below(landing: Path) -> Column:
    """The file's name as the landing folder knows it; Spark gives an encoded URI, in which only `+` is no code."""
    decoded = F.url_decode(F.regexp_replace("_metadata.file_path", r"\+", "%2B"))
    plain = F.regexp_replace(decoded, "^file:/+", "/")
    return F.substring(plain, len(landing.as_posix()) + 2, 1 << 20)


def _literal(path: Path) -> str:
    """A path in which no character means a pattern."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", str(path))
