"""The window that is materialised: after any history, the online store holds the newest row of every entity.

The store is played by a dictionary that does what Feast does: of the rows in the window it writes the newest of each
entity over whatever is there, and deletes nothing.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.materialize import Window, plan

FIRST = date(2018, 1, 1)
DAYS = 6


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def keys(**editions: int) -> dict[date, str]:
    return {day(int(number[1:])): f"edition {edition}" for number, edition in editions.items()}


def test_what_is_online_under_its_key_needs_no_window() -> None:
    assert plan(keys(d0=1, d1=1), keys(d0=1, d1=1), day(0), day(1)) is None


def test_days_outside_the_asked_range_do_not_open_a_window() -> None:
    assert plan(keys(d0=1, d5=1), {}, day(1), day(4)) is None


def test_a_new_day_is_a_window_of_that_day_alone() -> None:
    window = plan(keys(d0=1, d1=1, d2=1), keys(d0=1, d1=1), day(0), day(2))
    assert window == Window(day(2), day(2), (day(2),), (), keys(d0=1, d1=1, d2=1))
    assert (window.start, window.end) == (datetime(2018, 1, 4, tzinfo=UTC), datetime(2018, 1, 5, tzinfo=UTC))


def test_a_first_load_is_one_window() -> None:
    window = plan(keys(d0=1, d1=1, d2=1), {}, day(0), day(2))
    assert window == Window(day(0), day(2), (day(0), day(1), day(2)), (), keys(d0=1, d1=1, d2=1))


def test_a_changed_day_opens_the_window_from_the_first_day_online_to_the_newest() -> None:
    window = plan(keys(d0=1, d1=2, d2=1), keys(d0=1, d1=1, d2=1), day(1), day(1))
    assert window == Window(day(0), day(2), (day(1),), (), keys(d0=1, d1=2, d2=1))


def test_a_changed_day_that_is_online_is_brought_along_unasked() -> None:
    window = plan(keys(d0=2, d1=1), keys(d0=1), day(1), day(1))
    assert window == Window(day(0), day(1), (day(0), day(1)), (), keys(d0=2, d1=1))


def test_a_day_that_was_rolled_back_is_withdrawn_and_older_rows_are_written_again() -> None:
    window = plan(keys(d0=1, d2=1), keys(d0=1, d1=1), day(2), day(2))
    assert window == Window(day(0), day(2), (day(2),), (day(1),), keys(d0=1, d2=1))


def test_a_day_that_lies_in_the_window_unasked_is_recorded_too() -> None:
    window = plan(keys(d0=1, d1=1, d2=1), keys(d2=1), day(0), day(0))
    assert window is not None
    assert window.changed == (day(0), day(1))


Table = dict[date, dict[str, int]]  # by day, the entities with a row and its value
contents = st.dictionaries(st.sampled_from("abc"), st.integers(0, 99), max_size=3)
numbers = st.integers(0, DAYS - 1)
published = st.dictionaries(numbers.map(day), contents, max_size=3)
rolled_back = st.sets(numbers.map(day), max_size=1)
steps = st.lists(st.tuples(published, rolled_back, st.tuples(numbers, numbers)), max_size=8)


def newest(table: Table, days: set[date]) -> dict[str, int]:
    return {entity: value for d in sorted(days) for entity, value in table.get(d, {}).items()}


@settings(max_examples=200)
@given(steps)
def test_after_any_history_every_entity_with_a_row_has_its_newest_one_online(
    history: list[tuple[Table, set[date], tuple[int, int]]],
) -> None:
    table: Table = {}
    current: dict[date, str] = {}
    done: dict[date, str] = {}
    online: dict[str, int] = {}
    for edition, (new, gone, asked) in enumerate(history):
        table |= new
        current |= dict.fromkeys(new, f"edition {edition}")
        for d in gone & current.keys():
            del current[d], table[d]
        window = plan(current, done, day(min(asked)), day(max(asked)))
        if window is None:
            continue
        in_window = {d for d in table if window.start <= available(d) < window.end}
        online |= newest(table, in_window)
        done = {d: key for d, key in done.items() if d not in window.withdrawn}
        done |= {d: window.held[d] for d in window.changed}
        assert done == window.held
        expected = newest(table, set(window.held))
        assert {entity: online[entity] for entity in expected} == expected
        assert all(done[d] == current[d] for d in current if day(min(asked)) <= d <= day(max(asked)))


def available(stat_date: date) -> datetime:
    return datetime(stat_date.year, stat_date.month, stat_date.day, tzinfo=UTC) + timedelta(days=1)
