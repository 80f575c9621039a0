"""Which files of the landing folder are a table's, and which are named because they cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.errors import DataError
from spark_jobs.landing.files import landing_files, of_no_table, required_files
from spark_jobs.landing.tables import TABLES


def names(landing: Path) -> list[str]:
    return [file.name for file in landing_files(landing, "events").files]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *(
            ("events.csv", True),
            ("events/a.CSV", True),
            ("events/2024/03/a b+c%20.csv", True),
            ("events.2024.csv", True),
        ),
        *(("events/.a.csv", False), ("events/_a.csv", False), ("events/~$a.csv", False), ("items.csv", False)),
        *(("events/.ipynb_checkpoints/a.csv", False), ("events/_temporary/0/a.csv", False), (".events/a.csv", False)),
    ],
)
def test_nothing_hidden_is_read(tmp_path: Path, name: str, read: bool) -> None:
    put(tmp_path / name)
    assert names(tmp_path) == ([name] if read else [])


def test_below_a_hidden_landing_folder_all_is_read(tmp_path: Path) -> None:
    put(tmp_path / ".shop/events/a.csv")
    assert names(tmp_path / ".shop") == ["events/a.csv"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/2024/a.csv")
    put(tmp_path / "elsewhere/b.csv")
    (tmp_path / "landing/events").mkdir(parents=True)
    (tmp_path / "landing/events/2024").symlink_to(tmp_path / "elsewhere/2024")
    (tmp_path / "landing/events/b.csv").symlink_to("../../elsewhere/b.csv")
    assert names(tmp_path / "landing") == ["events/2024/a.csv", "events/b.csv"]


def test_a_landing_table_may_itself_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/a.csv")
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing/events").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "landing") == ["events/a.csv"]


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path / "events/a.csv")
    put(tmp_path / "Events.csv")
    (tmp_path / "events/loop").symlink_to(tmp_path / "events")
    (tmp_path / "events/gone.csv").symlink_to(tmp_path / "nowhere.csv")
    (tmp_path / "events.parquet").mkdir()
    os.mkfifo(tmp_path / "events/pipe")
    found = landing_files(tmp_path, "events")
    assert [file.name for file in found.files] == ["events/a.csv"]
    assert set(found.problems) == {"Events.csv", "events/loop", "events/gone.csv", "events.parquet", "events/pipe"}
    assert all("do:" in str(problem) for problem in found.problems.values())


@pytest.mark.parametrize("above", ["..", "../..", "../../landing/events"])
def test_a_link_to_any_folder_above_is_named_and_not_entered(tmp_path: Path, above: str) -> None:
    put(tmp_path / "landing/events/a.csv")
    put(tmp_path / "landing/items.csv")
    (tmp_path / "landing/events/up").symlink_to(above)
    found = landing_files(tmp_path / "landing", "events")
    assert [file.name for file in found.files] == ["events/a.csv"]
    assert "a folder above itself" in str(found.problems["events/up"])


def test_a_table_that_is_a_link_may_not_lead_back_either(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/shop/a.csv")
    put(tmp_path / "landing/items.csv")
    (tmp_path / "landing/events").symlink_to(tmp_path / "elsewhere/shop")
    (tmp_path / "elsewhere/shop/back").symlink_to(tmp_path / "landing")
    (tmp_path / "elsewhere/shop/up").symlink_to(tmp_path / "elsewhere")
    found = landing_files(tmp_path / "landing", "events")
    assert [file.name for file in found.files] == ["events/a.csv"]
    assert set(found.problems) == {"events/back", "events/up"}


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"caf\xe9/a.csv"])
def test_a_name_that_is_no_utf_8_is_named_in_letters_that_can_be_written(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path / "events"), name)
    os.makedirs(os.path.dirname(path))
    os.symlink(b"nowhere\xff", os.path.join(os.fsencode(tmp_path / "events"), b"gone.csv"))
    with open(path, "w") as stream:
        stream.write("x")
    found = landing_files(tmp_path, "events")
    assert found.files == ()
    assert set(found.problems) == {f"events/{name.decode('utf-8', 'backslashreplace')}", "events/gone.csv"}
    assert "".join(map(str, found.problems.values())).encode()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("event.csv", "events"),
        ("evnets.jsonl", "events"),
        ("event/", "events"),
        ("event_2024-03.csv", "events"),
        ("judgements.csv", "judgments"),
        ("Judgment.parquet", "judgments"),
        ("intent.csv", "intents"),
        ("query.csv", "queries"),
        ("querys.csv", "queries"),
        ("item/", "items"),
    ],
)
def test_a_misspelt_table_is_named_and_its_rows_are_no_others(tmp_path: Path, name: str, table: str) -> None:
    if name.endswith("/"):
        put(tmp_path / name / "a.csv")
    else:
        put(tmp_path / name)
    told = {each: landing_files(tmp_path, each) for each in TABLES}
    assert {each for each, found in told.items() if found.problems} == {table}
    (problem,) = told[table].problems.values()
    assert f"{name.rstrip('/')} is not read" in str(problem)
    assert f"{table}/, or let its name begin with _" in str(problem)
    assert of_no_table(tmp_path) == ""


def test_data_that_is_of_no_table_is_told_in_a_sentence(tmp_path: Path) -> None:
    for name in ("events.csv", "README.md", "_old.csv", ".git/x.csv"):
        put(tmp_path / name)
    assert of_no_table(tmp_path) == ""
    put(tmp_path / "users.csv")
    assert of_no_table(tmp_path) == "1 file or folder of the landing folder is of no table and not read: users.csv."
    for day in range(4):
        put(tmp_path / f"2024-03-0{day}.csv")
    assert "5 files and folders" in of_no_table(tmp_path)
    (tmp_path / "events.csv").unlink()
    with pytest.raises(DataError, match=r"2024-03-00\.csv, 2024-03-01\.csv, 2024-03-02\.csv and 2 more"):
        required_files(tmp_path, "events")


def test_a_file_that_may_be_meant_for_the_table_is_named(tmp_path: Path) -> None:
    meant = {"events (1).csv", "events-2024.parquet", "events_old.csv", "Events 2.json"}
    for name in (*meant, "_events-3.csv", "eventstore.csv", "events-notes.txt", "myevents.csv"):
        put(tmp_path / name)
    found = landing_files(tmp_path, "events")
    assert found.files == ()
    assert set(found.problems) == meant
    assert all("folder events/" in str(problem) for problem in found.problems.values())


def test_no_landing_folder_has_no_file(tmp_path: Path) -> None:
    assert names(tmp_path / "nothing") == []
