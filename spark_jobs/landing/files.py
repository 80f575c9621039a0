"""Landing files as they lie: which there are, and what is there and cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.errors import DataError

FORMATS = {".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}
# Dot files, Spark's `_temporary`, and the lock files that office programs put beside an open file.
_HIDDEN = (".", "_", "~$")


def kind_of(name: str) -> str | None:
    """The format that a file's name says; None where that is none of ours."""
    return FORMATS.get(Path(name).suffix.lower())


@dataclass(frozen=True)
class LandingFile:
    """A file of the landing folder; `name` is its path below that folder, `sha256` the hash of its bytes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Found:
    """The files of a table, by name, and for each name that cannot be read as a file the reason."""

    files: tuple[LandingFile, ...]
    problems: dict[str, DataError]


def landing_files(landing: Path, table: str) -> Found:
    """The files of a table: `<table>.<format>` and all below the folder `<table>/`; links are followed.

    Nothing is read of which any part of the path below the landing folder is hidden.
    """
    files: list[LandingFile] = []
    problems: dict[str, DataError] = {}
    for path in sorted(_paths(landing, table)):
        name = _readable(path.relative_to(landing))
        if problem := _unusable(name, path, table):
            problems[name] = problem
            continue
        try:
            with path.open("rb") as stream:
                files.append(LandingFile(name, path, hashlib.file_digest(stream, "sha256").hexdigest()))
        except OSError as error:
            problems[name] = DataError(
                f"{name} cannot be opened.", why=error.strerror or "", do="Give this user the right to read it."
            )
    return Found(tuple(files), problems)


def required_files(landing: Path, table: str) -> Found:
    """The files of a table without which there is nothing to do.

    Raises:
        DataError: the landing folder is none, or there is no file of the table.
    """
    if not landing.is_dir():
        kind = "is a file" if landing.exists() else "does not exist"
        raise DataError(f"The landing folder {kind}.", where=str(landing), do="Name the folder that your files are in.")
    found = landing_files(landing, table)
    if not found.files and not found.problems:
        raise nothing_landed(landing, table)
    return found


def nothing_landed(landing: Path, table: str) -> DataError:
    """There is no file of a table that is needed."""
    return DataError(
        f"There is no landing file of {table}.",
        where=str(landing),
        do=f"Put {table}.csv, .jsonl or .parquet there, or a folder {table}/ of such files (docs/bring-your-data.md).",
    )


def _paths(landing: Path, table: str) -> Iterator[Path]:
    if not landing.is_dir():
        return
    for entry in sorted(landing.iterdir()):
        stem, wanted = entry.name.split(".")[0].casefold(), table.casefold()
        # Its name may be so near that somebody takes it for one of the table (`events (1).csv`).
        longer = stem.startswith(wanted) and not stem[len(wanted) :][:1].isalpha()
        is_meant = stem == wanted or (longer and entry.suffix.lower() in FORMATS)
        if entry.name.startswith(_HIDDEN) or not is_meant:
            continue
        if entry.is_dir() and entry.name == table:
            root = landing.resolve()
            yield from _below(entry, frozenset([root, *root.parents, *entry.resolve().parents]))
        else:
            yield entry


def _readable(path: Path) -> str:
    """A path for messages and the ledger; bytes that are no UTF-8 are written as `\\xff`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """What is in a folder and in those below it; what may not be entered, or links to one above, is given itself."""
    real = folder.resolve()
    if real in above:
        yield folder
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.name.startswith(_HIDDEN):
            continue
        if entry.is_dir():
            yield from _below(entry, above | {real})
        else:
            yield entry


def _unusable(name: str, path: Path, table: str) -> DataError | None:
    """Why a path is no file of the table, where it is none."""
    stem = name.split("/")[0].split(".")[0]
    if stem.casefold() != table:
        return DataError(
            f"{name} is not read.",
            why=f"What is beside {table}.csv has to be in a folder.",
            do=f"Put it into the folder {table}/, or let its name begin with _ to leave it out.",
        )
    if stem != table:
        return DataError(
            f"{name} is not read.", why="Names of tables are in small letters.", do=f"Rename it to {name.lower()}."
        )
    if not str(path).endswith(name):
        return DataError(f"{name} is not read.", why="Its name is not in UTF-8.", do="Rename it, or its folder.")
    if path.is_symlink() and path.is_dir():
        return DataError(f"{name} is not read.", why="It links to a folder above itself.", do="Take the link away.")
    if not path.exists():
        return DataError(
            f"{name} is not there.",
            why=f"It links to {_readable(path.readlink())}.",
            do="Mend the link, or take it away.",
        )
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        return DataError(f"{name} cannot be opened.", do="Give this user the right to read the folder.")
    if path.is_dir():
        return DataError(f"{name} is a folder.", do=f"Put its files into the folder {table}/.")
    return None if path.is_file() else DataError(f"{name} is no file.", do="Take it away.")
