"""What was delivered: the landing files that were read, how many records each holds, and those that were left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Engine, delete, insert, select

from infra.database import transaction
from infra.ledger.schema import gone_files, landed_files, left_out_files
from infra.partitions import Commit

_SHORT = 12


@dataclass(frozen=True)
class LandingFile:
    """A landing file as last read: its content hash, the records counted in it, and how many of them each day got.

    Of one that is not `there` any more, the days that it is in keep their rows.
    """

    name: str
    sha256: str
    records: int
    rows: Mapping[date, int]
    there: bool = True

    @property
    def partitions(self) -> tuple[date, ...]:
        """The days that its rows belong to."""
        return tuple(sorted(self.rows))


@dataclass(frozen=True)
class LeftOut:
    """A landing file that could not be used when the table was last ingested, and why.

    Where its content was read, `sha256` is its hash and `reader` stands for what it was read with: another reader may
    find it in order.
    """

    table: str
    name: str
    problem: str
    sha256: str | None = None
    reader: str | None = None


def short_hash(sha256: str) -> str:
    """How inputs name a content."""
    return sha256[:_SHORT]


def named_input(name: str, sha256: str) -> str:
    """How a commit names a landing file among its inputs."""
    return f"{name}#{short_hash(sha256)}"


def named_inputs(inputs: Iterable[str]) -> dict[str, str]:
    """The contents that inputs name (by short hash), each with the name of its file."""
    return {content: name for name, _, content in (each.rpartition("#") for each in inputs)}


class Landings:
    """The ledger's memory of the landing folder."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(
        self, table: str, files: Iterable[LandingFile], forget: Iterable[str] = (), gone: Iterable[str] = ()
    ) -> None:
        """Remember (or replace) what landing files held, and forget those that are named; all or none.

        `gone` are all that are remembered and not there.
        """
        rows = [
            {
                "table_name": table,
                "name": file.name,
                "sha256": file.sha256,
                "records": file.records,
                "rows": {day.isoformat(): count for day, count in sorted(file.rows.items())},
                "recorded": datetime.now(UTC),
            }
            for file in files
        ]
        names = [*(row["name"] for row in rows), *forget]
        with transaction(self._engine) as connection:
            for name in names:
                connection.execute(
                    delete(landed_files).where(landed_files.c.table_name == table, landed_files.c.name == name)
                )
            if rows:
                connection.execute(insert(landed_files), rows)
            connection.execute(delete(gone_files).where(gone_files.c.table_name == table))
            if absent := [{"table_name": table, "name": name} for name in gone]:
                connection.execute(insert(gone_files), absent)

    def files(self, table: str) -> list[LandingFile]:
        """The landing files of `table` that were read, by name."""
        query = select(landed_files).where(landed_files.c.table_name == table).order_by(landed_files.c.name)
        with transaction(self._engine) as connection:
            gone = set(connection.scalars(select(gone_files.c.name).where(gone_files.c.table_name == table)))
            return [
                LandingFile(
                    name=row.name,
                    sha256=row.sha256,
                    records=row.records,
                    rows={date.fromisoformat(day): count for day, count in row.rows.items()},
                    there=row.name not in gone,
                )
                for row in connection.execute(query)
            ]

    def tables(self) -> list[str]:
        """The tables of which a landing file was read."""
        with transaction(self._engine) as connection:
            query = select(landed_files.c.table_name).distinct().order_by(landed_files.c.table_name)
            return list(connection.scalars(query))

    def record_left_out(self, table: str, files: Iterable[LeftOut]) -> None:
        """Replace the list of files of `table` that cannot be used."""
        rows = [
            {
                "table_name": table,
                "name": file.name,
                "problem": file.problem,
                "sha256": file.sha256,
                "reader": file.reader,
            }
            for file in files
        ]
        with transaction(self._engine) as connection:
            connection.execute(delete(left_out_files).where(left_out_files.c.table_name == table))
            if rows:
                connection.execute(insert(left_out_files), rows)

    def left_out(self, table: str | None = None) -> list[LeftOut]:
        """The files that cannot be used, by table and name; of one table where it is named."""
        query = select(left_out_files).order_by(left_out_files.c.table_name, left_out_files.c.name)
        if table is not None:
            query = query.where(left_out_files.c.table_name == table)
        with transaction(self._engine) as connection:
            return [
                LeftOut(row.table_name, row.name, row.problem, row.sha256, row.reader)
                for row in connection.execute(query)
            ]


def delivered(commit: Commit, files: Iterable[LandingFile]) -> int | None:
    """The rows that the landing files of a commit hold of its day; None where one of them is not remembered."""
    by_content = {short_hash(file.sha256): file for file in files}
    contents = named_inputs(commit.inputs)
    if not contents.keys() <= by_content.keys():
        return None
    return sum(by_content[content].rows.get(commit.partition, 0) for content in contents)
