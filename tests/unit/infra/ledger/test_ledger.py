"""The ledger: attempts fence each other, the newest row counts, what is missing is known, rows add up."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from infra.errors import EXIT_SUPERSEDED
from infra.ledger import LandingFile, Ledger, LeftOut, StaleAttempt, Stop, named_input
from infra.partitions import PartitionWrite, RuleResult, stand_in
from infra.profile import Profile
from tests.lake_kit import day


@pytest.fixture
def ledger(profile: Profile) -> Ledger:
    return Ledger(profile)


def _write(number: int, key: str = "k1", **changes: Any) -> PartitionWrite:
    return replace(PartitionWrite(day(number), key, (), rows_in=10, rows_out=10), **changes)


def test_a_later_attempt_has_a_larger_token_and_the_earlier_one_is_stale(ledger: Ledger) -> None:
    first = ledger.open_attempt("events", [day(0), day(1)])
    ledger.check(first, day(0), day(1))
    second = ledger.open_attempt("events", [day(1)])
    assert second.token > first.token
    ledger.check(first, day(0))
    with pytest.raises(StaleAttempt, match=f"overtaken by attempt {second.token}") as caught:
        ledger.check(first, day(0), day(1))
    assert caught.value.exit_code == EXIT_SUPERSEDED
    ledger.check(second, day(1))


def test_attempts_on_other_assets_do_not_fence(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(0)])
    ledger.open_attempt("sessions", [day(0)])
    ledger.check(attempt, day(0))


def test_an_attempt_with_no_partitions_is_harmless(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [])
    ledger.check(attempt)
    ledger.record(attempt, [], None)
    assert ledger.history() == []


def test_everything_that_was_recorded_is_read_back(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(0)])
    rules = (RuleResult("price", "fail", 2, "failed"), RuleResult("user", "warn", 0, "ok"))
    write = _write(0, rows_in=12, rows_quarantined=2, inputs=("/a b.csv", "/c.csv"), config_hash="abc", rules=rules)
    ledger.record(attempt, [write], 7)
    commit = ledger.committed("events")[day(0)]
    assert (commit.inputs, commit.config_hash, set(commit.rules)) == (write.inputs, "abc", set(rules))
    assert (commit.rows_in, commit.rows_out, commit.rows_quarantined) == (12, 10, 2)
    assert (commit.snapshot_id, commit.token, commit.action) == (7, attempt.token, "publish")
    assert commit.started == attempt.started <= commit.committed
    assert commit.committed.utcoffset() == timedelta(0)


def test_the_newest_row_of_a_partition_counts_and_history_keeps_all(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(0), day(1)])
    ledger.record(attempt, [_write(0, "old"), _write(1, "other")], 1)
    ledger.record(attempt, [_write(0, "new")], 2)
    assert {d: c.run_key for d, c in ledger.committed("events").items()} == {day(0): "new", day(1): "other"}
    assert [c.run_key for c in ledger.history("events", day(0))] == ["old", "new"]
    assert ledger.committed("sessions") == {}


def test_missing_are_the_days_of_the_range_without_a_commit(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(1), day(3)])
    ledger.record(attempt, [_write(1), _write(3)], 1)
    assert day(2) == date(2024, 2, 29)
    assert ledger.missing("events", day(0), day(4)) == [day(0), day(2), day(4)]
    assert ledger.missing("events", day(1), day(1)) == []


def test_a_withdrawn_partition_is_missing_again_and_can_be_restored(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(0)])
    ledger.record(attempt, [_write(0)], 1)
    commit = ledger.committed("events")[day(0)]
    ledger.correct([], [commit], 2)
    assert ledger.missing("events", day(0), day(0)) == [day(0)]
    ledger.correct([commit], [], 3)
    assert ledger.committed("events")[day(0)].run_key == "k1"


@pytest.mark.parametrize(("rows_out", "rows_quarantined", "lost"), [(9, 1, 0), (9, 0, 1), (10, 1, -1)])
def test_reconcile_names_the_partitions_whose_rows_do_not_add_up(
    ledger: Ledger, rows_out: int, rows_quarantined: int, lost: int
) -> None:
    attempt = ledger.open_attempt("events", [day(0), day(1)])
    ledger.record(attempt, [_write(0), _write(1, rows_out=rows_out, rows_quarantined=rows_quarantined)], 1)
    assert [(i.of, i.lost) for i in ledger.reconcile()] == ([(str(day(1)), lost)] if lost else [])


def test_a_balance_that_was_put_right_by_a_later_commit_is_not_reported(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(0)])
    ledger.record(attempt, [_write(0, "bad", rows_out=1)], 1)
    ledger.record(attempt, [_write(0, "good")], 2)
    assert ledger.reconcile() == []


def test_a_record_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    attempt = ledger.open_attempt("events", [day(0), day(1)])
    twice = (RuleResult("price", "fail", 0, "ok"),) * 2
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.record(attempt, [_write(0), _write(1, rules=twice)], 1)
    assert ledger.history() == []


def _landed(name: str, sha256: str, rows: dict[int, int]) -> LandingFile:
    return LandingFile(name, sha256, sum(rows.values()), {day(n): count for n, count in rows.items()})


def test_a_landing_file_that_comes_again_replaces_what_was_known_of_it(ledger: Ledger) -> None:
    ledger.landings.record("events", [_landed("b.csv", "s1", {1: 2, 0: 3}), _landed("a.csv", "s2", {})])
    ledger.landings.record("events", [_landed("b.csv", "s3", {2: 4})])
    ledger.landings.record("items", [_landed("b.csv", "s4", {9: 1})])
    assert ledger.landings.files("events") == [_landed("a.csv", "s2", {}), _landed("b.csv", "s3", {2: 4})]


def test_records_of_a_file_and_its_copy_are_counted_once(ledger: Ledger) -> None:
    ledger.landings.record("events", [_landed("a.csv", "s1", {0: 3}), _landed("copy.csv", "s1", {0: 3})])
    assert _said(ledger) == {day(0): (False, 3, "no run has come to copy.csv")}


def test_files_that_were_left_out_are_those_of_the_last_run(ledger: Ledger) -> None:
    torn = LeftOut("events", "b.csv", "torn", "s1", "reader")
    linked = LeftOut("items", "i.csv", "a link to nowhere")
    ledger.landings.record_left_out("events", [torn, LeftOut("events", "a.csv", "empty", "s2", "reader")])
    ledger.landings.record_left_out("items", [linked])
    ledger.landings.record_left_out("events", [torn])
    assert ledger.landings.left_out() == [torn, linked]
    assert ledger.landings.left_out("items") == [linked]


def test_reconcile_holds_a_landed_partition_against_the_records_of_its_files(ledger: Ledger) -> None:
    files = [_landed("a.csv", "a" * 64, {0: 10, 1: 4}), _landed("b.csv", "b" * 64, {0: 5})]
    ledger.landings.record("events", files)
    attempt = ledger.open_attempt("events", [day(0)])
    inputs = tuple(named_input(file.name, file.sha256) for file in files)
    ledger.record(attempt, [_write(0, rows_in=10, inputs=inputs)], 1)
    assert [(i.of, i.rows_in, i.lost) for i in ledger.reconcile()] == [(str(day(0)), 15, 5)]


def test_reconcile_names_a_landing_file_whose_records_no_day_got(ledger: Ledger) -> None:
    ledger.open_attempt("events", [day(0)])
    attempt = ledger.open_attempt("events", [day(1)])
    ledger.record(attempt, [_write(1, inputs=("b.csv#of another run",))], 1)
    ledger.landings.record("events", [LandingFile("a.csv", "s1", 60, {day(0): 49})])
    assert [(i.of, i.lost) for i in ledger.reconcile()] == [("a.csv", 11)]


def _said(ledger: Ledger, asset: str = "events") -> dict[date, tuple[bool, int, str]]:
    return {one.day: (one.live, one.records, one.said) for one in ledger.unsettled(asset)}


def test_a_day_is_unsettled_where_its_landing_files_are_not_those_of_its_commit(ledger: Ledger) -> None:
    ledger.landings.record("events", [_landed("a.csv", "a" * 64, {0: 1, 1: 1})])
    attempt = ledger.open_attempt("events", [day(0), day(1), day(2)])
    inputs = (named_input("a.csv", "a" * 64),)
    ledger.record(attempt, [_write(0, inputs=inputs), _write(1, inputs=inputs), _write(2)], 1)
    assert _said(ledger) == {}
    ledger.landings.record("events", [_landed("late.csv", "b" * 64, {1: 12})])
    assert _said(ledger) == {day(1): (True, 13, "built before late.csv")}
    ledger.landings.record("events", [_landed("a.csv", "c" * 64, {0: 1})])
    assert _said(ledger) == {day(0): (True, 1, "built before a.csv"), day(1): (True, 12, "built before late.csv")}
    ledger.landings.record("events", [_landed("a.csv", "d" * 64, {5: 1})])
    assert _said(ledger)[day(0)] == (True, 0, "built before a file of it was replaced")


def test_what_was_delivered_for_days_that_are_not_committed_is_told(ledger: Ledger) -> None:
    ledger.landings.record("events", [_landed("a.csv", "a" * 64, {0: 2, 1: 1}), _landed("b.csv", "b" * 64, {1: 4})])
    ledger.landings.record("items", [_landed("i.csv", "c" * 64, {5: 3})])  # of a table without one commit
    assert _said(ledger) == {
        day(0): (False, 2, "no run has come to a.csv"),
        day(1): (False, 5, "no run has come to a.csv, b.csv"),
    }
    assert _said(ledger, "items") == {day(5): (False, 3, "no run has come to i.csv")}
    ledger.record(ledger.open_attempt("events", [day(1)]), [_write(1)], 1)
    assert [(one.asset, one.day, one.live) for one in ledger.all_unsettled()] == [
        ("events", day(0), False),
        ("events", day(1), True),
        ("items", day(5), False),
    ]


def test_a_stopped_day_says_why_until_it_is_committed_or_asked_again_without_a_stop(ledger: Ledger) -> None:
    ledger.landings.record("events", [_landed("a.csv", "a" * 64, {0: 2})])
    first = Stop(day(0), "k", "too many bad", "judge", (named_input("a.csv", "a" * 64),))
    ledger.stops.replace("events", [day(0), day(1)], [first, Stop(day(1), "k", "so too")])
    ledger.stops.replace("sessions", [day(0)], [Stop(day(0), "k", "of another table")])
    assert _said(ledger) == {day(0): (False, 2, "too many bad (a.csv)"), day(1): (False, 0, "so too")}
    ledger.stops.replace("events", [day(1)], [])
    assert list(_said(ledger)) == [day(0)]
    assert [one.asset for one in ledger.all_unsettled()] == ["events", "sessions"]
    ledger.landings.record("events", [_landed("b.csv", "b" * 64, {0: 3})])
    assert _said(ledger) == {day(0): (False, 5, "no run has come to a.csv, b.csv")}  # no rule has judged that
    ledger.landings.record("events", [], forget=["b.csv"])
    assert _said(ledger) == {day(0): (False, 2, "too many bad (a.csv)")}
    ledger.record(ledger.open_attempt("events", [day(0)]), [_write(0, inputs=(named_input("a.csv", "a" * 64),))], 1)
    assert _said(ledger) == {}


def test_of_a_file_that_is_gone_the_days_count_that_it_is_in(ledger: Ledger) -> None:
    ledger.landings.record("events", [_landed("a.csv", "a" * 64, {0: 2, 1: 3})], gone=["a.csv"])
    inputs = (named_input("a.csv", "a" * 64),)
    ledger.record(ledger.open_attempt("events", [day(0)]), [_write(0, rows_in=2, inputs=inputs)], 1)
    assert _said(ledger) == {}
    assert [file.there for file in ledger.landings.files("events")] == [False]


def test_a_replaced_file_whose_replacement_is_gone_too_is_told_with_what_the_ingest_says(ledger: Ledger) -> None:
    inputs = (named_input("a.csv", "a" * 64),)
    ledger.record(ledger.open_attempt("events", [day(0)]), [_write(0, inputs=inputs)], 1)
    ledger.landings.record("events", [_landed("b.csv", "b" * 64, {1: 3})])
    ledger.stops.replace("events", [day(0)], [Stop(day(0), "k", "a.csv is gone", "", inputs)])
    assert _said(ledger)[day(0)] == (True, 0, "a.csv is gone")
    ledger.landings.record("events", [_landed("a.csv", "c" * 64, {1: 3})])
    assert _said(ledger)[day(0)] == (True, 0, "built before a file of it was replaced")


def test_good_rows_that_stand_in_settle_no_stop(ledger: Ledger) -> None:
    ledger.stops.replace("items", [day(0)], [Stop(day(0), "k", "too many bad")])
    ledger.record(ledger.open_attempt("items", [day(0)]), [_write(0, stand_in("k"))], 1)
    assert _said(ledger, "items") == {day(0): (True, 0, "too many bad")}
