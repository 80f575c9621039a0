"""Items whose words are like those of the user's last items: for what nobody has taken yet, the only signal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch

from training.core.ranking import rows_at_once
from training.ranker.signals.base import Arrays, Floats, Ints, Mask, Pairs, Questions, Said, Stored, Table

Vectors: TypeAlias = sp.csr_array | Floats
LAST = 5
_NEIGHBOURS = 100


class TextSimilarity(Stored):
    """score(i | h) = sum over the last 5 items h_p of cos(v(h_p), v(i)) / log2(2 + p), p = 0 for the newest.

    `vectors` [catalogue, width] have length 1 or, where an item has no text, 0; dense (of an encoder) or sparse (of
    TF-IDF). Which items are looked at: the `neighbours` nearest of each of the five.
    """

    name, recalls = "text", True

    def __init__(self, vectors: Vectors, near: Ints) -> None:
        self.vectors, self.near = vectors, near

    @classmethod
    def fit(cls, vectors: Vectors, neighbours: int = _NEIGHBOURS) -> Self:
        """Find the nearest of each item, some items at a time."""
        return cls(vectors, nearest(vectors, min(neighbours, vectors.shape[0])))

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return int(self.vectors.shape[0])

    def said(self, asked: Questions) -> Said:
        """See `Signal.said`."""
        return _Likeness(asked.weighted(self.catalogue, LAST), self.vectors, self.near)

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


class _Likeness(Said):
    """Of any item, near or not: `weights` of the last items [questions, catalogue], `vectors` of the items, and those
    that are `near` each. Lists are of what is near one of the last items."""

    def __init__(self, weights: sp.csr_array, vectors: Vectors, near: Ints) -> None:
        self.weights, self.vectors, self.near, self.users = weights, vectors, near, weights @ vectors

    def scores(self, pairs: Pairs) -> Floats:
        """See `Said.scores`."""
        return _products(self.users, self.vectors, pairs)

    def top(self, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Said.top`."""
        return self._table.top(n, allowed)

    def best(self) -> Floats:
        """See `Said.best`."""
        return self._table.best()

    @cached_property
    def _table(self) -> Table:
        counts = np.diff(self.weights.indptr)
        rows = np.repeat(np.arange(len(counts)), counts * self.near.shape[1])
        ones = np.ones(len(rows), dtype=np.float32)
        table = sp.csr_array((ones, (rows, self.near[self.weights.indices].ravel())), shape=self.weights.shape)
        table.sum_duplicates()
        table.data = self.scores(Pairs(np.repeat(np.arange(len(counts)), np.diff(table.indptr)), table.indices))
        table.data[table.data < 0] = 0.0
        table.eliminate_zeros()
        return Table(table)


def _products(users: Vectors, vectors: Vectors, pairs: Pairs) -> Floats:
    found, size = np.empty(len(pairs), dtype=np.float32), rows_at_once(vectors.shape[1])
    for start in range(0, len(pairs), size):
        own = slice(start, start + size)
        left, right = users[pairs.questions[own]], vectors[pairs.items[own]]
        found[own] = (left * right).sum(axis=1) if sp.issparse(left) else np.einsum("nw,nw->n", left, right)
    return found


def tf_idf(texts: Sequence[str | None]) -> sp.csr_array:
    """Rows of length 1, (1 + log tf) * idf of words and numbers; empty where an item has no text."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True, dtype=np.float32)  # noqa: S106  (a pattern)
    try:
        return sp.csr_array(words.fit_transform([text or "" for text in texts]))
    except ValueError:  # not one word in all texts
        return sp.csr_array((len(texts), 1), dtype=np.float32)


def nearest(vectors: Vectors, n: int) -> Ints:
    """The `n` items with the largest cosine of each, itself included, in no order: [catalogue, n]."""
    size, found = len_of(vectors), np.empty((len_of(vectors), n), dtype=np.int64)
    for start in range(0, size, at_once := rows_at_once(size)):
        likes = vectors[start : start + at_once] @ vectors.T
        dense = likes if isinstance(likes, np.ndarray) else likes.toarray()
        # A fifth of the time that numpy's partition takes.
        found[start : start + at_once] = torch.from_numpy(dense).topk(n, dim=1, sorted=False).indices.numpy()
    return found


def len_of(vectors: Vectors) -> int:
    """How many items there are."""
    return int(vectors.shape[0])
