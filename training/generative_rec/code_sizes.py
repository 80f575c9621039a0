"""How many codes a shop can fill: the one place where the size of a codebook follows the number of rows it codes.

A codebook as large as the source's (256 codes, 3 levels) learns nothing from a shop of 60 items: each item gets a first
code of its own, and the levels after it have nothing left to tell. All of this is INFERRED; the source has one size.
"""

from __future__ import annotations

import math

from training.core.errors import LeftOut

LEAST = 20  # items as many as a nightly list has: with fewer, a model could only order the whole catalogue
_ROWS_PER_CODE = 8


def fitted(levels: int, codes: int, rows: int) -> tuple[int, int]:
    """Levels and codes per level for so many items or users; `levels` and `codes` are the most that are wanted.

    A code of a level stands for about 8 rows, but there are never fewer codes than the square root of the rows, so that
    two levels already have a place for each row. More levels than halvings of the rows have nothing to tell.
    """
    most = max(1, math.ceil(math.log2(rows)))
    return min(levels, most), min(codes, max(math.isqrt(rows - 1) + 1, rows // _ROWS_PER_CODE))


def refuse_small(items: int, users: int) -> None:
    """LeftOut where the catalogue has too few items, or the training part too few users, to learn codes from."""
    counts = {"items in the catalogue": items, "users in the training part": users}
    small = [f"{count} of at least {LEAST} {name}" for name, count in counts.items() if count < LEAST]
    if small:
        raise LeftOut(
            "the shop is too small for a model",
            why=" and ".join(small),
            do="nothing: the baselines make the lists until the shop has grown",
        )
