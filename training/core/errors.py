"""Errors for people, in the shape of the spine's own: what happened, where, why, what to do, and an exit code.

Training runs in a bare GPU image without the rest of the project, so it has its own family. The exit code decides
about a retry: 65 (the data is wrong) and 70 (a bug) do not retry, 75 (preempted or transient) does.
"""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Callable

EXIT_DATA = 65
EXIT_BUG = 70
EXIT_TRANSIENT = 75
EXIT_INTERRUPTED = 130


class TrainingError(Exception):
    """An error with a reader in mind; `exit_code` tells the scheduler whether a retry can help."""

    exit_code: int = EXIT_BUG

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str) -> None:
        self.what, self.where, self.why, self.do = what, where, why, do
        super().__init__(self.__str__())

    def __str__(self) -> str:
        parts = (("", self.what), ("  where: ", self.where), ("  why:   ", self.why), ("  do:    ", self.do))
        return "\n".join(label + text for label, text in parts if text)


class DataError(TrainingError):
    """The data, a checkpoint or the config is wrong: the same run fails again, so nothing retries it."""

    exit_code = EXIT_DATA


class Diverged(DataError):
    """A number that training goes by is not finite; raised before anything that comes of it is saved."""

    def __init__(self, what: str, value: float, *, where: str) -> None:
        super().__init__(
            f"the {what} is {value}",
            where=where,
            why="steps or values have grown beyond all numbers; the last checkpoint is of before",
            do="look for where metrics.jsonl goes wrong; then lower learning_rate, or mend the samples or rewards",
        )

    @classmethod
    def check(cls, where: str, **values: float) -> None:
        """Raise for the first of the `values`, by their names, that is not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise cls(name.replace("_", " "), value, where=where)


class Preempted(TrainingError):
    """The machine was taken away (SIGTERM): a retry goes on from the last checkpoint."""

    exit_code = EXIT_TRANSIENT

    def __init__(self, what: str, *, where: str = "") -> None:
        super().__init__(what, where=where, do="start the stage again: it goes on from its last checkpoint")

    @classmethod
    def saved(cls, where: str) -> Preempted:
        """A loop that saved its checkpoint before it stopped."""
        return cls("stopped by SIGTERM or Ctrl-C, checkpoint saved", where=where)


# What a person can mend outside the code; every other refusal of the system is a bug of ours and keeps its traceback.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command; what a person can mend is said on stderr, without a traceback, and is an exit code."""
    try:
        command()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on from the last checkpoint\n")
        return EXIT_INTERRUPTED
    except TrainingError as error:
        return _said(error)
    except OSError as error:
        if error.errno not in _FULL | _FORBIDDEN:
            raise
        return _said(_refusal(error))
    return 0


def _said(error: TrainingError) -> int:
    sys.stderr.write(f"error: {error}\n")
    return error.exit_code


def _refusal(error: OSError) -> TrainingError:
    full = error.errno in _FULL
    what, do = (
        ("the disk is full", "make room and run the same command again")
        if full
        else ("a file or folder cannot be used", "get the right to use it, or name another one")
    )
    refusal = TrainingError(what, where=str(error.filename or ""), why=error.strerror or "", do=do)
    refusal.exit_code = EXIT_TRANSIENT if full else EXIT_BUG
    return refusal
