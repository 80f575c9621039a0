"""Any text as numbers of a fixed table: its words and the three letters in a row of each, by a hash.

A text that nobody has seen shares words and pieces with some that were, so it is never one unknown id (Weinberger et
al. 2009, arXiv 0902.2206; pieces as in Bojanowski et al. 2017, arXiv 1607.04606).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from common.query_text import normalised

Ints = NDArray[np.int64]
_PIECE = 3


@dataclass(frozen=True, eq=False)
class Hashed:
    """`numbers` of the texts one after the other, the n-th from `starts[n]` to `starts[n + 1]`: [texts + 1]."""

    numbers: Ints
    starts: Ints

    def __len__(self) -> int:
        """How many texts."""
        return len(self.starts) - 1

    def chosen(self, rows: Ints) -> Hashed:
        """Those texts, in this order."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes) + np.repeat(self.starts[:-1][rows], sizes)
        return Hashed(self.numbers[places], starts)


@dataclass(frozen=True, eq=False)
class Texts:
    """Different texts, of `buckets` numbers; what equals another one once normalised has the same numbers."""

    texts: Sequence[str]
    buckets: int

    @cached_property
    def hashed(self) -> Hashed:
        """Words and their pieces."""
        return self._all([[*_words(text), *_pieces(text)] for text in self.texts])

    @cached_property
    def words(self) -> csr_matrix:
        """Whether a text has a word: [texts, buckets]."""
        found = self._all([_words(text) for text in self.texts])
        shape = (len(self.texts), self.buckets)
        return csr_matrix((np.ones(len(found.numbers), dtype=np.float32), found.numbers, found.starts), shape)

    @cached_property
    def means(self) -> csr_matrix:
        """What each word and piece is of the mean of a text's: [texts, buckets]."""
        sizes = np.diff(self.hashed.starts)
        shares = np.repeat(1.0 / np.maximum(sizes, 1), sizes).astype(np.float32)
        return csr_matrix((shares, self.hashed.numbers, self.hashed.starts), (len(self.texts), self.buckets))

    def _all(self, parts: Sequence[Sequence[str]]) -> Hashed:
        rows = [sorted({zlib.crc32(part.encode()) % self.buckets for part in own}) for own in parts]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return Hashed(np.array([number for row in rows for number in row], dtype=np.int64), starts)


def _words(text: str) -> list[str]:
    return [f"word {word}" for word in normalised(text).split()]


def _pieces(text: str) -> list[str]:
    marked = [f"<{word}>" for word in normalised(text).split()]
    return [word[at : at + _PIECE] for word in marked for at in range(max(len(word) - _PIECE + 1, 1))]
