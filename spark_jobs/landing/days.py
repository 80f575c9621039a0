"""Which days the landed events cover: `python -m spark_jobs.landing.days FOLDER` prints them as JSON, without Spark.

`first` and `last` have an event; about 80 % of the events are before `valid_from`, 90 % before `test_from`. Where there
are few days, there is training before there is test, and test before there is validation (`cuts`).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from infra.errors import DataError, exit_with_reason
from infra.ledger import Ledger
from infra.profile import load_profile
from spark_jobs.landing.files import required_files
from spark_jobs.landing.read import MOMENT, TALLY, batches, tally_of
from spark_jobs.landing.tables import OLDEST, TABLES

_NEXT_LINE = "\n         "  # below the first one of a part of an error
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def landed_days(landing: Path) -> dict[str, date]:
    """The days of the events as the ingest reads them: all files that can be used, no time before 1990 or to come.

    Raises:
        DataError: there are no event files, or none of their rows has a readable time.
    """
    found = required_files(landing, "events")
    now = datetime.now(UTC)
    low, high = ((moment - _EPOCH) // timedelta(microseconds=1) for moment in (OLDEST, now))
    counts: Counter[int] = Counter()  # by the number of the day since the epoch
    problems = dict(found.problems)
    for file in {file.sha256: file for file in found.files}.values():
        in_file: Counter[int] = Counter()
        for batch in batches(file, TABLES["events"].wanted):
            moments = batch.column(MOMENT).cast("int64").to_pylist()
            in_file.update(m // 86_400_000_000 for m in moments if m is not None and low <= m <= high)
            problem = next((tally_of(text).problem for text in batch.column(TALLY).to_pylist() if text), None)
        if problem:
            problems[file.name] = problem
        else:
            counts += in_file
    if not counts:
        raise _no_event(landing, problems)
    events = Counter({_EPOCH.date() + timedelta(days=day): count for day, count in counts.items()})
    valid_from, test_from = cuts(events)
    return {"first": min(events), "last": max(events), "valid_from": valid_from, "test_from": test_from}


def _no_event(landing: Path, problems: Mapping[str, DataError]) -> DataError:
    """Why there is no day at all: what is wrong with each file that cannot be used, a line each."""
    whys = [
        " ".join(filter(None, (fault.what, fault.where and f"({fault.where})", fault.why)))
        for fault in problems.values()
    ]
    remedies = [f"{name}: {fault.do}" for name, fault in problems.items()]
    return DataError(
        "No landed event has a time that can be read.",
        where=str(landing),
        why=_NEXT_LINE.join(whys),
        do=_NEXT_LINE.join(remedies)
        or "See docs/bring-your-data.md: events need event_time such as 2018-01-05T10:00:00Z.",
    )


def cuts(events: Mapping[date, int]) -> tuple[date, date]:
    """Where validation and test begin, by the number of events of each day.

    The first day is training, whatever it holds; alone, nothing is held out. A later one that holds both shares is
    validation where days follow it, else test; then the day before it is validation, where that is not the first.
    """
    first, *later = sorted(events)
    begin = later[0] if later else first + timedelta(days=1)
    valid_from, test_from = (max(begin, _quantile(events, share)) for share in (0.8, 0.9))
    if valid_from < test_from:
        return valid_from, test_from
    if behind := [day for day in later if day > valid_from]:
        return valid_from, behind[0]
    return max((day for day in later if day < test_from), default=test_from), test_from


def _quantile(events: Mapping[date, int], share: float) -> date:
    """The day on which the running count of events reaches `share` of them."""
    reached, total = 0, sum(events.values())
    for day in sorted(events):
        reached += events[day]
        if reached >= share * total:
            return day
    return max(events)


def main() -> int:
    """Print the days of one landing folder; one whose events could not be ingested for want of items is refused."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs.landing.days", description=__doc__)
    parser.add_argument("landing", type=Path)
    landing = parser.parse_args().landing
    if not Ledger(load_profile()).landings.files("items"):
        required_files(landing, "items")
    days = landed_days(landing)
    print(json.dumps({name: day.isoformat() for name, day in days.items()}))
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
