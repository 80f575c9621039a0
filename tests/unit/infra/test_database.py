from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, text
from sqlalchemy.exc import IntegrityError

from infra.database import open_database, transaction
from infra.errors import PlumblineError, TransientError

TABLES = MetaData()
numbers = Table("numbers", TABLES, Column("n", Integer, primary_key=True))


@pytest.mark.parametrize("uri", ["nonsense", "nosuch://host/name", "postgresql+nosuch://host/name"])
def test_an_address_that_cannot_be_opened_says_where_it_stands_and_how_to_write_it(uri: str) -> None:
    with pytest.raises(PlumblineError, match="cannot be opened") as failure:
        open_database(uri, TABLES)
    assert "database_uri" in failure.value.where
    assert "sqlite:////" in failure.value.do


@pytest.mark.parametrize("place", ["/proc/x", "{file}"])
def test_a_folder_that_cannot_be_made_is_a_refusal_that_names_it(tmp_path: Path, place: str) -> None:
    file = tmp_path / "file"
    file.touch()
    folder = place.format(file=file)
    with pytest.raises(PlumblineError, match="could not be made") as failure:
        open_database(f"sqlite:///{folder}/state.db", TABLES)
    assert failure.value.where == folder and "PLUMBLINE__HOME" in failure.value.do
    assert not isinstance(failure.value, TransientError)


def test_a_file_that_is_no_database_is_named_and_not_retried(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.write_text("not a database, but long enough to be looked at\n" * 100)
    with pytest.raises(PlumblineError, match="damaged") as failure:
        open_database(f"sqlite:///{file}", TABLES)
    assert not isinstance(failure.value, TransientError)
    assert str(file) in failure.value.where


def test_a_broken_constraint_stays_what_it_is_and_nothing_is_written(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}", TABLES)
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        connection.execute(insert(numbers).values([{"n": 1}, {"n": 2}]))
        connection.execute(insert(numbers).values(n=1))
    with transaction(engine) as connection:
        assert connection.execute(numbers.select()).all() == []


def test_a_new_database_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    """Only the switch to the write-ahead log is in question: SQLite lets every other statement wait by itself."""
    file = tmp_path / "state.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (n INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    try:
        engine = open_database(f"sqlite:///{file}", TABLES)
    finally:
        release.join()
        other.close()
    with transaction(engine) as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
