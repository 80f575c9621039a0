"""Parts of sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 3


def some_of(things: Sequence[object]) -> str:
    """The first three of them, and how many more there are."""
    more = len(things) - _MOST
    return ", ".join(map(str, things[:_MOST])) + (f" and {more} more" if more > 0 else "")
