"""Landing files as they lie: which there are, and what is there and cannot be read."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.sentences import some_of
from infra.errors import DataError
from spark_jobs.landing.tables import TABLES

FORMATS = {".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}
# Dot files, Spark's `_temporary`, and the lock files that office programs put beside an open file.
_HIDDEN = (".", "_", "~$")
_NEAR = 0.8  # of 1, how alike a name and that of a table are where one is taken for the other misspelt
_SPELLINGS = {
    spelling: table for table in TABLES for spelling in (table, table.removesuffix("s"), table.replace("ies", "y"))
}


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
    paths, problems = landing_paths(landing, table)
    files: list[LandingFile] = []
    for name, path in paths.items():
        try:
            with path.open("rb") as stream:
                files.append(LandingFile(name, path, hashlib.file_digest(stream, "sha256").hexdigest()))
        except OSError as error:
            problems[name] = DataError(
                f"{name} cannot be opened.", why=error.strerror or "", do="Give this user the right to read it."
            )
    return Found(tuple(files), problems)


def landing_paths(landing: Path, table: str) -> tuple[dict[str, Path], dict[str, DataError]]:
    """The same files by name, none of them opened, and what cannot be read as a file."""
    found: dict[str, Path] = {}
    problems: dict[str, DataError] = {}
    for path in sorted(_paths(landing, table)):
        name = _readable(path.relative_to(landing))
        if problem := _unusable(name, path, table):
            problems[name] = problem
        else:
            found[name] = path
    return found, problems


def is_hidden(name: str) -> bool:
    """Whether any part of a name says that it is not to be read."""
    return any(part.startswith(_HIDDEN) for part in name.split("/"))


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
        why=of_no_table(landing),
        do=f"Put {table}.csv, .jsonl or .parquet there, or a folder {table}/ of such files (docs/bring-your-data.md).",
    )


def of_no_table(landing: Path) -> str:
    """A sentence on the folders and data files beside those of the tables, which nobody reads; empty without any."""
    if not landing.is_dir():
        return ""
    names = [
        _readable(Path(entry.name)) for entry in _visible(landing) if _looks_like_data(entry) and not _meant_for(entry)
    ]
    if not names:
        return ""
    number, verb = ("1 file or folder", "is") if len(names) == 1 else (f"{len(names)} files and folders", "are")
    return f"{number} of the landing folder {verb} of no table and not read: {some_of(names)}."


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(_HIDDEN))


def _looks_like_data(entry: Path) -> bool:
    return kind_of(entry.name) is not None or entry.is_dir()


def _meant_for(entry: Path) -> str | None:
    """The table whose name an entry of the landing folder bears, or one so near that somebody takes it for that."""
    stem = _stem(entry.name).casefold()
    if stem in TABLES or not _looks_like_data(entry):
        return stem if stem in TABLES else None
    for table in TABLES:  # `events (1).csv`
        if stem.startswith(table) and not stem[len(table)].isalpha() and kind_of(entry.name):
            return table
    letters = re.sub(r"[^a-z]+$", "", stem)  # `event_2024-03.csv`
    alike = [spelling for spelling in _SPELLINGS if letters.startswith(spelling[0])]
    near = difflib.get_close_matches(letters, alike, n=1, cutoff=_NEAR)
    return _SPELLINGS[near[0]] if near else None


def _stem(name: str) -> str:
    return name.split(".")[0]


def _paths(landing: Path, table: str) -> Iterator[Path]:
    if not landing.is_dir():
        return
    for entry in _visible(landing):
        if _meant_for(entry) != table:
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
        entries = _visible(folder)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_dir():
            yield from _below(entry, above | {real})
        else:
            yield entry


def _unusable(name: str, path: Path, table: str) -> DataError | None:
    """Why a path is no file of the table, where it is none."""
    stem = _stem(name.split("/")[0])
    if stem.casefold() != table:
        return DataError(
            f"{name} is not read.",
            why=f"Its name is not {table}, but near it.",
            do=f"{'Rename it to' if path.is_dir() else 'Put it into the folder'} {table}/, "
            "or let its name begin with _ to leave it out.",
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
