"""A landing file of the events table that a test writes and reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spark_jobs.landing.files import LandingFile
from spark_jobs.landing.read import FAULT, LINE, MOMENT, NUMBER, ODD, TALLY, VALUES, Tally, batches, tally_of
from spark_jobs.landing.tables import TABLES

HEADER = "user_id,item_id,event_time,event_type"
WANTED = TABLES["events"].wanted


def read(path: Path) -> tuple[list[dict[str, Any]], Tally]:
    """The records of a file (number, values without the absent columns, fault, line, odd, time) and its tally."""
    rows = [row for batch in batches(LandingFile(path.name, path, "hash"), WANTED) for row in batch.to_pylist()]
    *records, last = rows
    assert all(row[TALLY] is None for row in records)
    told = [
        {
            "number": row[NUMBER],
            "values": {name: value for name, value in row[VALUES].items() if value is not None},
            "fault": row[FAULT],
            "line": row[LINE],
            "odd": row[ODD],
            "time": row[MOMENT],
        }
        for row in records
    ]
    return told, tally_of(last[TALLY])


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
