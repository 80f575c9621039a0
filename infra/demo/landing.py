"""Which days the landed events cover: the range that the demo asks the pipeline for, and where it cuts the split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from infra.errors import DataError

_READERS = {
    ".parquet": "read_parquet(?)",
    ".csv": "read_csv(?, all_varchar = true)",
    ".jsonl": "read_json(?, format = 'newline_delimited')",
    ".ndjson": "read_json(?, format = 'newline_delimited')",
    ".json": "read_json(?)",
}

# As the ingest reads them: ISO 8601, or a number since the epoch in s, ms, us or ns, told apart by its size.
_NUMBER = "try_cast(event_time as double)"
_EPOCH = f"{_NUMBER} / pow(1000, greatest(0, ceil((log10(greatest(abs({_NUMBER}), 1)) - 11) / 3)))"
_MOMENT = f"coalesce(try_cast(event_time as timestamptz), to_timestamp({_EPOCH}))"
_EARLIEST = date(
    1990, 1, 1
)  # an earlier time is refused by the contract: one of them must not ask for 20 years of days
_DAY = f"try_cast({_MOMENT} at time zone 'UTC' as date)"


@dataclass(frozen=True)
class LandedDays:
    """First and last day with an event; 80 % of the events are before `valid_from`, 90 % before `test_from`."""

    first: date
    last: date
    valid_from: date
    test_from: date


def landed_days(landing: Path) -> LandedDays:
    """The days of all landed events that are neither in the future nor before 1990, as the contract asks.

    Raises:
        DataError: there are no event files, or none of their rows has a readable time.
    """
    events: Counter[date] = Counter()
    for file in _event_files(landing):
        events.update(_events_by_day(file))
    if not events:
        raise DataError(
            "No landed event has a time that can be read.",
            where=str(landing),
            do="See docs/bring-your-data.md: events need event_time such as 2018-01-05T10:00:00Z.",
        )
    return LandedDays(min(events), max(events), _quantile(events, 0.8), _quantile(events, 0.9))


def _quantile(events: Counter[date], share: float) -> date:
    """The day on which the running count of events reaches `share` of them."""
    reached = 0
    for day in sorted(events):
        reached += events[day]
        if reached >= share * events.total():
            return day
    return max(events)


def _event_files(landing: Path) -> list[Path]:
    candidates = sorted([*landing.glob("events.*"), *(landing / "events").rglob("*")])
    files = [path for path in candidates if path.suffix.lower() in _READERS and path.is_file() and path.stat().st_size]
    files = [path for path in files if not path.name.startswith((".", "_"))]
    if not files:
        raise DataError(
            "There are no landed events.",
            where=str(landing),
            do="Put events.csv, .jsonl or .parquet there, or a folder events/ of such files (docs/bring-your-data.md).",
        )
    return files


def _events_by_day(file: Path) -> dict[date, int]:
    # The reader is one of ours, and the file is bound.
    sql = (
        f"select {_DAY} d, count(*) from {_READERS[file.suffix.lower()]} where d between ? and current_date group by d"  # noqa: S608
    )
    try:
        with duckdb.connect() as connection:
            return dict(connection.execute(sql, [str(file), _EARLIEST]).fetchall())
    except duckdb.Error:
        return {}  # an unreadable file is the ingest's to explain: it names the file, the row and the remedy
