"""A small lake with random statistics and samples, published for real, for the tests of the feature store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import telemetry
from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake, publish
from infra.ledger import Ledger, run_key
from infra.partitions import PartitionWrite
from infra.profile import Profile, load_profile
from spark_jobs.query_stats import COUNTERS
from spark_jobs.stats import COUNTED_DAYS

Rows = list[dict[str, Any]]
FIRST = date(2018, 1, 1)
# Table to the id that it is of.
DAILY = {"user_stats": "user_id", "item_stats": "item_id", "query_stats": "query", "user_profiles": "user_id"}


class Shop:
    """Fills the tables that the feature store reads, and remembers every row by table and day."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.lake, self.ledger = profile, Lake(profile), Ledger(profile)
        self.rows: dict[str, dict[date, Rows]] = {
            table: {} for table in (*DAILY, "next_item_samples", "judge_examples", "hint_samples")
        }

    def publish(self, table: str, days: Mapping[date, Rows], edition: int = 1) -> None:
        """Publish whole partitions; another `edition` is what a job does when its inputs have changed."""
        attempt = self.ledger.open_attempt(table, list(days))
        writes = [self._write(table, day, rows, edition, attempt.token) for day, rows in days.items()]
        publish(self.lake, self.ledger, table, writes, attempt)
        self.rows[table].update(days)

    def _write(self, table: str, day: date, rows: Rows, edition: int, token: int) -> PartitionWrite:
        key = run_key(table, day, [], {}, edition)
        files: tuple[str, ...] = ()
        if rows:
            path = self.lake.staging(table, key, day, token) / "part-0.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(load_contract(table))), path)
            files = (str(path),)
        return PartitionWrite(day, key, files, len(rows), len(rows))


def at(day: date, seconds: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=seconds)


def stat(key: str, name: str, day: date, random: Random) -> dict[str, Any]:
    """A row of statistics whose numbers tell it from every other."""
    other = "items" if key == "user_id" else "users"
    return {
        "stat_date": day,
        key: name,
        "available_at": at(day + timedelta(days=1)),
        "events_7d": day.toordinal(),  # every joined row tells the day that it is of
        "events_30d": random.randrange(1, 10**6),
        "events_365d": random.randrange(1, 10**6),
        "mean_rating_365d": random.choice([None, random.uniform(1, 5)]),
        f"distinct_{other}_365d": random.randrange(1, 10**6),
        "days_since_first_365d": random.randrange(365),
        "last_event_time": at(day, random.randrange(86_400)),
    }


def profile(user: str, day: date, random: Random) -> dict[str, Any]:
    """A profile whose words tell the day that it is of; every fifth has none, as where the catalogue knows no item."""
    return {
        "profile_date": day,
        "user_id": user,
        "available_at": at(day + timedelta(days=1)),
        "profile_text": f"lately: {day}" if random.randrange(5) else "",
        "last_event_time": at(day, random.randrange(86_400)),
    }


def asked(query: str, day: date, random: Random) -> dict[str, Any]:
    """Statistics of a query, whose numbers tell them from all others."""
    counts = {f"{name}_{days}d": random.randrange(10**6) for name in COUNTERS for days in COUNTED_DAYS}
    row = {"stat_date": day, "query": query, "available_at": at(day + timedelta(days=1)), **counts}
    row |= {"shown_7d": day.toordinal(), "distinct_users_365d": random.randrange(10**6)}
    return row | {"days_since_first_365d": 0, "last_event_time": at(day, random.randrange(86_400))}


def daily(table: str, name: str, day: date, random: Random) -> dict[str, Any]:
    """A row of a daily table."""
    made = {"user_profiles": profile, "query_stats": asked}
    return made[table](name, day, random) if table in made else stat(DAILY[table], name, day, random)


def sample(user: str, item: str, day: date, random: Random) -> dict[str, Any]:
    return {
        "sample_date": day,
        "user_id": user,
        "item_id": item,
        "as_of": at(day),
        "event_time": at(day, random.randrange(86_400)),
        "event_type": "review",
        "rating": 5.0,
        "feedback": "liked",
        "history_item_ids": ["a", "b"],
        "history_ratings": [None, 3.0],
        "history_len": 2,
        "history_last_date": day - timedelta(days=1),
        "split_time": "train",
    }


def judged(user: str, item: str, day: date, later: str) -> dict[str, Any]:
    """An example of the judge, of which `later` was learnt afterwards."""
    row = sample(user, item, day, Random(0))
    shared = ("user_id", "item_id", "as_of", "history_item_ids", "history_ratings", "history_last_date", "split_time")
    own = {"example_date": day, "outcome_date": day, "kinds": ["taken"], "later_item_ids": [later], "rating": 5.0}
    return {name: row[name] for name in shared} | own


def shown(user: str, query: str, time: datetime, request: str = "r") -> dict[str, Any]:
    """A hint that nobody clicked."""
    whole = {"sample_date": time.date(), "user_id": user, "request_id": request, "place": 1, "as_of": time}
    return whole | {"query": query, "chance": 0.5, "clicked": 0, "split_time": "train"}


def random_days(random: Random, days: int, step: int = 1, names: int = 9) -> dict[str, dict[date, Rows]]:
    """Statistics, profiles and samples of random users and items on `days` days, `step` apart; some are never seen."""
    made: dict[str, dict[date, Rows]] = {table: {} for table in (*DAILY, "next_item_samples")}
    for day in (FIRST + timedelta(days=n * step) for n in range(days)):
        for table in DAILY:
            active = random.sample(range(names), random.randrange(names // 2))
            made[table][day] = [daily(table, str(name), day, random) for name in active]
        pairs = {(random.randrange(names), random.randrange(names)) for _ in range(random.randrange(names))}
        made["next_item_samples"][day] = [sample(str(u), str(i), day, random) for u, i in sorted(pairs)]
    return made


def plant_future(made: dict[str, dict[date, Rows]], random: Random) -> None:
    """For every sample, rows of its user and its item for its own day and for later days, where there are none yet."""
    for day, rows in list(made["next_item_samples"].items()):
        for row in rows:
            for table, key in DAILY.items():
                for later in (day, day + timedelta(days=random.randrange(1, 9))):
                    there = made[table].setdefault(later, [])
                    if key in row and all(old[key] != row[key] for old in there):
                        there.append(daily(table, row[key], later, random))


@pytest.fixture
def shop_rows() -> Any:
    """This module: the makers of rows."""
    return sys.modules[__name__]


@pytest.fixture(scope="session", autouse=True)
def quiet_feast() -> None:
    """Feast costs seconds to import: once for all tests, with every call home switched off before."""
    telemetry.apply()
    import feast  # noqa: F401


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """An empty shop in a folder with a space in its name."""
    return Shop(load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path / "a home")}))
