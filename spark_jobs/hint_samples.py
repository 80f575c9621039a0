"""Hint samples: each place of each request that showed hints, and whether it was clicked. What a click model learns of.

They are the requests of `query_samples`, place by place, with queries as `common.query_text` has them; what the person
did before stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.engine.job import Input, Job, on_days
from spark_jobs.leakage import require_no_leak
from spark_jobs.query_text import normal


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Samples of the asked days; `frames` holds `query_samples`."""
    requests = frames["query_samples"].where((F.col("form") == "direct") & on_days("sample_date", partitions))
    whole = F.arrays_zip("shown_queries", "shown_chances", "shown_clicked")
    places = requests.select(
        "sample_date", "user_id", "request_id", "as_of", "split_time", F.posexplode(whole).alias("above", "hint")
    )
    return places.select(
        "sample_date",
        "user_id",
        "request_id",
        (F.col("above") + 1).cast("bigint").alias("place"),
        "as_of",
        normal(F.col("hint.shown_queries")).alias("query"),
        F.col("hint.shown_chances").alias("chance"),
        F.col("hint.shown_clicked").alias("clicked"),
        "split_time",
    )


def audit(samples: DataFrame, frames: Mapping[str, DataFrame]) -> None:
    """Refuse to publish samples of which a part of the split lies in a later one; see `spark_jobs.leakage`."""
    require_no_leak("hint_samples", samples, None)


JOB = Job("hint_samples", version=1, inputs=(Input("query_samples"),), config={}, build=build, audit=audit)
