"""What the marts ask of Python, as functions of dbt's DuckDB: `normalised(query)`, as `common.query_text` has it.

A plugin of dbt-duckdb, named in `dbt/profiles.yml`. Only models that are written as tables may ask: a view is read by
others, who do not have them.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from dbt.adapters.duckdb.plugins import BasePlugin

from common.query_text import normalised


class Plugin(BasePlugin):
    """dbt-duckdb looks for this name."""

    def configure_connection(self, conn: Any) -> None:
        """Give a connection the functions."""
        conn.create_function("normalised", _all_normalised, ["VARCHAR"], "VARCHAR", type="arrow")


def _all_normalised(queries: pa.ChunkedArray) -> pa.Array:
    return pa.array([normalised(query) for query in queries.to_pylist()], pa.string())
