"""Landing files as one Spark frame of raw strings, each row with its file and its number in it.

Spark never parses a landing file: each is read by one task in Python (`spark_jobs.landing`), which also counts its
records. So what is in the table can be held against what was delivered, and no file can stop the reading of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from spark_jobs.landing.files import LandingFile
from spark_jobs.landing.read import batches, schema
from spark_jobs.landing.rows import Wanted


def read_landing(spark: SparkSession, files: Sequence[LandingFile], wanted: Wanted) -> DataFrame:
    """The columns of `spark_jobs.landing.read.schema`: all records of the files, and for each file its tally."""
    chosen = tuple(files)

    def read(places: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for place in places:
            for number in place.column(0).to_pylist():
                yield from batches(chosen[number], wanted)

    numbers = spark.range(0, len(chosen), 1, max(1, len(chosen)))
    return numbers.mapInArrow(read, from_arrow_schema(schema(wanted)))
