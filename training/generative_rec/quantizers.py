"""Quantizers: item vectors to codes, a few levels of them; and the extra token that makes each code one item's.

A quantizer learns and assigns codes; that two items must never share a leaf of the trie is not its business but
`unique_leaves`'. So a new quantizer is one class with the methods of `Quantizer`, and one line in `QUANTIZERS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training.generative_rec.clustering import kmeans, nearest, principal_axes
from training.generative_rec.rq_vae import ResidualVAE


class Quantizer(Protocol):
    """Vectors [items, width] to codes [items, levels], each code in [0, codes)."""

    levels: int
    codes: int

    def fit(self, vectors: torch.Tensor) -> None:
        """Learn the codebooks; deterministic for the seed that the quantizer was built with."""

    def encode(self, vectors: torch.Tensor) -> NDArray[np.int32]:
        """Codes of vectors, seen in `fit` or not: [items, width] -> [items, levels]."""

    def state(self) -> dict[str, torch.Tensor]:
        """All that `encode` needs, for a safetensors file."""


class ResidualKMeans:
    """Residual quantization with k-means at each level (RQ-k-means; Chen et al. 2010 for the residual scheme).

    r_0 = P(x - mean);  c_l = argmin_k ||r_l - e_lk||^2;  r_(l+1) = r_l - e_l,c_l. Starts from k-means++ and puts an
    emptied code on the vector that is farthest from its own.

    P keeps the first `width` principal components. In the 384 dimensions of a text encoder the residuals of the later
    levels are mostly noise, and k-means spends its codes on outliers: on 3,459 product texts 32 dimensions bring the
    collision rate from 0.21 to 0.08 and the perplexity of the third level from 14 to 130 of 256 codes.
    """

    def __init__(self, levels: int, codes: int, width: int, seed: int, rounds: int = 25) -> None:
        self.levels, self.codes, self._width, self._rounds = levels, codes, width, rounds
        self._random = torch.Generator().manual_seed(seed)
        self._mean = self._axes = torch.empty(0)
        self._books: list[torch.Tensor] = []

    def fit(self, vectors: torch.Tensor) -> None:
        """See `Quantizer.fit`."""
        self._mean, self._axes = principal_axes(vectors, self._width)
        self._books = []
        residual = (vectors - self._mean) @ self._axes
        for _ in range(self.levels):
            book = kmeans(residual, min(self.codes, len(residual)), self._rounds, self._random)
            self._books.append(book)
            residual = residual - book[nearest(residual, book)[0]]

    def encode(self, vectors: torch.Tensor) -> NDArray[np.int32]:
        """See `Quantizer.encode`."""
        residual, columns = (vectors - self._mean) @ self._axes, []
        for book in self._books:
            code = nearest(residual, book)[0]
            columns.append(code)
            residual = residual - book[code]
        return torch.stack(columns, dim=1).numpy().astype(np.int32)

    def state(self) -> dict[str, torch.Tensor]:
        """See `Quantizer.state`."""
        books = {f"codebook.{level}": book for level, book in enumerate(self._books)}
        return {"mean": self._mean, "axes": self._axes, **books}


QUANTIZERS: Mapping[str, Callable[[int, int, int, int], Quantizer]] = {
    "rq_kmeans": ResidualKMeans,
    "rq_vae": ResidualVAE,
}
"""By name: what makes a quantizer of levels, codes, width and seed."""


def unique_leaves(codes: NDArray[np.int32], item_ids: Sequence[str]) -> list[list[int]]:
    """Codes such that no item's is another's, or a prefix of another's.

    All items of a collided group get a further code, 0, 1, ... in the order of their ids; items alone keep theirs.
    (If one of a group kept the short form, its leaf would be an inner node of the others.)

    Args:
        codes: [items, levels]
    Returns: one list per item, `levels` or `levels + 1` long
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in sorted(range(len(item_ids)), key=lambda row: item_ids[row]):
        groups[tuple(map(int, codes[row]))].append(row)
    leaves: list[list[int]] = [[] for _ in item_ids]
    for prefix, rows in groups.items():
        for place, row in enumerate(rows):
            leaves[row] = [*prefix, place] if len(rows) > 1 else [*prefix]
    return leaves


def codebook_report(codes: NDArray[np.int32], size: int) -> dict[str, float]:
    """Health of codes [items, levels] before leftovers are told apart.

    `collision_rate` is the share of items that are more than their code can hold: 1 - distinct codes / items (the
    count of LC-Rec and Align3GR). `usage` is the share of a level's `size` codes in use; `perplexity` is exp(entropy).
    """
    report = {"collision_rate": 1.0 - len(np.unique(codes, axis=0)) / len(codes)}
    for level in range(codes.shape[1]):
        counts = np.bincount(codes[:, level], minlength=size)
        share = counts[counts > 0] / len(codes)
        report[f"usage.level_{level + 1}"] = float((counts > 0).mean())
        report[f"perplexity.level_{level + 1}"] = float(np.exp(-(share * np.log(share)).sum()))
    return report
