"""Errors for people: what happened, where, why, and what to do; and the exit code that decides about a retry."""

from __future__ import annotations

import errno

EXIT_DATA = 65
EXIT_BUG = 70
EXIT_TRANSIENT = 75
EXIT_SUPERSEDED = 77
EXIT_INTERRUPTED = 130


class PlumblineError(Exception):
    """An error with a reader in mind; `exit_code` tells the scheduler whether a retry can help."""

    exit_code: int = EXIT_BUG

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        self.what, self.where, self.why, self.do = what, where, why, do
        super().__init__(self.__str__())

    @property
    def parts(self) -> dict[str, str]:
        """What it was made of, by name."""
        return {"what": self.what, "where": self.where, "why": self.why, "do": self.do}

    def __str__(self) -> str:
        parts = (("", self.what), ("  where: ", self.where), ("  why:   ", self.why), ("  do:    ", self.do))
        return "\n".join(label + text for label, text in parts if text)


class DataError(PlumblineError):
    """Data, a declaration or a setting is wrong: the same run fails again, so nothing retries it."""

    exit_code = EXIT_DATA


class TransientError(PlumblineError):
    """The world got in the way (a conflict, a lock, a lost connection, a preemption): a retry can help."""

    exit_code = EXIT_TRANSIENT


# What a person can mend outside the code; every other refusal of the system is a bug of ours and keeps its traceback.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


def refused_by_the_system(error: OSError, room: str, rights: str) -> PlumblineError | None:
    """The full disk or the forbidden place that an OSError is about, and what to do; None for any other."""
    where, why = str(error.filename or ""), error.strerror or ""
    if error.errno in _FULL:
        return TransientError("The disk is full.", where=where, why=why, do=room)
    if error.errno in _FORBIDDEN:
        return PlumblineError("A file or folder could not be used.", where=where, why=why, do=rights)
    return None
