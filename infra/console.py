"""What every command prints: plain tables that fit a terminal and stay whole in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 200


def new_console() -> Console:
    """A console as wide as the terminal; wide enough for whole lines where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Print rows under their column names; numbers to the right. No rows: the sentence `nothing`.

    Values are printed as they are: text in brackets is text, not a colour.
    """
    console = new_console()
    kept = [list(row) for row in rows]
    if not kept:
        console.print(nothing, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if isinstance(kept[0][number], int) else "left", overflow="fold")
    for row in kept:
        table.add_row(*(Text(_spell(value)) for value in row))
    console.print(table)


def _spell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
