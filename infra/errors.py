"""Errors for people: what happened, where, why, and what to do; and the exit code that decides about a retry."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

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

    def __str__(self) -> str:
        parts = (("", self.what), ("  where: ", self.where), ("  why:   ", self.why), ("  do:    ", self.do))
        return "\n".join(label + text for label, text in parts if text)


class DataError(PlumblineError):
    """The data is wrong: the same run on the same data fails again, so nothing retries it."""

    exit_code = EXIT_DATA


class TransientError(PlumblineError):
    """The world got in the way (a conflict, a lock, a lost connection): a retry can help."""

    exit_code = EXIT_TRANSIENT


# What a person can mend outside the code; every other refusal of the system is a bug of ours and keeps its traceback.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


def exit_with_reason(main: Callable[[], int]) -> None:
    """Run a command's `main`; what a person can mend becomes four lines on stderr and an exit code, not a traceback."""
    try:
        sys.exit(main())
    except PlumblineError as error:
        _leave(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in _FULL | _FORBIDDEN:
            raise
        _leave(_refusal(error))


def _refusal(error: OSError) -> PlumblineError:
    where, why = str(error.filename or ""), error.strerror or ""
    if error.errno in _FULL:
        return TransientError("The disk is full.", where=where, why=why, do="Make room, then run again.")
    return PlumblineError(
        "A file or folder could not be used.",
        where=where,
        why=why,
        do="Give this user the right to write there, or name another state folder: PLUMBLINE__HOME=/path.",
    )


def _leave(error: PlumblineError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code)
