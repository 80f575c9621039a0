"""Queries as `common.query_text` has them, in a column."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from common.query_text import normalised


def _all_normalised(queries: pa.Array) -> pa.Array:
    """Each different text once: a log repeats its queries."""
    known = queries.dictionary_encode()
    return pa.array([normalised(query) for query in known.dictionary.to_pylist()], pa.string()).take(known.indices)


def normal(query: Column) -> Column:
    """The column's texts, normalised; null stays null."""
    done: Column = F.arrow_udf(_all_normalised, "string")(query)
    return done
