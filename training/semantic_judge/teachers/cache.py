"""Answers that were paid for, kept by what was asked and of whom; a kill loses none that has arrived.

One file for each teacher, `<hash>.jsonl`, a line per answer, written at once and synced. A line that a kill has torn
is cut off when the file is opened next. Of two lines of one key the later counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """Lines of JSON that are on disk before `append` returns; `lines` are those that were there at the opening.

    One process has it at a time: a second one that opens it waits.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.seek(0)
        whole = self._file.read()
        end = whole.rfind(b"\n") + 1
        self._file.truncate(end)
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole[:end].splitlines()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Write them together: a kill leaves a beginning of them."""
        self._file.write(b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())


class AnswerCache:
    """The answers of one teacher by the hash of what was asked."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[str, Any] = {line["key"]: line["answer"] for line in journal.lines}

    @staticmethod
    def key(asked: str) -> str:
        """Of what was asked of the teacher."""
        return hashlib.sha256(asked.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """The answer; None where there is none."""
        return self._known.get(key)

    def put(self, answers: Mapping[str, Any]) -> None:
        """Keep them; they are on disk when this returns."""
        self._journal.append(*({"key": key, "answer": answer} for key, answer in answers.items()))
        self._known.update(answers)


class Budget:
    """Tokens that may be spent in all tries together; what has been spent is never more than `limit`.

    A call takes the most that it can cost before it is made (`reserve`), and gives back what it has not used
    (`settle`). Both are journalled, so what was under way when a process was killed counts as spent in full.
    """

    def __init__(self, journal: Journal, limit: int) -> None:
        self._journal, self._limit = journal, limit
        by_call = {line["call"]: int(line["tokens"]) for line in journal.lines}
        self._spent, self._next = sum(by_call.values()), max(by_call, default=-1) + 1
        self._open: dict[int, int] = {}

    @property
    def spent(self) -> int:
        """Tokens that are spent, those of calls under way in full."""
        return self._spent

    def reserve(self, most: int) -> int | None:
        """Take so many for a call; its number, or None where that would be more than there is."""
        if self._spent + most > self._limit:
            return None
        call, self._next = self._next, self._next + 1
        self._book(call, most)
        return call

    def settle(self, call: int, used: int) -> None:
        """A call is over and has used so many; more than it has taken is a server's fault, and counts."""
        self._spent -= self._open.pop(call)
        self._book(call, used, done=True)

    def _book(self, call: int, tokens: int, *, done: bool = False) -> None:
        self._journal.append({"call": call, "tokens": tokens})
        self._spent += tokens
        if not done:
            self._open[call] = tokens
