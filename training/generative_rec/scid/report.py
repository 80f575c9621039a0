"""How good a side's codes are: by level, what they use, what they lose, and whether neighbours stay neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.core.ranking import VALUES_IN_CACHE, rows_at_once
from training.generative_rec.interactions import Interactions
from training.generative_rec.quantizers import codebook_report
from training.generative_rec.scid.model import Side

NEIGHBOURS = 10
_MEASURED_ROWS = 1 << 16


def side_report(side: Side, inputs: Tensor, codes: Tensor) -> dict[str, float]:
    """Collision rate, and by level usage and perplexity; `unexplained.level_l` and `reconstruction_error`.

    `unexplained` is the share of the latents' variance that is left after a level; the reconstruction error the share
    of the SC embeddings' variance that the codes do not give back. Both are of rows evenly spread over a large table.
    """
    report = codebook_report(codes.numpy().astype(np.int32), side.quantizer.codes)
    measured = slice(None, None, -(-len(codes) // _MEASURED_ROWS))
    vectors, codes = side.embed(inputs[measured]), codes[measured]
    latents = side.quantizer.encode(vectors)[1][:, 0]
    spread = (latents - latents.mean(dim=0)).square().sum()
    for level in range(side.quantizer.levels):
        left = latents - _level_sums(side, codes, level + 1)
        report[f"unexplained.level_{level + 1}"] = float(left.square().sum() / spread)
        report[f"balance.level_{level + 1}"] = report[f"perplexity.level_{level + 1}"] / side.quantizer.codes
    error = (side.quantizer.rebuilt(codes) - vectors).square().sum()
    report["reconstruction_error"] = float(error / (vectors - vectors.mean(dim=0)).square().sum())
    return report


def neighbour_report(side: Side, inputs: Tensor, codes: Tensor, asked: Tensor) -> dict[str, float]:
    """`neighbours.level_l`: overlap of the 10 nearest rows by inputs and by the codes up to level l, over rows `asked`.

    Inputs are as the SC encoder scales them. Rows whose codes are equal up to l stand in one place: they count by
    their share of the places that are left.
    """
    scaled = (inputs - side.encoder.shift) * side.encoder.scale
    count, rows = min(NEIGHBOURS, len(scaled) - 1), rows_at_once(len(scaled), VALUES_IN_CACHE)
    nearest = [_distances(scaled, part).topk(count, largest=False).indices for part in torch.split(asked, rows)]
    true = torch.cat(nearest)
    found = {}
    for level in range(1, side.quantizer.levels + 1):
        share = _held(_level_sums(side, codes, level), asked, true)
        found[f"neighbours.level_{level}"] = float(share.mean())
    return found


def covisit_report(side: Side, inputs: Tensor, codes: Tensor, known: Interactions, asked: Tensor) -> dict[str, float]:
    """Share of an item's most co-visited items among its 10 nearest: by codes of all levels, and by the inputs."""
    keys, counts = known.covisits()
    order = torch.argsort(counts, descending=True, stable=True)
    order = order[torch.argsort(keys[order] // len(known.item_ids), stable=True)]
    starts = torch.searchsorted(keys, torch.stack([asked, asked + 1], dim=1) * len(known.item_ids))
    place = starts[:, :1] + torch.arange(NEIGHBOURS)
    near = keys[order][place.clamp(max=len(keys) - 1)] % len(known.item_ids)
    true = torch.where(place < starts[:, 1:], near, -1)
    has = (true >= 0).any(dim=1)
    scaled = (inputs - side.encoder.shift) * side.encoder.scale
    spaces = {"codes": _level_sums(side, codes, side.quantizer.levels), "input": scaled, "sc": side.embed(inputs)}
    return {f"covisit.{name}": float(_held(space, asked[has], true[has]).mean()) for name, space in spaces.items()}


def _level_sums(side: Side, codes: Tensor, levels: int) -> Tensor:
    books = side.quantizer.books.detach().cpu()
    return torch.stack([books[level][codes[:, level]] for level in range(levels)]).sum(dim=0)


def _held(points: Tensor, asked: Tensor, true: Tensor) -> Tensor:
    """Share of `true` rows ([asked, n], -1: none) among the 10 nearest, equal distances share the last places."""
    size = rows_at_once(len(points), VALUES_IN_CACHE)
    parts = zip(torch.split(asked, size), torch.split(true, size), strict=True)
    return torch.cat([_held_of(points, rows, own) for rows, own in parts])


def _held_of(points: Tensor, asked: Tensor, true: Tensor) -> Tensor:
    distances = _distances(points, asked)
    edge = distances.kthvalue(min(NEIGHBOURS, len(points) - 1), dim=1).values.unsqueeze(1)
    inside, at_edge = distances < edge, distances == edge
    room = (NEIGHBOURS - inside.sum(dim=1, keepdim=True)) / at_edge.sum(dim=1, keepdim=True)
    weight = inside.float() + at_edge * room.clamp(max=1.0)
    held = weight.gather(1, true.clamp(min=0)) * (true >= 0)
    return held.sum(dim=1) / (true >= 0).sum(dim=1)


def _distances(points: Tensor, asked: Tensor) -> Tensor:
    distances = torch.cdist(points[asked], points)
    return distances.scatter_(1, asked.unsqueeze(1), torch.inf)
