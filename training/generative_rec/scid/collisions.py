"""Items that share all codes, told apart on the last level by Sinkhorn (Cuturi 2013), as LC-Rec does after training.

A round: of the items that share a code the one nearest to it keeps it; the others, by prefix, are matched to the codes
that no item of the prefix holds, at the least total distance. The released recipe gives every code the same share of
each colliding group, which for two items and 256 codes leaves the choice to rounding; here a code takes at most one
item, and a slack row takes what the items leave free.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.ranking import VALUES_IN_CACHE, rows_at_once
from training.generative_rec.interactions import run_starts


@dataclass(frozen=True)
class SinkhornConfig:
    """At most `rounds` of re-assignment; `epsilon` against distances scaled to [0, 1]; `iterations` of Sinkhorn."""

    rounds: int = 20
    epsilon: float = 0.003
    iterations: int = 50


def collision_rate(codes: Tensor) -> float:
    """Share of rows that are more than their code can hold: 1 - distinct codes / rows, for codes [n, levels]."""
    return 1.0 - len(torch.unique(codes, dim=0)) / len(codes)


def spread(codes: Tensor, residuals: Tensor, book: Tensor, config: SinkhornConfig) -> tuple[Tensor, int]:
    """Codes [n, levels] with the last level re-assigned where rows collide, and the rounds that it took.

    Args:
        residuals: what the last level quantizes, [n, width]
        book: the last codebook, [codes, width]
    """
    codes, prefix = codes.clone(), torch.unique(codes[:, :-1], dim=0, return_inverse=True)[1]
    for done in range(config.rounds):
        movers = _movers(prefix, codes[:, -1], (residuals - book[codes[:, -1]]).square().sum(dim=1), len(book))
        if not len(movers):
            return codes, done
        taken = torch.zeros(int(prefix.max()) + 1, len(book), dtype=torch.bool)
        settled = torch.ones(len(codes), dtype=torch.bool)
        settled[movers] = False
        taken[prefix[settled], codes[settled, -1]] = True
        for group in _groups(movers, prefix, len(book)):
            free = ~taken[prefix[group[:, 0]]]
            cost = torch.cdist(residuals[group.clamp(min=0)], book.expand(len(group), -1, -1)).square()
            real = (group >= 0) & free.any(dim=1, keepdim=True)
            codes[group[real], -1] = sinkhorn(cost, real, free, config).argmax(dim=2)[real]
    return codes, config.rounds


def sinkhorn(cost: Tensor, real: Tensor, free: Tensor, config: SinkhornConfig) -> Tensor:
    """Log of the transport plans of several groups at once: [groups, rows, codes].

    Each real row has mass 1. Each free code holds mass 1, shared by rows and the slack row, which fills up what the
    rows leave; where rows are more than free codes, all codes hold the same share of the rows instead.

    Args:
        cost: distances, [groups, rows, codes]
        real: rows that are not padding, [groups, rows]
        free: codes that may be used, [groups, codes]
    """
    rows, room = real.sum(dim=1, keepdim=True).float(), free.sum(dim=1, keepdim=True).float()
    usable = real.unsqueeze(2) & free.unsqueeze(1)
    top = cost.masked_fill(~usable, 0.0).amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    kernel = (-cost / top / config.epsilon).masked_fill(~usable, -torch.inf)
    slack = torch.zeros_like(free, dtype=cost.dtype).masked_fill(~free, -torch.inf).unsqueeze(1)
    kernel = torch.cat([kernel, slack], dim=1)
    mass = torch.cat([real.float(), (room - rows).clamp(min=0.0)], dim=1).log()
    share = (torch.maximum(rows, room) / room.clamp(min=1.0)).log().expand_as(free)
    column = torch.zeros_like(share)
    row = torch.zeros_like(mass)
    for _ in range(config.iterations):
        row = (mass - (kernel + column.unsqueeze(1)).logsumexp(dim=2)).masked_fill(mass == -torch.inf, -torch.inf)
        column = (share - (kernel + row.unsqueeze(2)).logsumexp(dim=1)).masked_fill(~free, -torch.inf)
    return (kernel + row.unsqueeze(2) + column.unsqueeze(1))[:, :-1]


def _movers(prefix: Tensor, last: Tensor, distance: Tensor, size: int) -> Tensor:
    """The rows that must leave: all that share their code but the nearest to it (of equals, the first)."""
    key = prefix * size + last
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(key[order], stable=True)]
    again = torch.zeros(len(key), dtype=torch.bool)
    again[1:] = key[order][1:] == key[order][:-1]
    return order[again]


def _groups(movers: Tensor, prefix: Tensor, codes: int) -> list[Tensor]:
    """Movers by prefix, groups of like size together: tensors [groups, rows] of row numbers, -1 is padding.

    As many groups in a tensor as may stand against all `codes` at a time.
    """
    ordered = movers[torch.argsort(prefix[movers], stable=True)]
    sizes = torch.unique_consecutive(prefix[ordered], return_counts=True)[1]
    starts, found = run_starts(sizes)[:-1], list[Tensor]()
    widths = 2 ** torch.ceil(torch.log2(sizes.double())).long()
    for width in torch.unique(widths).tolist():
        chosen = widths == width
        place = torch.arange(width)
        rows = ordered[(starts[chosen].unsqueeze(1) + place).clamp(max=len(ordered) - 1)]
        found += torch.split(
            torch.where(place < sizes[chosen].unsqueeze(1), rows, -1), rows_at_once(width * codes, VALUES_IN_CACHE)
        )
    return found
