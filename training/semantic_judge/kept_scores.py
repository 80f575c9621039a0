"""What a judge has said before, by what it was asked: a case that stands as it stood is not judged again.

The key of a case is of all that a judge may see (the user's history with stars, profile, context; the item's words and
price; what others have made of it), of the judge's own files, whole, and of the code of this room, in which its prompt
and its evidence are put. So one changed title is judged anew wherever it is recommended or stands in a history, and
nothing else; another judge, or another wording of what it is asked, starts from nothing.

A night reads it and changes nothing until it is over: killed and resumed, it finds what it found before. Then it holds
what that night has asked about, and no more.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import TransientError
from training.core.errors import DataError
from training.semantic_judge.examples import Cases, Floats, Item

_TABLE = "CREATE TABLE IF NOT EXISTS said (key BLOB PRIMARY KEY, night INTEGER, numbers BLOB) WITHOUT ROWID"
_KEEP = "INSERT INTO said VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET night = max(night, excluded.night)"
_SIZE = 16
_ROOM = Path(__file__).parent


def hash_of(folder: Path, which: str = "*") -> str:
    """Sha256 (hex) of the names and bytes of all files below a folder, or of those that are called so."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob(which) if file.is_file()):
        with file.open("rb") as stream:
            own = hashlib.file_digest(stream, "sha256").digest()
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + own)
    return digest.hexdigest()


class Keys:
    """Of cases over one catalogue, for one judge (`judge`: the hash of its folder)."""

    def __init__(self, judge: str, items: Sequence[Item]) -> None:
        self._judge = bytes.fromhex(judge) + bytes.fromhex(hash_of(_ROOM, "*.py"))
        self._items = [_digest(repr(vars(item)).encode()) for item in items]

    def of(self, cases: Cases) -> list[bytes]:
        """One for each case: [n]."""
        states = [self._of_state(state, cases) for state in range(len(cases.states))]
        known = np.stack([cases.mean_rating, cases.events], axis=1).astype(np.float32)
        rows = zip(cases.state.tolist(), cases.item.tolist(), known, strict=True)
        return [_digest(states[state] + self._items[item] + told.tobytes()) for state, item, told in rows]

    def _of_state(self, state: int, cases: Cases) -> bytes:
        states = cases.states
        own = slice(int(states.starts[state]), int(states.starts[state + 1]))
        history = b"".join(self._items[item] for item in states.history[own].tolist())
        told = repr((states.profiles[state], states.contexts[state])).encode()
        return _digest(self._judge + history + states.ratings[own].astype(np.float32).tobytes() + told)


class KeptScores:
    """Rows of `width` numbers by key, in an SQLite file; the spine runs a job once at a time, so one process has it.

    Raises DataError where the file is none, TransientError where it cannot be used now.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._path, self._width = path, width
        path.parent.mkdir(parents=True, exist_ok=True)

    def find(self, keys: Sequence[bytes]) -> tuple[NDArray[np.bool_], Floats]:
        """Which of the keys [n] are there, and their numbers [n, width], NaN for the others."""
        there, values = np.zeros(len(keys), dtype=bool), np.full((len(keys), self._width), np.nan, dtype=np.float32)
        places = {key: place for place, key in enumerate(keys)}
        with self._opened() as store:
            store.execute("CREATE TEMP TABLE asked (key BLOB PRIMARY KEY) WITHOUT ROWID")
            store.executemany("INSERT INTO asked VALUES (?)", ((key,) for key in places))
            for key, blob in store.execute("SELECT key, numbers FROM asked JOIN said USING (key)"):
                there[places[key]], values[places[key]] = True, np.frombuffer(blob, dtype=np.float32)
        for place, key in enumerate(keys):  # a key may be there twice: two lists of one user may hold one item
            there[place], values[place] = there[places[key]], values[places[key]]
        return there, values

    def replace(self, night: int, parts: Iterable[tuple[Sequence[bytes], Floats]]) -> None:
        """Keep the numbers [n, width] of the keys [n] of a night's parts; what only earlier nights have kept goes."""
        with self._opened() as store, store:
            for keys, values in parts:
                blobs = (row.astype(np.float32).tobytes() for row in values)
                rows = zip(keys, [night] * len(keys), blobs, strict=True)
                store.executemany(_KEEP, rows)
            store.execute("DELETE FROM said WHERE night < ?", (night,))

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path)) as store:
                store.execute(_TABLE)
                yield store
        except sqlite3.OperationalError as error:
            do = "it is tried again; make room on the disk if it is full"
            raise TransientError(
                "the store of what a judge has said cannot be used now", where=str(self._path), why=str(error), do=do
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                "what a judge has said before cannot be read",
                where=str(self._path),
                why=str(error),
                do="remove the file: all is judged again",
            ) from error


def _digest(told: bytes) -> bytes:
    return hashlib.blake2b(told, digest_size=_SIZE).digest()
