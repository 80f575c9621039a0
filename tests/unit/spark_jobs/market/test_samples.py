"""The shop's samples as a folder of tables."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.truth import is_truth
from infra.errors import DataError
from infra.lake import Lake
from spark_jobs.market.samples import TABLES, write_samples

pytestmark = pytest.mark.unit
DAYS = (date(2026, 1, 1), date(2026, 1, 2))


def lake(folder: Path, without: str | None = None) -> Lake:
    """Each table has one row a day."""

    def files(table: str) -> list[Any]:
        found = []
        for day in DAYS if table != without else ():
            path = folder / f"{table}-{day}.parquet"
            pq.write_table(pa.table({"day": [day.isoformat()]}), path)
            found.append(SimpleNamespace(partition=day, path=str(path)))
        return found

    return cast(Lake, SimpleNamespace(files=files, contract=lambda table: SimpleNamespace(origin="simulated")))


def test_every_table_is_whole_but_the_catalogue_which_is_the_newest_and_says_where_it_is_from(tmp_path: Path) -> None:
    rows = write_samples(lake(tmp_path), tmp_path / "out")
    assert rows == {table: 1 if table == "items" else 2 for table in TABLES}
    assert pq.read_table(tmp_path / "out" / "items.parquet")["day"].to_pylist() == ["2026-01-02"]
    for table in TABLES:
        assert pq.read_schema(tmp_path / "out" / f"{table}.parquet").metadata[b"origin"] == b"simulated"
    assert not any(is_truth(table) for table in TABLES)


def test_a_table_that_was_never_filled_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'bids'"):
        write_samples(lake(tmp_path, without="bids"), tmp_path / "out")
