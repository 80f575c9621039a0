"""How a process that we started ended: by itself, with an exit code, or by a signal. The one home of "killed".

What a signal ends has said nothing, so whoever started it says it. Where a process is killed that somebody still waits
for, the system did it, and nearly always because memory ran out.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import Final

from infra.errors import PlumblineError, TransientError
from infra.warm import Process

# The signals by which machines take processes away: what they ended may be tried again.
TAKEN_AWAY: Final = {SIGKILL: "killed by the system, most likely out of memory", SIGTERM: "stopped (SIGTERM)"}
_held_kib = 0  # by processes that were started warm: another process has waited for those
_BY_SIGNAL = 128  # shells and containers add a signal's number to it; Python has the number below zero


def follow(process: Process, emit: Callable[[str], object]) -> int:
    """Hand on each line of a process's output; returns its exit code (negative: ended by that signal)."""
    assert process.stdout is not None
    for line in process.stdout:
        emit(line.rstrip("\n"))
    return process.wait()


def signal_of(code: int) -> Signals | None:
    """The signal that ended a process; None where it ended by itself."""
    number = -code if code < 0 else code - _BY_SIGNAL
    return Signals(number) if number in set(Signals) else None


def hold(kib: int) -> None:
    """Remember how much memory a process held at its peak for which a parent has waited in our place."""
    global _held_kib
    _held_kib = max(_held_kib, kib)


def largest() -> str:
    """The most memory that a process held for which this one has waited, and those for which they had, in words."""
    waited_for = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    held = max(waited_for, _held_kib) * 1024  # the kernel counts in KiB
    return f"it held {held / 2**30:.1f} GiB at its peak"


def explain(who: str, code: int, *, where: str = "", held: str = "", do: str) -> None:
    """Say what ended a process that could not say it; nothing where it ended by itself or by a person's Ctrl-C.

    Raises:
        TransientError: it was taken away: killed, most likely out of memory, or stopped.
        PlumblineError: it crashed.
    """
    number = signal_of(code)
    if number is None or number == SIGINT:
        return
    if number in TAKEN_AWAY:
        why = f"It ended by signal {number.value} ({number.name}); {held or largest()}."
        raise TransientError(f"{who} was {TAKEN_AWAY[number]}.", where=where, why=why, do=do)
    raise PlumblineError(f"{who} crashed ({number.name}).", where=where, why="See its last lines above.")
