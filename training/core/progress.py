"""Progress for people: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

PLAIN_SECONDS = 10.0


class Progress:
    """`with Progress(total, "sft", "step") as progress: progress.advance(loss="4.10")`; `total` may be an estimate."""

    def __init__(self, total: int, label: str, unit: str, done: int = 0, stream: TextIO | None = None) -> None:
        self._total, self._label, self._unit = total, label, unit
        self._done = self._start = done
        self._stream = stream or sys.stderr
        self._began = self._printed = time.monotonic()
        terminal = self._stream.isatty()
        self._bar = tqdm(total=total, initial=done, desc=label, unit=unit, file=self._stream) if terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1, **shown: str) -> None:
        """Count `count` more; `shown` are values to show beside the rate."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(count)
        elif self._done >= self._total or time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._stream.write(self._line(shown) + "\n")

    def _line(self, shown: dict[str, str]) -> str:
        rate = (self._done - self._start) / max(time.monotonic() - self._began, 1e-9)
        left = max(self._total - self._done, 0) / max(rate, 1e-9)
        values = "".join(f", {name} {value}" for name, value in shown.items())
        share = f"{self._done}/{max(self._total, self._done)} {self._unit}s"
        return f"{self._label}: {share}, {rate:.1f} {self._unit}s/s, {left:.0f} s left{values}"
