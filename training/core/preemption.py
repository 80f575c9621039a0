"""SIGTERM: outside a loop it ends the stage at once with exit code 75; inside `deferred` the loop may save first."""

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
def _handler(action: signal._HANDLER) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only; a stage run in another thread cannot be preempted.
        return
    previous = signal.signal(signal.SIGTERM, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def preemptible() -> Iterator[None]:
    """SIGTERM raises `Preempted` in the code below this line."""
    with _handler(_preempted):
        yield


@contextmanager
def deferred() -> Iterator[threading.Event]:
    """SIGTERM only sets the event; the caller looks at it at its next safe point, saves, and raises `Preempted`."""
    stop = threading.Event()
    with _handler(lambda signum, frame: stop.set()):
        yield stop
