"""The profile's database: how it is opened so that two processes can write to it, and how its tables come to be."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, DateTime, Engine, MetaData, NullPool, TypeDecorator, create_engine, event, make_url, text
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from common.folders import make_folder
from infra.errors import DataError, PlumblineError, TransientError

_BUSY_SECONDS = 60
_SCHEMA_LOCK = 7_315_001


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps no time zone, so naive UTC is what is stored."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From naive UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


def open_database(uri: str, tables: MetaData) -> Engine:
    """An engine on `uri` in which `tables` exist.

    SQLite: a write-ahead log, a minute of patience for locks, and transactions that take the write lock at their begin:
    one that reads first and writes later fails at once, whatever the patience, if another wrote in between.

    Raises:
        DataError: the address cannot be read, or its driver is not installed.
        PlumblineError: its folder cannot be made, or the file is no database.
        TransientError: as `transaction`.
    """
    engine = _engine(uri)
    with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        tables.create_all(connection)
    return engine


def _engine(uri: str) -> Engine:
    try:
        return _engine_of(make_url(uri))
    except (ArgumentError, ModuleNotFoundError) as error:  # SQLAlchemy does not know the name, or lacks its driver
        raise DataError(
            "The database cannot be opened.",
            where="database_uri of the profile",
            why=str(error),
            do="Write sqlite:////path/file.db or postgresql://user@host/name, and install the driver of its kind.",
        ) from error


def _engine_of(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _BUSY_SECONDS})
        if url.database:
            make_folder(Path(url.database).parent)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    return create_engine(url, pool_pre_ping=True)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """All that happens inside is written, or nothing.

    Raises:
        TransientError, PlumblineError: as `explained`.
    """
    with explained(engine.url), engine.begin() as connection:
        yield connection


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Around the use of a database: what its keeper can mend becomes an error for people.

    Raises:
        TransientError: the database cannot be reached, is locked, or its disk is full.
        PlumblineError: the file is no database.
    """
    where = url.render_as_string(hide_password=True)
    try:
        yield
    except OperationalError as error:
        raise TransientError(
            "The database could not be used.",
            where=where,
            why=str(error.orig),
            do="See to it (is it running, is its disk full?), then run again.",
        ) from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # a broken constraint and the like: the caller's own affair
            raise
        do = "Put back a copy of it, or move it away: a new one is made."
        raise PlumblineError("The database is damaged.", where=where, why=str(error.orig), do=do) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA foreign_keys=ON")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # Where the file is not yet in this mode, the switch wants it for itself and, unlike all else, never waits for it.
    patience = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
            time.sleep(0.01)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
