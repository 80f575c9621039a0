"""Items whose words are like those of the user's last items: for what nobody has taken yet, the only signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import scipy.sparse as sp

from training.core.ranking import rows_at_once
from training.ranker.signals.base import Arrays, Evidence, Floats, Ints, Pairs, Questions

LAST = 5
_NEIGHBOURS = 100


class TextSimilarity(Evidence):
    """score(i | h) = sum over the last 5 items h_p of cos(v(h_p), v(i)) / log2(2 + p), p = 0 for the newest.

    `vectors` [catalogue, width] have length 1 or, where an item has no text, 0; dense (of an encoder) or sparse (of
    TF-IDF). Which items are looked at: the `neighbours` nearest of each of the five.
    """

    name = "text"

    def __init__(self, vectors: sp.csr_array | Floats, near: Ints) -> None:
        self.vectors, self.near = vectors, near

    @classmethod
    def fit(cls, vectors: sp.csr_array | Floats, neighbours: int = _NEIGHBOURS) -> Self:
        """Find the nearest of each item, some items at a time."""
        return cls(vectors, nearest(vectors, min(neighbours, vectors.shape[0])))

    @property
    def catalogue(self) -> int:
        """See `Evidence.catalogue`."""
        return int(self.vectors.shape[0])

    def evidence(self, asked: Questions) -> sp.csr_array:
        """See `Evidence.evidence`."""
        weights = asked.weighted(self.catalogue, LAST)
        rows = np.repeat(np.arange(len(asked)), np.diff(weights.indptr) * self.near.shape[1])
        looked_at = sp.csr_array(
            (np.ones(len(rows), dtype=np.float32), (rows, self.near[weights.indices].ravel())), shape=weights.shape
        )
        looked_at.sum_duplicates()
        pairs = Pairs(np.repeat(np.arange(len(asked)), np.diff(looked_at.indptr)), looked_at.indices)
        looked_at.data = self._cosines(weights, pairs)
        looked_at.data[looked_at.data < 0] = 0.0
        looked_at.eliminate_zeros()
        return looked_at

    def scores(self, asked: Questions, pairs: Pairs) -> Floats:
        """See `Signal.scores`: of any item, looked at or not."""
        found = np.zeros(len(pairs), dtype=np.float32)
        for start, part in asked.parts(self.catalogue):
            own = pairs.within(start, start + len(part))
            of_part = Pairs(pairs.questions[own] - start, pairs.items[own])
            found[own] = self._cosines(part.weighted(self.catalogue, LAST), of_part)
        return found

    def _cosines(self, weights: sp.csr_array, pairs: Pairs) -> Floats:
        users, found = weights @ self.vectors, np.empty(len(pairs), dtype=np.float32)
        size = rows_at_once(self.vectors.shape[1])
        for start in range(0, len(pairs), size):
            own = slice(start, start + size)
            left, right = users[pairs.questions[own]], self.vectors[pairs.items[own]]
            found[own] = (left * right).sum(axis=1) if sp.issparse(left) else np.einsum("nw,nw->n", left, right)
        return found

    def arrays(self) -> Arrays:
        """See `Signal.arrays`."""
        if isinstance(self.vectors, np.ndarray):
            return {"near": self.near, "vectors": self.vectors}
        parts = {name: getattr(self.vectors, name) for name in ("data", "indices", "indptr")}
        return {"near": self.near, "width": np.array(self.vectors.shape[1]), **parts}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """See `Signal.of_arrays`."""
        near = arrays["near"]
        if "vectors" in arrays:
            return cls(arrays["vectors"], near)
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(sp.csr_array(parts, shape=(len(near), int(arrays["width"]))), near)


def tf_idf(texts: Sequence[str | None]) -> sp.csr_array:
    """Rows of length 1, (1 + log tf) * idf of words and numbers; empty where an item has no text."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True, dtype=np.float32)  # noqa: S106  (a pattern)
    try:
        return sp.csr_array(words.fit_transform([text or "" for text in texts]))
    except ValueError:  # not one word in all texts
        return sp.csr_array((len(texts), 1), dtype=np.float32)


def nearest(vectors: sp.csr_array | Floats, n: int) -> Ints:
    """The `n` items with the largest cosine of each, itself included, in no order: [catalogue, n]."""
    size, found = len_of(vectors), np.empty((len_of(vectors), n), dtype=np.int64)
    for start in range(0, size, at_once := rows_at_once(size)):
        likes = vectors[start : start + at_once] @ vectors.T
        dense = likes if isinstance(likes, np.ndarray) else likes.toarray()
        found[start : start + at_once] = np.argpartition(-dense, n - 1, axis=1)[:, :n]
    return found


def len_of(vectors: sp.csr_array | Floats) -> int:
    """How many items there are."""
    return int(vectors.shape[0])
