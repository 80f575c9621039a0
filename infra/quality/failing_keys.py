"""Refused rows as CSV files for people: `<home>/report/quarantine/<table>-<partition>.csv`, rewritten with each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from infra.contracts import UNDATED, Contract
from infra.profile import Profile


@dataclass(frozen=True)
class Refusal:
    """The rows that one rule refused of one landing file (None: of a table built from tables)."""

    rule: str
    rows: int
    source_file: str | None
    first_row: int | None
    first_row_json: str


def failing_keys_path(profile: Profile, table: str, partition: date) -> Path:
    """Where the refused rows of a partition are, if it has any."""
    return profile.home / "report" / "quarantine" / f"{table}-{partition.isoformat()}.csv"


def write_failing_keys(
    profile: Profile, contract: Contract, files: Mapping[date, Sequence[str]], told: Sequence[str] = ()
) -> list[Refusal]:
    """Write the staged quarantine files of each partition as CSV; one without any loses the CSV of an earlier run.

    Returns what was refused, by landing file and rule; undated rows that are in the files `told` were told of before.
    """
    tables = []
    for day, paths in files.items():
        target = failing_keys_path(profile, contract.table, day)
        if paths:
            target.parent.mkdir(parents=True, exist_ok=True)
            refused = pq.read_table(list(paths), partitioning=None)
            pacsv.write_csv(refused, target)
            tables.append(_untold(refused, told) if day == UNDATED and told else refused)
        else:
            target.unlink(missing_ok=True)
    return _summary(pa.concat_tables(tables)) if tables else []


def _untold(refused: pa.Table, told: Sequence[str]) -> pa.Table:
    place = ["source_file", "source_row", "row_json"]
    known = pq.read_table(list(told), columns=place, partitioning=None)
    untold = refused.join(known, place, join_type="left anti")
    return untold.select(refused.column_names).cast(refused.schema)


def _summary(refused: pa.Table) -> list[Refusal]:
    groups = refused.sort_by("source_row").group_by(["source_file", "rule"], use_threads=False)
    counted = groups.aggregate([("source_row", "first"), ("row_json", "first"), ([], "count_all")])
    ordered = counted.sort_by([("source_file", "ascending"), ("rule", "ascending")]).to_pylist()
    return [
        Refusal(g["rule"], g["count_all"], g["source_file"], g["source_row_first"], g["row_json_first"])
        for g in ordered
    ]
