"""A small shop for tests of ingest: a landing folder that a test fills, a lake of its own."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spark_jobs.ingest.run as ingest_run
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from spark_jobs.engine.commit import JobReport
from spark_jobs.ingest import ingest

GOOD = {"user_id": "u1", "item_id": "i1", "event_time": "2024-03-01T10:00:00Z", "event_type": "view"}
ITEMS = [{"item_id": f"i{n}", "title": f"Item number {n}"} for n in range(1, 10)]


def event(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def many_good_events(count: int = 30) -> list[dict[str, Any]]:
    """Distinct good events of 1 March 2024."""
    return [event(user_id=f"u{n}") for n in range(count)]


def read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on it is an error to read a landing file."""

    def refuse(*_: object) -> None:
        raise AssertionError("a landing file was read again")

    monkeypatch.setattr(ingest_run, "read_landing", refuse)


@dataclass(frozen=True)
class Shop:
    """A landing folder and a lake of its own."""

    profile: Profile

    def put(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = self.profile.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([{c: row.get(c) for c in columns} for row in rows]), path)
        elif path.suffix == ".csv":
            with path.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
                writer.writerows(rows)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def put_text(self, name: str, text: str) -> Path:
        path = self.profile.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def ingest(self, table: str = "events", first: date | None = None, last: date | None = None) -> JobReport:
        return ingest(table, self.profile, first, last)

    def rows(self, table: str = "events") -> list[dict[str, Any]]:
        paths = [file.path for file in Lake(self.profile).files(table)]
        if not paths:
            return []
        return duckdb.sql(f"select * from read_parquet({paths})").fetch_arrow_table().to_pylist()

    def refused(self, table: str = "events") -> dict[tuple[str, int], str]:
        """Landing file and row to the rule that refused it."""
        return {(r["source_file"], r["source_row"]): r["rule"] for r in self.rows(f"{table}_quarantine")}

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.profile)
