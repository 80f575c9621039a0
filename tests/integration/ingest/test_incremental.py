"""Ingest reads only what changed, and gives the same tables whatever the format, order or repetition of files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.contracts import Contract, load_contract
from infra.errors import EXIT_DATA
from spark_jobs.landing.tables import Landed
from tests.landing_kit import Shop, event, many_good_events, read_nothing

DAY1, DAY2 = date(2024, 3, 1), date(2024, 3, 2)


def second_day(count: int = 3) -> list[dict[str, str]]:
    return [event(user_id=f"u{n}", event_time="2024-03-02T09:00:00Z") for n in range(count)]


def _lenient(landed: Landed) -> Contract:
    return replace(load_contract(landed.table), max_bad_share=0.5, expectations=())


def test_a_second_run_with_the_same_files_reads_nothing_and_says_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("events/a.csv", many_good_events())
    shop.ingest()
    read_nothing(monkeypatch)
    report = shop.ingest()
    assert report.published == ()
    assert report.up_to_date == 1
    assert "nothing new in 1 landing files; read nothing" in "\n".join(report.lines())


def test_a_backup_of_another_name_does_not_stand_for_the_file_and_is_named(shop: Shop) -> None:
    file = shop.put("events/b.csv", many_good_events())
    for name in ("a.bak", "c.bak"):  # one of them before it by name
        shutil.copyfile(file, file.with_name(name))
    report = shop.ingest()
    assert [w.rows_in for w in report.published] == [30]
    first, second = sorted(report.problems)
    assert "The format of events/a.bak is not known" in first
    assert second == "events/c.bak is equal to events/a.bak, which is left out."
    assert {one.name for one in shop.ledger.landings.left_out()} == {"events/a.bak", "events/c.bak"}
    assert "read once" not in "\n".join(report.lines())
    again = shop.ingest()
    assert (again.published, again.up_to_date, len(again.problems)) == ((), 1, 2)
    shop.put("events/late.csv", [event(user_id="late")])  # the day is built again, of all that it has
    assert [w.rows_in for w in shop.ingest().published] == [31]


def test_a_new_file_rebuilds_only_the_days_it_holds(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), *second_day()])
    shop.ingest()
    shop.put("events/b.csv", [event(user_id="late", event_time="2024-03-02T23:00:00Z")])
    report = shop.ingest()
    assert [(w.partition, w.rows_in) for w in report.published] == [(DAY2, 4)]


def test_a_quiet_day_of_a_range_is_committed_empty_and_one_after_the_newest_row_is_late(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), event(event_time="2024-03-04T09:00:00Z")])
    first, last = date(2024, 2, 29), date(2024, 3, 5)
    report = shop.ingest(first=first, last=last)
    assert [w.rows_in for w in report.published] == [0, 30, 0, 0, 1]
    assert shop.ledger.missing("events", first, last) == [last]
    assert shop.ingest(first=first, last=last).published == ()
    shop.put("events/b.csv", second_day())
    assert {w.partition: w.rows_in for w in shop.ingest(first=first, last=last).published} == {DAY2: 3}


def test_a_day_is_not_called_quiet_while_a_file_cannot_be_read(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), event(event_time="2024-03-04T09:00:00Z")])
    shop.put_text("events/b.parquet", "torn")
    shop.ingest(first=DAY1, last=date(2024, 3, 4))
    assert shop.ledger.missing("events", DAY1, date(2024, 3, 4)) == [DAY2, date(2024, 3, 3)]


def test_late_rows_of_a_closed_day_are_taken_along_by_the_run_that_finds_them(shop: Shop) -> None:
    shop.put("events/day1.csv", many_good_events())
    shop.ingest(first=DAY1, last=DAY1)
    shop.put("events/day2.csv", [*second_day(), *(event(user_id=f"late{n}") for n in range(12))])
    assert shop.ledger.unsettled("events") == []

    report = shop.ingest(first=DAY2, last=DAY2)

    assert {w.partition: w.rows_out for w in report.published} == {DAY1: 42, DAY2: 3}
    assert f"events: {DAY1} is built again: its landing files have changed since its run" in report.lines()
    assert shop.ledger.unsettled("events") == []
    assert shop.ledger.reconcile() == []
    assert shop.ingest(first=DAY2, last=DAY2).published == ()


def test_a_day_before_the_range_that_was_never_built_stays_for_its_own_run(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), *second_day()])
    assert [w.partition for w in shop.ingest(first=DAY2, last=DAY2).published] == [DAY2]
    assert shop.ledger.missing("events", DAY1, DAY2) == [DAY1]
    shop.put("events/b.csv", [event(user_id="late")])
    report = shop.ingest(first=DAY2, last=DAY2)
    assert report.messages == (
        "events: 1 new landing files hold no row of a day that was asked for",
        f"events: {DAY1} is not up to date, and outside of the range; "
        f"`python -m spark_jobs events --from {DAY1} --partition {DAY1}` builds what is missing",
    )


def test_late_rows_that_stop_their_day_are_told_with_their_file_and_not_read_again_until_something_changes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("events/day1.csv", many_good_events(5))
    shop.ingest(first=DAY1, last=DAY1)
    shop.put("events/day2.csv", [*second_day(), *(event(user_id=f"w{n}", item_id="i404") for n in range(5))])
    refused = shop.ingest(first=DAY2, last=DAY2).refusals
    (line,) = refused
    assert line.startswith(f"events {DAY1} stopped: 5 of 10 rows are bad")
    assert line.endswith("(events/day2.csv)")
    (waiting,) = shop.ledger.unsettled("events")
    assert (waiting.day, waiting.live, waiting.files) == (DAY1, True, ("events/day2.csv",))
    assert waiting.said in line
    with monkeypatch.context() as patch:
        read_nothing(patch)
        report = shop.ingest(first=DAY2, last=DAY2)
        assert (report.refusals, report.published, report.exit_code) == (refused, (), EXIT_DATA)
        assert "events: nothing new in 2 landing files; read nothing" in report.messages

    monkeypatch.setattr(Landed, "contract", property(_lenient))

    assert [w.partition for w in shop.ingest(first=DAY2, last=DAY2).published] == [DAY1]
    assert shop.ledger.unsettled("events") == []


def test_a_day_whose_file_was_gone_is_built_once_it_is_back(shop: Shop) -> None:
    path = shop.put("events/a.csv", many_good_events(5))
    shop.ingest()
    text = path.read_text()
    path.unlink()
    shop.put("events/late.csv", [event(user_id="late")])
    for _ in range(2):
        assert "events/a.csv holds rows of it and is gone" in shop.ingest().stopped[0].why
    path.write_text(text)
    assert [w.rows_in for w in shop.ingest().published] == [6]


def test_a_file_that_cannot_be_used_is_read_once_and_named_by_each_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("events/a.csv", many_good_events())
    torn = shop.put("events/b.csv", [{"user_id": "u1", "colour": "red"}])
    shutil.copyfile(torn, torn.with_name("c.csv"))
    first = shop.ingest()
    with monkeypatch.context() as patch:
        read_nothing(patch)
        again = shop.ingest()
        assert again.problems == first.problems
        assert [problem.splitlines()[0].split()[0] for problem in again.problems] == ["events/b.csv", "events/c.csv"]
        torn.unlink()
        with pytest.raises(AssertionError, match="read again"):
            shop.ingest()  # what stood behind it has to speak for itself
    (problem,) = shop.ingest().problems
    assert "events/c.csv lacks the column" in problem
    torn.with_name("c.csv").write_text("user_id,item_id,event_time,event_type\nu77,i1,2024-03-01T10:00:00Z,view\n")
    assert (shop.ingest().problems, len(shop.rows())) == ((), 31)


def test_a_catalogue_that_changes_checks_no_closed_day_again_in_a_daily_run_and_names_it(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), *second_day()])
    shop.ingest()
    shop.put("items.csv", [{"item_id": f"i{n}", "title": f"Another title {n}"} for n in range(1, 10)])
    shop.ingest("items")
    report = shop.ingest(first=DAY2, last=DAY2)
    assert [w.partition for w in report.published] == [DAY2]
    assert report.exit_code == 0
    assert f"events: {DAY1} is not up to date, and outside of the range" in "\n".join(report.messages)
    (waiting,) = shop.ledger.unsettled("events")
    assert (waiting.day, waiting.live, waiting.said) == (DAY1, True, "built with an earlier catalogue or ingest")
    assert [w.partition for w in shop.ingest(first=DAY1, last=DAY1).published] == [DAY1]
    assert shop.ledger.unsettled("events") == []


def test_a_renamed_file_is_no_late_one_where_the_catalogue_has_changed(shop: Shop) -> None:
    path = shop.put("events/a.csv", many_good_events())
    shop.put("events/b.csv", second_day())
    shop.ingest()
    path.rename(path.with_name("z.csv"))
    shop.put("items.csv", [{"item_id": f"i{n}", "title": f"Another title {n}"} for n in range(1, 10)])
    shop.ingest("items")
    assert [w.partition for w in shop.ingest(first=DAY2, last=DAY2).published] == [DAY2]


def test_a_quiet_range_reads_no_file_at_all(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), event(event_time="2024-03-04T09:00:00Z")])
    shop.ingest()
    assert [w.partition for w in shop.ingest(first=DAY2, last=DAY2).published] == [DAY2]


def test_a_catalogue_has_the_days_of_its_deliveries_and_no_empty_ones_between(shop: Shop) -> None:
    assert shop.ingest("items", first=DAY1, last=DAY2).published == ()


def test_a_renamed_file_is_no_change(shop: Shop) -> None:
    path = shop.put("events/a.csv", many_good_events())
    shop.ingest()
    path.rename(path.with_name("z.csv"))
    assert shop.ingest().published == ()


def test_a_file_that_rotates_keeps_what_it_held_under_its_new_name(shop: Shop) -> None:
    """`latest.csv` becomes `01.csv`, and a new `latest.csv` comes: nothing is forgotten, and nothing is called old."""
    latest = shop.put("events/latest.csv", many_good_events())
    shop.ingest()
    latest.rename(latest.with_name("01.csv"))
    shop.put("events/latest.csv", [*(event(user_id=f"b{n}") for n in range(10)), *second_day()])
    assert {w.partition: w.rows_in for w in shop.ingest().published} == {DAY1: 40, DAY2: 3}
    assert (shop.ledger.unsettled("events"), shop.ledger.reconcile()) == ([], [])

    latest.with_name("01.csv").rename(shop.profile.landing / "taken away.csv")
    latest.rename(latest.with_name("02.csv"))
    shop.put("events/latest.csv", [event(user_id="late")])
    report = shop.ingest()
    assert [(stop.partition, stop.why) for stop in report.stopped] == [
        (DAY1, "events/01.csv holds rows of it and is gone or unreadable; put it back")
    ]
    assert len(shop.rows()) == 43
    (waiting,) = shop.ledger.unsettled("events")
    assert (waiting.day, waiting.why) == (DAY1, report.stopped[0].why)


def test_a_copy_keeps_what_a_replaced_file_held(shop: Shop) -> None:
    path = shop.put("events/a.csv", many_good_events())
    shop.ingest()
    shutil.copyfile(path, path.with_name("b.csv"))
    assert "events: events/b.csv is equal to events/a.csv: read once" in shop.ingest().messages
    assert "equal" not in "\n".join(shop.ingest().messages)
    shop.put("events/a.csv", second_day())
    assert [w.partition for w in shop.ingest().published] == [DAY2]
    assert len(shop.rows()) == 33


def test_days_of_a_replaced_file_that_a_run_did_not_ask_for_are_told_and_lose_its_rows_later(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), *second_day()])
    shop.put("events/b.csv", [event(user_id="b")])
    shop.ingest()
    shop.put("events/a.csv", second_day(5))
    report = shop.ingest(first=date(2024, 2, 1), last=date(2024, 2, 2))
    assert [w.rows_in for w in report.published] == [0, 0]
    assert f"events: 2 days from {DAY1} to {DAY2} are not up to date" in "\n".join(report.messages)
    assert [(one.day, one.said) for one in shop.ledger.unsettled("events")] == [
        (DAY1, "built before a file of it was replaced"),
        (DAY2, "built before events/a.csv"),
    ]
    assert {w.partition: w.rows_in for w in shop.ingest().published} == {DAY1: 1, DAY2: 5}
    assert shop.ledger.unsettled("events") == []


def test_a_stopped_file_that_is_mended_under_another_name_is_not_asked_for_again(shop: Shop) -> None:
    shop.put("events/a.csv", many_good_events())
    bad = shop.put("events/b.csv", [*second_day(10), *(event(item_id="i404", event_time="2024-03-02") for _ in "ab")])
    assert [stop.partition for stop in shop.ingest().stopped] == [DAY2]
    bad.unlink()
    shop.put("events/b-fixed.csv", second_day(12))
    report = shop.ingest()
    assert ([w.rows_in for w in report.published], report.stopped) == ([12], ())
    assert f"events: events/b.csv is gone; nothing of it was in the table of {DAY2}" in report.messages
    assert shop.ledger.unsettled("events") == []


def test_what_was_replaced_stays_where_the_replacement_is_gone_before_it_was_built(shop: Shop) -> None:
    path = shop.put("events/a.csv", many_good_events())
    shop.ingest()
    shop.put("events/a.csv", [event(user_id=f"w{n}", item_id="i404") for n in range(30)])
    assert [stop.partition for stop in shop.ingest().stopped] == [DAY1]
    path.unlink()
    for _ in range(2):
        report = shop.ingest()
        assert report.published == ()
        assert "events/a.csv holds rows of it and is gone or unreadable; put it back" in report.refusals[0]
    assert len(shop.rows()) == 30
    shop.put("events/a.csv", many_good_events(20))
    assert [w.rows_in for w in shop.ingest().published] == [20]


def test_of_a_file_that_is_gone_only_the_days_that_it_is_in_are_kept_and_counted(shop: Shop) -> None:
    path = shop.put(
        "events/a.csv",
        [*many_good_events(), *(event(user_id=f"w{n}", item_id="i404", event_time="2024-03-02") for n in range(10))],
    )
    assert [stop.partition for stop in shop.ingest().stopped] == [DAY2]
    path.unlink()
    report = shop.ingest()
    assert (report.exit_code, report.published) == (0, ())
    assert f"events: events/a.csv is gone; nothing of it was in the table of {DAY2}" in report.messages
    assert shop.ledger.unsettled("events") == []
    shop.put("events/b.csv", second_day(10))
    report = shop.ingest()
    assert {w.partition: w.rows_in for w in report.published} == {DAY2: 10}
    assert "is gone" not in "\n".join(report.messages)
    assert (shop.ledger.unsettled("events"), shop.ledger.reconcile()) == ([], [])
    shop.put("events/a.csv", [*many_good_events(), *second_day(12)])  # other content of that name
    assert {w.partition: w.rows_in for w in shop.ingest().published} == {DAY1: 30, DAY2: 22}


def test_a_known_file_that_comes_broken_is_not_called_gone(shop: Shop) -> None:
    shop.put("events/a.csv", many_good_events())
    shop.put("events/b.csv", [event(user_id=f"w{n}", item_id="i404", event_time="2024-03-02") for n in range(10)])
    shop.ingest()
    shop.put_text("events/b.csv", "colour\nred\n")
    assert "gone" not in "\n".join(shop.ingest().lines())


def test_a_range_that_does_not_cover_a_stopped_day_says_that_it_was_delivered_again(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), event(event_time="2024-03-04T10:00:00Z")])
    shop.put("events/b.csv", [*second_day(10), *(event(item_id="i404", event_time="2024-03-02") for _ in "ab")])
    shop.ingest()
    shop.put("events/b.csv", second_day(12))
    day = date(2024, 3, 4)
    report = shop.ingest(first=day, last=day)
    assert (report.published, report.up_to_date) == ((), 1)
    assert f"events: {DAY2} is not up to date, and outside of the range" in "\n".join(report.messages)
    assert [(one.day, one.records, one.said) for one in shop.ledger.unsettled("events")] == [
        (DAY2, 12, "no run has come to events/b.csv")
    ]


def test_rows_without_a_day_are_judged_with_the_files_that_bring_them_and_told_once(shop: Shop) -> None:
    for number in range(1, 5):
        rows = [event(user_id=f"u{n}", event_time=f"2024-03-0{number}T10:00:00Z") for n in range(12)]
        dated = {**rows[0], "user_id": "d", "event_type": "stare"}
        shop.put(f"events/{number}.csv", [*rows, event(event_time="nope"), dated])
        report = shop.ingest()
        assert (report.exit_code, [w.rows_in for w in report.published]) == (0, [number, 13])
        refused = [line for line in report.messages if "refused by rule" in line]
        assert [f"in events/{number}.csv, first in row 1" in line for line in refused] == [True, True]
    shop.put("events/5.csv", [event(event_time="nope", user_id=f"u{n}") for n in range(9)])
    (stop,) = shop.ingest().stopped
    assert stop.why.startswith("9 of 9 rows are bad")


def test_a_replaced_file_takes_its_old_rows_with_it(shop: Shop) -> None:
    shop.put("events/a.csv", [*many_good_events(), *second_day()])
    shop.ingest()
    shop.put("events/a.csv", many_good_events())
    report = shop.ingest()
    assert {w.partition: w.rows_out for w in report.published} == {DAY1: 30, DAY2: 0}
    assert {row["event_date"] for row in shop.rows()} == {DAY1}


def test_rows_of_a_file_that_is_gone_stay_and_a_rebuild_of_their_day_asks_for_it(shop: Shop) -> None:
    shop.put("events/a.csv", many_good_events()).rename(shop.profile.landing / "events/a2.csv")
    shop.ingest()
    (shop.profile.landing / "events/a2.csv").unlink()
    shop.put("events/b.csv", [event(user_id="late")])
    report = shop.ingest()
    assert report.exit_code == EXIT_DATA
    assert "events/a2.csv holds rows of it and is gone" in report.stopped[0].why
    assert len(shop.rows()) == 30


def test_a_known_file_that_is_delivered_broken_changes_nothing(shop: Shop) -> None:
    shop.put("events/a.csv", many_good_events())
    shop.ingest()
    shop.put_text("events/a.csv", "")
    report = shop.ingest()
    assert report.exit_code == EXIT_DATA
    assert len(shop.rows()) == 30


def test_csv_json_lines_a_json_array_and_parquet_give_the_same_rows(shop: Shop) -> None:
    rows = [
        {"user_id": name, "item_id": "i1", "event_time": "2024-03-01T10:00:00Z", "event_type": "review", "rating": 4.5}
        for name in ("plain", 'a "quoted", name', "two\nlines", "ümlaut")
    ]
    shop.put("events/a.csv", [{**row, "user_id": f"csv {row['user_id']}"} for row in rows])
    shop.put("events/b.jsonl", [{**row, "user_id": f"jsonl {row['user_id']}"} for row in rows])
    shop.put("events/d.parquet", [{**row, "user_id": f"parquet {row['user_id']}"} for row in rows])
    import json

    shop.put_text(
        "events/c.json", json.dumps([{**row, "user_id": f"array {row['user_id']}"} for row in rows], indent=1)
    )
    shop.ingest()
    found = {tuple(row["user_id"].split(" ", 1)): (row["event_time"], row["rating"]) for row in shop.rows()}
    assert set(found) == {(kind, row["user_id"]) for kind in ("csv", "jsonl", "array", "parquet") for row in rows}
    assert len(set(found.values())) == 1


def test_times_in_all_documented_shapes_are_the_same_moment(shop: Shop) -> None:
    shapes = ["2024-03-01T10:00:00Z", "2024-03-01 10:00:00", "2024-03-01T11:00:00+01:00", "1709287200", "1709287200000"]
    shop.put("events/a.csv", [event(user_id=f"u{n}", event_time=shape) for n, shape in enumerate(shapes)])
    nanoseconds = pa.table(
        {
            "user_id": ["ns"],
            "item_id": ["i1"],
            "event_type": ["view"],
            "event_time": pa.array([1709287200 * 10**9], pa.timestamp("ns")),
        }
    )
    pq.write_table(nanoseconds, shop.profile.landing / "events" / "b.parquet")
    shop.ingest()
    assert {row["event_time"].timestamp() for row in shop.rows()} == {1709287200.0}
    assert len(shop.rows()) == 6


_TEXT = st.sampled_from(["", "u1", "u2", "x"])
_TIME = st.sampled_from(["2024-03-01", "2024-03-02T01:00:00Z", "never", "", "2999-01-01"])
_ROW = st.fixed_dictionaries(
    {
        "user_id": _TEXT,
        "item_id": st.sampled_from(["i1", "i2", "i404"]),
        "event_time": _TIME,
        "event_type": st.sampled_from(["view", "cart", "stare"]),
        "price": st.sampled_from(["", "1", "-1", "free"]),
    }
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_ROW, min_size=1, max_size=12), data=st.data())
def test_rows_in_are_rows_out_plus_rows_quarantined_whatever_lands(
    shop: Shop, rows: list[dict[str, str]], data: st.DataObject
) -> None:
    name = f"events/{data.draw(st.uuids())}.csv"
    path = shop.put(name, rows)
    report = shop.ingest()
    assert all(w.rows_in == w.rows_out + w.rows_quarantined for w in report.published)
    assert shop.ledger.reconcile() == []
    path.unlink()
