"""The rows of a Parquet file as text, column by column."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from infra.errors import DataError
from spark_jobs.landing.rows import PARQUET, Wanted, check_columns, refuse_other_bytes

_MOST_ROWS = 10_000
# From here on not all whole numbers can be told apart: two ids may have become one.
_INEXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}


class ParquetRows:
    """The rows of a Parquet file; `odd` names the id columns whose type is none of an id (a list, a truth value).

    Raises:
        DataError: the file is no Parquet, or has other columns than the table.
    """

    def __init__(self, name: str, path: Path, wanted: Wanted) -> None:
        self._name, self._path, self._wanted = name, path, wanted
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            refuse_other_bytes(name, path, but=PARQUET)
            raise self._damaged(error) from error
        check_columns(name, schema.names, wanted)
        kinds = {column: schema.field(column).type for column in wanted.ids if column in schema.names}
        self.odd = [column for column, kind in kinds.items() if pt.is_nested(kind) or pt.is_boolean(kind)]

    def batches(self, most_bytes: int) -> Iterator[dict[str, pa.Array]]:
        """Column name to text, absent values null, times in UTC; about `most_bytes` of content at a time.

        Raises:
            DataError: a page of the file is damaged, or a text in it is no UTF-8.
        """
        try:
            with pq.ParquetFile(
                self._path, page_checksum_verification=True, coerce_int96_timestamp_unit="us"
            ) as parquet:
                metadata = parquet.metadata
                size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
                rows = max(1, min(_MOST_ROWS, int(most_bytes * metadata.num_rows / max(1, size))))
                for batch in parquet.iter_batches(batch_size=rows):
                    batch.validate(full=True)
                    yield {field.name: self._text_of(field.name, batch.column(field.name)) for field in batch.schema}
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _text_of(self, column: str, values: pa.Array) -> pa.Array:
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        if pt.is_floating(values.type) and column in self._wanted.ids:
            bound = _INEXACT[values.type]
            return pa.array([None if v is None else _id_of_float(v, bound) for v in values.to_pylist()], pa.string())
        if pt.is_floating(values.type) and column == self._wanted.time:
            return pa.array([None if v is None else f"{v:.6f}" for v in values.to_pylist()], pa.string())
        try:
            return _as_text(values)
        except pa.ArrowException as error:
            raise DataError(
                f"{self._name} is no readable Parquet file.",
                where=f"column {column}, of the type {values.type}",
                why=f"A value of it is no text: {str(error).splitlines()[0]}",
                do="Write the column as text, numbers or times.",
            ) from error

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self._name} is no readable Parquet file.",
            why=f"It is truncated or damaged: {str(error).splitlines()[0]}",
            do="Deliver it again; check that its upload had ended.",
        )


def _as_text(values: pa.Array) -> pa.Array:
    if pt.is_nested(values.type):
        nested = values.to_pylist(maps_as_pydicts="lossy")
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in nested])
    if pt.is_timestamp(values.type):
        micros = values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64())
        texts = micros.cast(pa.timestamp("us")).cast(pa.string()).to_pylist()
        return pa.array([None if text is None else f"{text}Z" for text in texts], pa.string())
    if isinstance(values.type, pa.UuidType):
        return pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())
    if isinstance(values, pa.ExtensionArray):
        return _as_text(values.storage)
    return values.cast(pa.string())


def _id_of_float(value: float, bound: int) -> str:
    """`1029.0` stays one, so that a rule can warn of it; what cannot be exact gets its E-notation, which is refused."""
    if not math.isfinite(value) or (value.is_integer() and abs(value) < bound):
        return f"{value:.1f}"
    return f"{value:.6E}" if value.is_integer() else repr(value)
