"""Progress is a bar on a terminal and plain lines elsewhere."""

import io

import pytest

from training.core import progress
from training.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_it_writes_whole_lines_with_rate_time_left_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 11.0, 11.0, 11.0, 12.0, 22.0, 22.0, 22.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(100, "sft", "step", done=20, stream=stream) as bar:
        bar.advance(22, loss="4.10")
        bar.advance(1)
        bar.advance(21)
    assert stream.getvalue().splitlines() == [
        "sft: 42/100 steps, 2.0 steps/s, 29 s left, loss 4.10",
        "sft: 64/100 steps, 2.0 steps/s, 18 s left",
    ]


def test_the_last_line_is_always_written() -> None:
    stream = io.StringIO()
    with Progress(2, "sft", "step", stream=stream) as bar:
        bar.advance(), bar.advance()
    assert stream.getvalue().startswith("sft: 2/2 steps") and stream.getvalue().count("\n") == 1


def test_on_a_terminal_it_draws_a_bar() -> None:
    stream = Terminal()
    with Progress(2, "sft", "step", stream=stream) as bar:
        bar.advance(2, loss="4.10")
    assert "100%" in stream.getvalue() and "\r" in stream.getvalue()
