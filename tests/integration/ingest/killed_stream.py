"""`python -m`: reads the stream of signals, and is killed after it has published and before Spark knows."""

from __future__ import annotations

import os
import signal
from typing import Any

from infra.profile import load_profile
from spark_jobs import signals

_whole = signals.commit


def _killed(*arguments: Any) -> None:
    _whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    signals.commit = _killed  # type: ignore[assignment]
    signals.update(load_profile())
