"""Which days a run is for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dags.partitions import PartitionRange, days, resolve
from infra.errors import DataError

DAYS = st.dates(date(2015, 1, 1), date(2030, 1, 1))


@dataclass(frozen=True)
class Event:
    partition_key: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)


def of(first: date, last: date) -> Event:
    """What a run of this range emits."""
    return Event(last.isoformat(), PartitionRange(first, last).extra())


def test_a_run_with_a_key_alone_is_for_that_day() -> None:
    assert resolve("2018-01-05", None, []) == PartitionRange(date(2018, 1, 5), date(2018, 1, 5))


def test_a_person_gives_the_first_day_by_parameter() -> None:
    assert resolve("2018-01-05", "2016-10-01", []).first == date(2016, 10, 1)


def test_a_triggered_run_takes_its_range_from_the_event() -> None:
    event = of(date(2018, 1, 1), date(2018, 1, 5))
    assert resolve("2018-01-05", None, [event]) == PartitionRange(date(2018, 1, 1), date(2018, 1, 5))


def test_an_event_without_a_range_still_counts_by_its_key() -> None:
    assert resolve("2018-01-05", None, [Event("2018-01-03")]).first == date(2018, 1, 3)


@given(st.lists(st.tuples(DAYS, st.integers(0, 40)), min_size=1, max_size=8))
def test_the_range_covers_every_day_of_every_triggering_event(spans: list[tuple[date, int]]) -> None:
    events = [of(last - timedelta(days=n), last) for last, n in spans]
    found = resolve(None, None, events)
    assert all(found.first <= last - timedelta(days=n) and last <= found.last for last, n in spans)
    assert found.last == max(last for last, _ in spans)


@given(DAYS, st.integers(0, 500))
def test_what_a_run_emits_is_what_the_next_run_resolves(last: date, length: int) -> None:
    first = last - timedelta(days=length)
    assert resolve(last.isoformat(), None, [of(first, last)]) == PartitionRange(first, last)


@pytest.mark.parametrize("seed", range(20))
def test_30_days_backfilled_out_of_order_are_all_covered_however_airflow_merges_them(seed: int) -> None:
    """Airflow makes one run per key and hands it every event that waited for that key."""
    order = [date(2018, 1, 1) + timedelta(days=n) for n in range(30)] * 2
    rng = random.Random(seed)
    rng.shuffle(order)
    covered: set[date] = set()
    waiting: dict[date, list[Event]] = {}
    for day in order:
        waiting.setdefault(day, []).append(of(day, day))
        if rng.random() < 0.3:  # the scheduler looks: everything that waits becomes a run
            covered |= _run_all(waiting)
    covered |= _run_all(waiting)
    assert covered == set(order)


def _run_all(waiting: dict[date, list[Event]]) -> set[date]:
    done: set[date] = set()
    for day, events in waiting.items():
        span = days(day.isoformat(), {"from": None}, {"events": events})
        done |= {span.first + timedelta(days=n) for n in range((span.last - span.first).days + 1)}
    waiting.clear()
    return done


@pytest.mark.parametrize(
    ("key", "start", "what"),
    [
        (None, None, "no partition"),
        ("yesterday", None, "'yesterday' is not a day"),
        ("2024-13-45", None, "'2024-13-45' is not a day"),
        ("20240105", None, "'20240105' is not a day"),
        ("2024-W01-5", None, "'2024-W01-5' is not a day"),
        ("2018-01-05", "2018-13-01", "'2018-13-01' is not a day"),
        ("2018-01-05", "2018-01-06", "backwards"),
    ],
)
def test_a_range_that_makes_no_sense_is_an_error_that_says_so(key: str | None, start: str | None, what: str) -> None:
    with pytest.raises(DataError, match=what):
        resolve(key, start, [])


def test_a_misspelt_key_of_conf_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(DataError, match="unknown key: form") as refusal:
        days("2018-01-05", {"from": None, "form": "2018-01-01"}, {})
    assert "'from'" in refusal.value.do
