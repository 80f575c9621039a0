"""How much of a whole catalogue is worked on at a time.

What pairs rows with the whole catalogue (scores, logits, distances) grows with both, and a million items meet a few
hundred rows in a table of a gigabyte. So rows go part by part, as many as fit; every row's result is its own, and the
same however many go together.
"""

from __future__ import annotations

VALUES_AT_ONCE = 1 << 25
"""Of one tensor: 128 MiB of float32. A few of that size are alive at a time."""

VALUES_IN_CACHE = 1 << 20
"""Of a tensor that many element-wise steps go over: of larger ones they wait for memory, 2.7 times as long."""


def rows_at_once(width: int, values: int | None = None) -> int:
    """How many rows of `width` values each are worked on at a time; at least one. Default: `VALUES_AT_ONCE` values."""
    return max(1, (values or VALUES_AT_ONCE) // max(1, width))
