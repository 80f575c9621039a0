"""Rewards of a next item: MiniOneRec's ranking reward over the beams of a group, and what the shop's ranker says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.core.policy.groups import Group
from training.core.policy.rewards import Term, by_group
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.validation import Example


def hit(group: Group) -> Tensor:
    """1 where a response is the true one, the tokens that the request has as its context; else 0. [G]"""
    return torch.tensor([float(response.tokens == group.request.context) for response in group.responses])


def rank_penalty(group: Group) -> Tensor:
    """A miss costs more the higher it stands among the beams, if the group has a hit; else nothing does. [G]

    Beam i (from 0, best first) that misses: -(1 / log2(i + 2)) / sum_j (1 / log2(j + 2)) (MiniOneRec).
    """
    hits = hit(group)
    gains = 1.0 / torch.log2(torch.arange(len(hits)) + 2.0)
    return torch.where(hits == 1.0, 0.0, -gains / gains.sum()) * hits.any()


RANKING = (Term("hit", 1.0, by_group(hit)), Term("rank_penalty", 1.0, by_group(rank_penalty)))


def ranker_reward(weight: float, view: RankerView, items: ItemCodes, examples: Sequence[Example]) -> Term:
    """The term `ranker`: of a miss the calibrated probability that the ranker gives it, of a hit 0. [G], within [0, 1]

    So a group has something to compare where no beam is the true item, and a weight of at most 1 puts no miss above the
    hit. The ranker is not asked about the true item, which it has seen (`ranker_view`); an item that it does not know
    earns 0. `examples`: those of the training's requests, in their order.
    """
    item_of = dict(zip(items.tokens, items.item_ids, strict=True))

    def chances(groups: Sequence[Group]) -> list[Tensor]:
        pasts = [examples[group.request.place] for group in groups]
        beams = [[item_of[response.tokens] for response in group.responses] for group in groups]
        found = [torch.from_numpy(own).nan_to_num() for own in view.chances(pasts, beams)]
        return [torch.where(hit(group) == 1.0, 0.0, own) for group, own in zip(groups, found, strict=True)]

    return Term("ranker", weight, chances)
