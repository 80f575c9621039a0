"""What a teacher says: levels and reasons of examples, and whether they tell anything.

Every teacher is a `Teacher`; a judge learns from `Labels` and does not ask who gave them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from training.core.errors import DataError, LeftOut
from training.semantic_judge.aspects import UNKNOWN, Aspect, Levels
from training.semantic_judge.examples import Examples, Floats, Ints


@dataclass(frozen=True, eq=False)
class Labels:
    """`levels` [n, K] and `reasons` [n] of n examples; a row of which nothing is known stays in, with `UNKNOWN` levels.

    `failures`: how many rows were asked about in vain, by the kind of failure.
    """

    levels: Levels
    reasons: Sequence[str | None]
    failures: Mapping[str, int] = field(default_factory=dict)

    def known(self) -> Ints:
        """The places of the rows with a level for some aspect."""
        return np.flatnonzero((self.levels != UNKNOWN).any(axis=1))

    @classmethod
    def none(cls, n: int, aspects: Sequence[Aspect]) -> Labels:
        """Of n examples nothing is known."""
        return cls(np.full((n, len(aspects)), UNKNOWN, dtype=np.int8), [None] * n)


class Teacher(Protocol):
    """Who gives labels. It may read the hindsight of an example, which no judge sees."""

    @property
    def hash(self) -> str:
        """Of all that its answers depend on but the example: another hash, another teacher."""

    def teach(self, examples: Examples, rows: Ints, numbers: Floats) -> Labels:
        """Labels of the examples at `rows`, whose evidence is `numbers` [rows, len(evidence.NAMES)]."""


def entropies(levels: Levels, aspects: Sequence[Aspect]) -> dict[str, float]:
    """Of each aspect, how evenly its levels [n, K] are used: Shannon's entropy over that of even use, 0 to 1.

    NaN for an aspect of which no level is known.
    """
    return {aspect.name: _evenness(levels[:, k], len(aspect.values)) for k, aspect in enumerate(aspects)}


def refuse_empty(levels: Levels, aspects: Sequence[Aspect], least: float) -> None:
    """Refuse labels [n, K] that nothing can be learnt of.

    Raises:
        DataError: the teacher has said nothing at all
        LeftOut: of an aspect it says nothing, or nearly the same of all: the entropy is below `least`. It may be the
            teacher's fault; in a shop of one item it is nobody's.
    """
    found = entropies(levels, aspects)
    dull = {name: value for name, value in found.items() if not value >= least}
    if not dull:
        return
    silent = bool((levels == UNKNOWN).all())
    refused = DataError if silent else LeftOut
    raise refused(
        "the teacher says nothing at all" if silent else "the teacher says nearly the same of all examples",
        where=", ".join(f"{name}: entropy {value:.2f}, least {least:g}" for name, value in dull.items()),
        why="; ".join(_histogram(levels[:, k], one) for k, one in enumerate(aspects) if one.name in dull),
        do="change the thresholds of the rules or the prompt of the model until levels differ, or lower the least",
    )


def _evenness(levels: Levels, size: int) -> float:
    counts = np.bincount(levels[levels != UNKNOWN], minlength=size)
    if not counts.sum():
        return float("nan")
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(size))


def _histogram(levels: Levels, aspect: Aspect) -> str:
    counts = np.bincount(levels[levels != UNKNOWN], minlength=len(aspect.values))
    told = ", ".join(f"{count} {word}" for count, word in zip(counts.tolist(), aspect.words, strict=True))
    return f"{aspect.name}: {told}"
