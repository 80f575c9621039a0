"""Which files a partition reads and when its run key changes, checked against a plain reading of the definition."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import UNDATED
from infra.partitions import DataFile, due_again
from spark_jobs.engine.plan import Input, InputFiles, days_between, expected_keys, uncommitted

START = date(2024, 1, 1)
DAYS = st.integers(0, 30).map(lambda n: START + timedelta(days=n))
INPUTS = st.builds(
    Input,
    table=st.just("events"),
    lookback_days=st.none() | st.integers(0, 10),
    lag_days=st.integers(0, 3),
    ahead_days=st.integers(0, 3),
    latest=st.booleans(),
)


def file_of(day: date, run: str = "k", name: str = "part-00000.parquet", root: str = "/lake") -> DataFile:
    return DataFile(f"{root}/data/events/{day}/{run}/1/{name}", day, 1, run)


def read_by_definition(source: Input, files: list[DataFile], partition: date) -> list[DataFile]:
    last = partition - timedelta(days=source.lag_days)
    if source.latest:
        newest = max((f.partition for f in files if f.partition <= last), default=None)
        return [f for f in files if f.partition == newest]
    last += timedelta(days=source.ahead_days)
    if source.lookback_days is None:
        return [f for f in files if f.partition <= last]
    first = partition - timedelta(days=source.lookback_days)
    return [f for f in files if first <= f.partition <= last]


@given(source=INPUTS, days=st.sets(DAYS, max_size=12), partition=DAYS)
def test_a_partition_reads_the_files_of_its_window_and_no_other(
    source: Input, days: set[date], partition: date
) -> None:
    files = [file_of(day) for day in sorted(days)]
    assert InputFiles(source, files).files([partition]) == read_by_definition(source, files, partition)


@given(source=INPUTS, days=st.sets(DAYS, min_size=1, max_size=12), changed=DAYS, partition=DAYS)
def test_the_digest_changes_when_and_only_when_a_file_of_the_window_does(
    source: Input, days: set[date], changed: date, partition: date
) -> None:
    before = [file_of(day) for day in sorted(days)]
    after = [file_of(day, run="new" if day == changed else "k") for day in sorted(days)]
    same_window = read_by_definition(source, before, partition) == read_by_definition(source, after, partition)
    same_digest = InputFiles(source, before).digest(partition) == InputFiles(source, after).digest(partition)
    assert same_digest == same_window


def test_the_place_of_the_warehouse_is_no_part_of_the_key() -> None:
    here, there = ([file_of(START, root=root)] for root in ("/here", "/there"))
    source = Input("events")
    assert InputFiles(source, here).digest(START) == InputFiles(source, there).digest(START)


def test_an_undated_catalogue_is_the_newest_until_a_dated_one_arrives() -> None:
    files = [file_of(UNDATED), file_of(START)]
    catalogue = InputFiles(Input("items", latest=True), files)
    assert catalogue.files([START - timedelta(days=1)]) == files[:1]
    assert catalogue.files([START]) == files[1:]


def test_a_partition_s_key_depends_on_config_and_version_too() -> None:
    inputs = [InputFiles(Input("events"), [file_of(START)])]
    keys = {
        expected_keys("sessions", [START], inputs, config, version)[START]
        for config, version in (({"gap": 30}, 1), ({"gap": 31}, 1), ({"gap": 30}, 2))
    }
    assert len(keys) == 3


def test_days_between_holds_both_ends() -> None:
    assert days_between(date(2024, 2, 28), date(2024, 3, 1)) == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]


def test_a_partition_lacks_the_newest_day_that_it_reads_and_a_catalogue_lacks_none() -> None:
    first, second, third = (START + timedelta(days=n) for n in range(3))
    assert uncommitted(Input("events", lookback_days=9), [first, second, third], {second}) == [first, third]
    assert uncommitted(Input("events", lookback_days=9, lag_days=1), [second, third], {first}) == [second]
    assert uncommitted(Input("items", latest=True), [first, second], {third}) == []


@given(first=DAYS, length=st.integers(0, 5), ages=st.lists(st.integers(1, 20), max_size=3), there=st.sets(DAYS))
def test_a_day_is_due_again_on_the_days_that_are_its_ages(
    first: date, length: int, ages: list[int], there: set[date]
) -> None:
    last = first + timedelta(days=length)
    run = days_between(first, last)
    expected = [day for day in sorted(there) if day < first and any(day + timedelta(days=n) in run for n in ages)]
    assert due_again(first, last, ages, there) == expected


def test_days_ahead_that_are_not_over_are_no_gap() -> None:
    assert uncommitted(Input("events", ahead_days=90), [START], {START}) == []
