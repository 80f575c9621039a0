"""The text space of the market: where the words of a catalogue put a text, be it an item's or a query."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints

Vectors = NDArray[np.float32]
_AT_ONCE = 256  # queries held against all texts


@dataclass(frozen=True)
class Space:
    """TF-IDF through a random projection (Johnson and Lindenstrauss 1984), each word with a direction of its own, the
    rows of `directions` [words, D]; no words where no text has any. `size`: how many texts it is made of.

    Not decomposed: a decomposition differs in its last digits with the threads that computed it.
    """

    reader: TfidfVectorizer
    directions: Floats
    size: int

    @classmethod
    def of(cls, texts: Sequence[str], dimensions: int, draws: Draws) -> Space:
        """Of the words of these texts."""
        reader = TfidfVectorizer(sublinear_tf=True)
        try:
            reader.fit(texts)
        except ValueError:  # no text has a word
            return cls(reader, np.zeros((0, dimensions)), len(texts))
        keys = np.array([zlib.crc32(word.encode()) for word in reader.get_feature_names_out()])
        return cls(reader, draws.normal("direction", keys[:, None], np.arange(dimensions)[None, :]), len(texts))

    def placed(self, texts: Sequence[str]) -> Vectors:
        """[texts, D], of length 1, or 0 where a text has no word that is known here."""
        if len(texts) == 0 or len(self.directions) == 0:
            return np.zeros((len(texts), self.directions.shape[1]), dtype=np.float32)
        found = self.reader.transform(texts) @ self.directions
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.where(lengths > 0, found / np.where(lengths > 0, lengths, 1.0), 0.0).astype(np.float32)

    def known(self, texts: Sequence[str]) -> Floats:
        """The share [texts] of their words that stands in the catalogue, by weight: a rare word weighs more, and one
        that stands nowhere most (inverse document frequency)."""
        if len(texts) == 0 or len(self.directions) == 0:
            return np.zeros(len(texts))
        weights, unknown = self._weights(texts)
        known = np.asarray(weights.sum(axis=1)).ravel()
        return np.asarray(known / np.maximum(known + unknown, 1e-9))

    def answers(self, asked: Sequence[str], texts: Sequence[str], least: float) -> tuple[Ints, Ints]:
        """Pairs of an `asked` query and a text that holds at least this share of its words by weight: their numbers."""
        if len(asked) == 0 or len(self.directions) == 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        weights, unknown = self._weights(asked)
        total = np.asarray(weights.sum(axis=1)).ravel() + unknown
        there = (self.reader.transform(texts) > 0).T.astype(np.float64)
        pairs = []
        for start in range(0, len(asked), _AT_ONCE):
            held = (weights[start : start + _AT_ONCE] @ there).tocoo()
            kept = held.data >= least * total[start + held.row] - 1e-9
            pairs.append((start + held.row[kept], held.col[kept]))
        query, text = (np.concatenate(one).astype(np.int64) for one in zip(*pairs, strict=True))
        order = np.lexsort((text, query))
        return query[order], text[order]

    def _weights(self, texts: Sequence[str]) -> tuple[csr_matrix, Floats]:
        """Of the known words of each text [texts, words], each word once, and of all its unknown ones [texts]."""
        rarest = 1.0 + np.log(1.0 + self.size)
        known, read = self.reader.vocabulary_, self.words
        unknown = [sum(word not in known for word in set(read(text))) for text in texts]
        weights = (self.reader.transform(texts) > 0).multiply(self.reader.idf_[None, :]).tocsr()
        return weights, rarest * np.array(unknown, dtype=np.float64)

    @property
    def words(self) -> Callable[[str], list[str]]:
        """Of a text, as the space reads them, in their order."""
        analysed: Callable[[str], list[str]] = self.reader.build_analyzer()
        return analysed
