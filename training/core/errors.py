"""What can go wrong in a training stage, and the exit code that its command ends with.

The exit code decides about a retry: 65 (data, a setting or a name is wrong) and 70 (a bug) do not retry, 75 (preempted
or transient) does.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from common.errors import (
    EXIT_BUG,
    EXIT_DATA,
    EXIT_INTERRUPTED,
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
    "EXIT_TRANSIENT",
    "DataError",
    "Diverged",
    "LeftOut",
    "Preempted",
    "exit_code_of",
]


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


class LeftOut(DataError):
    """There is too little data for a stage: it is left out of the run with this reason, and the run goes on.

    `run_stage` records it. A stage that reads what a left-out stage would have made is left out too.
    """

    @property
    def reason(self) -> str:
        """What the record says, in one line."""
        return f"{self.what}: {self.why}" if self.why else self.what


class Preempted(TransientError):
    """The machine was taken away (SIGTERM): a retry goes on from the last checkpoint."""

    def __init__(self, what: str, *, where: str = "") -> None:
        super().__init__(what, where=where, do="start the stage again: it goes on from its last checkpoint")

    @classmethod
    def saved(cls, where: str) -> Preempted:
        """A loop that saved its checkpoint before it stopped."""
        return cls("stopped by SIGTERM or Ctrl-C, checkpoint saved", where=where)


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command; what a person can mend is said on stderr, without a traceback, and is an exit code."""
    try:
        command()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on from the last checkpoint\n")
        return EXIT_INTERRUPTED
    except PlumblineError as error:
        return _said(error)
    except OSError as error:
        refusal = refused_by_the_system(
            error, "Make room and run the same command again.", "Get the right to use it, or name another one."
        )
        if refusal is None:
            raise
        return _said(refusal)
    return 0


def _said(error: PlumblineError) -> int:
    sys.stderr.write(f"error: {error}\n")
    return error.exit_code
