"""Importance levels and the weights that they mean (S-GRec, arXiv 2602.10606, Part B).

A vector of levels, 0 to 4 for each aspect, is a point of the simplex: w = (level + 1e-3) / sum. Levels, the small
number and the sum are those of a public reimplementation; all levels alike mean uniform weights.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from training.semantic_judge.examples import Floats

LEVELS = 5
_LEAST = 1e-3
TIE = 1e-6
"""Scores, weighted or not, that differ by no more are equal: they are sums in float32."""


def simplex(levels: NDArray[np.generic]) -> Floats:
    """The weights of vectors of levels [..., K]: 0 or more, 1 in all."""
    raised = levels.astype(np.float64) + _LEAST
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


def all_levels(aspects: int) -> NDArray[np.int8]:
    """Every vector of levels, the last aspect's changing fastest: [LEVELS ** aspects, aspects]."""
    return np.array(list(product(range(LEVELS), repeat=aspects)), dtype=np.int8)


def evenness(weights: Floats) -> Floats:
    """How evenly the aspects count: Shannon's entropy of weights [..., K] over that of uniform ones, 0 to 1."""
    sizes = weights.astype(np.float64)
    terms = np.where(sizes > 0, sizes * np.log(np.where(sizes > 0, sizes, 1.0)), 0.0)
    return np.asarray(-terms.sum(axis=-1) / np.log(weights.shape[-1]), dtype=np.float32)
