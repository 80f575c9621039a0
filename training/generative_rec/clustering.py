"""Principal axes, k-means and nearest rows: the ground on which all quantizers stand."""

from __future__ import annotations

import torch

_ROWS_AT_ONCE = 16384
_LEARNT_FROM = 1 << 18


def principal_axes(vectors: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [d] and the first `width` principal directions [d, width]; all of them where there are fewer."""
    mean = vectors.mean(dim=0)
    centred = vectors - mean
    _, directions = torch.linalg.eigh(centred.T @ centred)
    return mean, directions.flip(1)[:, :width].contiguous()


def nearest(vectors: torch.Tensor, book: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of and squared distance to the nearest row of `book`, both [vectors]."""
    found = [torch.cdist(rows, book).min(dim=1) for rows in torch.split(vectors, _ROWS_AT_ONCE)]
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found]).square()


def _seed_plus_plus(vectors: torch.Tensor, codes: int, random: torch.Generator) -> torch.Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre drawn with probability ~ squared distance."""
    first = torch.randint(len(vectors), (1,), generator=random)
    centres, distance = [vectors[first]], torch.full((len(vectors),), float("inf"))
    for _ in range(codes - 1):
        distance = torch.minimum(distance, (vectors - centres[-1]).square().sum(dim=1))
        weight = distance if distance.sum() > 0 else torch.ones_like(distance)
        centres.append(vectors[torch.multinomial(weight, 1, generator=random)])
    return torch.cat(centres)


def kmeans(vectors: torch.Tensor, codes: int, rounds: int, random: torch.Generator) -> torch.Tensor:
    """Centres [codes, d] of `vectors` [n, d], n >= codes: k-means++ and at most `rounds` of Lloyd.

    An emptied code goes to the vector that is farthest from its own. Of more vectors than 2^18 as many are drawn: a
    thousand of each of 256 codes say where its centre is, and torch draws from no more than 2^24 weights.
    """
    if len(vectors) > _LEARNT_FROM:
        vectors = vectors[torch.randperm(len(vectors), generator=random)[:_LEARNT_FROM]]
    book = _seed_plus_plus(vectors, codes, random)
    for _ in range(rounds):
        owner, distance = nearest(vectors, book)
        counts = torch.bincount(owner, minlength=codes)
        sums = torch.zeros_like(book).index_add_(0, owner, vectors)
        moved = sums / counts.clamp(min=1).unsqueeze(1)
        empty = (counts == 0).nonzero().squeeze(1)
        moved[empty] = vectors[distance.topk(len(empty)).indices]
        if torch.equal(moved, book):
            break
        book = moved
    return book
