from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest

from infra.errors import EXIT_DATA, DataError, exit_with_reason
from infra.ledger import Ledger
from infra.ledger.landings import LandingFile
from infra.profile import load_profile
from spark_jobs.landing.days import landed_days, main


def _csv(*times: str) -> str:
    return "user_id,item_id,event_type,event_time\n" + "".join(f"u,i,view,{time}\n" for time in times)


def test_the_range_spans_files_of_all_formats_and_ignores_the_future_and_the_unreadable(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a.csv").write_text(_csv("2018-01-05T10:00:00Z", "soon", "2999-01-01"))
    whole = '{"user_id": "1", "item_id": "i", "event_type": "view", "event_time": "2018-02-01 00:00:00"}'
    (tmp_path / "events" / "b.jsonl").write_text(f'{whole}\n{{"user_id": "2", "it\n')
    days = landed_days(tmp_path)
    assert (days["first"], days["last"]) == (date(2018, 1, 5), date(2018, 2, 1))


def test_an_empty_landing_folder_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events\.csv"):
        landed_days(tmp_path)


def asked(landing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit code and the words of the command, with a new state."""
    monkeypatch.setenv("PLUMBLINE__HOME", str(landing / "_state"))
    monkeypatch.setattr(sys, "argv", ["days", str(landing)])
    with pytest.raises(SystemExit) as ended:
        exit_with_reason(main)
    return ended.value.code, "".join(capsys.readouterr())


def test_a_folder_without_items_is_refused_until_items_have_been_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.csv").write_text(_csv("2018-01-05"))
    code, said = asked(tmp_path, monkeypatch, capsys)
    assert code == EXIT_DATA
    assert "There is no landing file of items." in said and "Put items.csv" in said
    Ledger(load_profile()).landings.record("items", [LandingFile("items.csv", "ff", 1, {})])
    code, said = asked(tmp_path, monkeypatch, capsys)
    assert code == 0 and '"first": "2018-01-05"' in said


def test_a_folder_with_items_and_events_has_its_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.csv").write_text(_csv("2018-01-05"))
    (tmp_path / "items.csv").write_text("item_id,title\ni,A pen\n")
    assert asked(tmp_path, monkeypatch, capsys)[0] == 0


def test_events_without_a_readable_time_say_so(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(_csv("soon"))
    with pytest.raises(DataError, match="No landed event has a time"):
        landed_days(tmp_path)


def test_files_that_cannot_be_used_are_told_in_one_error_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "1.csv").write_text(_csv("2018-01-05").replace(",", ";"))
    (tmp_path / "events" / "2.csv").write_text(_csv())
    with pytest.raises(DataError, match="No landed event") as failure:
        landed_days(tmp_path)
    assert [line.strip() for line in failure.value.why.splitlines()] == [
        "events/1.csv lacks the columns user_id, item_id, event_time, event_type. "
        "Its values are separated by semicolons.",
        "events/2.csv holds no row.",
    ]
    assert [line.strip() for line in failure.value.do.splitlines()] == [
        "events/1.csv: Save it with commas.",
        "events/2.csv: Deliver it again, or take it away.",
    ]
    assert str(failure.value).count("why:") == str(failure.value).count("do:") == 1


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000, 1_000_000_000])
def test_epoch_numbers_are_read_in_any_of_their_units(tmp_path: Path, scale: int) -> None:
    (tmp_path / "events.csv").write_text(_csv(str(1515146400 * scale)))
    assert landed_days(tmp_path)["first"] == date(2018, 1, 5)


def test_the_split_is_cut_where_eight_and_nine_of_ten_events_are_reached(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(_csv(*(f"2018-01-{day:02d}" for day in range(1, 11))))
    days = landed_days(tmp_path)
    assert (days["valid_from"], days["test_from"]) == (date(2018, 1, 8), date(2018, 1, 9))


@pytest.mark.parametrize(
    ("per_day", "cuts"),
    [
        ((10, 10, 10), (2, 3)),  # the last day holds both shares: the day before it is for validation
        ((60, 35, 3, 2), (2, 3)),  # a sale: it is validation, and what follows is test
        ((95, 3, 2), (2, 3)),  # the first day holds both shares, and is training all the same
        ((100, 1), (2, 2)),  # two days: training and test
        ((1, 100), (2, 2)),
        ((5,), (2, 2)),  # a single day: training, and nothing is held out
    ],
)
def test_however_few_days_there_are_the_first_is_training(
    tmp_path: Path, per_day: tuple[int, ...], cuts: tuple[int, int]
) -> None:
    days = [f"2024-03-{day:02d}" for day, count in enumerate(per_day, start=1) for _ in range(count)]
    (tmp_path / "events.csv").write_text(_csv(*days))
    found, first = landed_days(tmp_path), date(2024, 3, 1)
    assert ((found["valid_from"] - first).days + 1, (found["test_from"] - first).days + 1) == cuts


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(_csv("2018-01-05"))
    for landing, said in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "events.csv", "is a file")):
        with pytest.raises(DataError, match=said):
            landed_days(landing)


def test_a_broken_file_hides_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a.parquet").write_bytes(b"PAR1 cut short")
    duckdb.sql("select '1' user_id, 'i' item_id, 'view' event_type, timestamp '2018-01-05' event_time").write_parquet(
        str(tmp_path / "events/b.parquet")
    )
    assert landed_days(tmp_path)["first"] == date(2018, 1, 5)


def test_a_time_that_the_contract_refuses_does_not_widen_the_range(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(_csv("1970-01-01", "0", "2018-01-05"))
    assert landed_days(tmp_path)["first"] == date(2018, 1, 5)


@pytest.mark.parametrize(("name", "read"), [("a.CSV", True), (".a.csv", False), ("_a.csv", False)])
def test_files_are_told_as_the_ingest_tells_them(tmp_path: Path, name: str, read: bool) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / name).write_text(_csv("2017-01-01"))
    (tmp_path / "events" / "b.csv").write_text(_csv("2018-01-05"))
    assert landed_days(tmp_path)["first"] == (date(2017, 1, 1) if read else date(2018, 1, 5))
