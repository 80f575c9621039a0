"""How a command of the spine ends: what a person can mend is said in four lines, and the exit code says the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from common.errors import (
    EXIT_BUG,
    EXIT_DATA,
    EXIT_INTERRUPTED,
    EXIT_SUPERSEDED,
    EXIT_TRANSIENT,
    DataError,
    PlumblineError,
    TransientError,
    refused_by_the_system,
)

__all__ = [
    "EXIT_BUG",
    "EXIT_DATA",
    "EXIT_INTERRUPTED",
    "EXIT_SUPERSEDED",
    "EXIT_TRANSIENT",
    "DataError",
    "PlumblineError",
    "TransientError",
    "exit_with_reason",
]


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
        rights = "Give this user the right to write there, or name another state folder: PLUMBLINE__HOME=/path."
        refusal = refused_by_the_system(error, "Make room, then run again.", rights)
        if refusal is None:
            raise
        _leave(refusal)


def _leave(error: PlumblineError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code)
