"""SIGTERM: outside a loop it ends the stage at once with exit code 75; inside `deferred` the loop may save first, and
Ctrl-C waits for that too."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from training.core.errors import Preempted


def _preempted(signum: int, frame: FrameType | None) -> None:
    raise Preempted("preempted by SIGTERM")


@contextmanager
def _handler(action: signal._HANDLER, *signals: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only; a stage run in another thread cannot be preempted.
        return
    previous = [signal.signal(number, action) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def preemptible() -> Iterator[None]:
    """SIGTERM raises `Preempted` in the code below this line."""
    with _handler(_preempted, signal.SIGTERM):
        yield


@contextmanager
def deferred() -> Iterator[threading.Event]:
    """SIGTERM and Ctrl-C only set the event; the caller looks at it at its next safe point, saves, raises `Preempted`.

    A second Ctrl-C does not wait.
    """
    stop = threading.Event()

    def asked(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with _handler(asked, signal.SIGTERM, signal.SIGINT):
        yield stop
