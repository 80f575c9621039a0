"""Sample tables of the tests, in the columns that the stages read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.next_item.samples import SCHEMA


def write_rows(path: Path, rows: Sequence[tuple[Any, ...]], **changes: Any) -> Path:
    """Rows whose values are the first columns of `SCHEMA`, in its order; `changes` replaces columns, or adds some."""
    schema = pa.schema([SCHEMA.field(n) for n in range(len(rows[0]))])
    columns = dict(zip(schema.names, map(list, zip(*rows, strict=True)), strict=True))
    columns |= {name: values for name, values in changes.items() if name in schema.names}
    table = pa.table(columns, schema=schema)
    for name in changes.keys() - columns.keys():
        table = table.append_column(name, pa.array(changes[name]))
    pq.write_table(table, path)
    return path
