"""Random numbers that depend on what they are drawn for alone: not on an order, a process or what was drawn before.

A draw is a hash of its keys (seed, purpose, person, time, place), by the finaliser of SplitMix64 (Steele, Lea and Flood
2014, Fast Splittable Pseudorandom Number Generators, section 3). So people may be simulated in any blocks at any
parallelism, and two policies shown to the same people meet the same luck (common random numbers).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Draws:
    """Draws of one seed. `keys` are whole numbers or arrays of them, which broadcast to the shape of what is drawn."""

    seed: int

    def uniform(self, purpose: str, *keys: Any) -> Floats:
        """Uniform on the open interval (0, 1)."""
        word = _mixed(np.asarray([self.seed], dtype=np.int64).view(np.uint64) ^ np.uint64(zlib.crc32(purpose.encode())))
        with np.errstate(over="ignore"):
            for key in keys:
                word = _mixed(word * _GOLDEN + np.asarray(key, dtype=np.int64).view(np.uint64))
        shape = np.broadcast_shapes(*(np.shape(key) for key in keys))
        # 52 bits and a half step: neither 0 nor 1, of which a logarithm would have no value.
        return ((word >> np.uint64(12)).astype(np.float64) + 0.5).reshape(shape) * 2.0**-52

    def normal(self, purpose: str, *keys: Any) -> Floats:
        """Standard normal (Box and Muller 1958)."""
        angle = self.uniform(f"{purpose}/angle", *keys)
        return np.sqrt(-2.0 * np.log(self.uniform(purpose, *keys))) * np.cos(2.0 * np.pi * angle)

    def gumbel(self, purpose: str, *keys: Any) -> Floats:
        """Standard Gumbel: the largest of logits plus these is a draw from their softmax."""
        return -np.log(-np.log(self.uniform(purpose, *keys)))

    def exponential(self, purpose: str, *keys: Any) -> Floats:
        """Exponential of mean 1."""
        return -np.log(self.uniform(purpose, *keys))

    def choice(self, weights: Floats, purpose: str, *keys: Any) -> NDArray[np.int64]:
        """A number below len(weights) for each key, in proportion to the weights."""
        total = np.cumsum(weights)
        found = np.searchsorted(total, self.uniform(purpose, *keys) * total[-1], side="right")
        return np.asarray(found.clip(0, len(total) - 1), dtype=np.int64)


def _mixed(word: Words) -> Words:
    with np.errstate(over="ignore"):
        word = (word ^ (word >> np.uint64(30))) * _FIRST
        word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))
