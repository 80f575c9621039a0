"""The aspects that the judge scores, and their levels (S-GRec, arXiv 2602.10606, figure 1).

A level is a place on an aspect's grid: labels, grammars and tables hold the place, formulas the value. The grids of
profile, future and novelty are those of a public reimplementation, that of context is INFERRED, and so are all words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.int8]
"""[n, K]: the place of each example's level on the grid of each aspect, `UNKNOWN` where nobody has said."""
UNKNOWN = -1


@dataclass(frozen=True)
class Aspect:
    """`values`: what each level counts, ascending. `question`: what is asked. `words`: what each level means."""

    name: str
    values: tuple[float, ...]
    question: str
    words: tuple[str, ...]

    @property
    def column(self) -> str:
        """Its column in the table `judge_labels`."""
        return f"l_{self.name}"


PROFILE = Aspect(
    "profile",
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    "Does the item fit who the user is and what the user has liked?",
    ("against it", "rather not", "neutral", "fits", "fits very well"),
)
FUTURE = Aspect(
    "future",
    (0.0, 0.5, 1.0),
    "Does it fit what the user will want next?",
    ("unlikely", "perhaps", "likely"),
)
NOVELTY = Aspect(
    "novelty",
    (0.0, 0.5, 1.0),
    "Is it new to the user?",
    ("known", "a variation", "new"),
)
CONTEXT = Aspect(
    "context",
    (0.0, 0.5, 1.0),
    "Does it answer what the user is looking for now?",
    ("no", "partly", "yes"),
)


def aspects(context: bool) -> tuple[Aspect, ...]:
    """The aspects in their fixed order: K = 4 where the shop knows what is looked for, else 3."""
    return (PROFILE, FUTURE, NOVELTY, CONTEXT) if context else (PROFILE, FUTURE, NOVELTY)


def values_of(levels: Levels, scored: Sequence[Aspect]) -> NDArray[np.float32]:
    """What levels [n, K] count: [n, K], NaN where the level is unknown."""
    grids = [np.array([*aspect.values, np.nan], dtype=np.float32) for aspect in scored]  # -1 is the last place
    return np.stack([grid[levels[:, k]] for k, grid in enumerate(grids)], axis=1)


def expected(chances: Sequence[NDArray[np.floating]], scored: Sequence[Aspect]) -> NDArray[np.float32]:
    """The expected value of each aspect: `chances` [n, levels] of each, to [n, K].

    Smoother than the likeliest level: two items of one level still differ.
    """
    columns = [own @ np.array(aspect.values) for own, aspect in zip(chances, scored, strict=True)]
    return np.stack(columns, axis=1).astype(np.float32)


def overall(values: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """The holistic score w(x)^T s(x, a): aspect values [n, K] and weights [n, K] on the simplex, to [n].

    The value of what weighs nothing may be unknown (NaN).
    """
    counted = np.where(weights == 0, 0, values)
    return np.asarray(np.einsum("nk,nk->n", counted, weights), dtype=np.float32)
