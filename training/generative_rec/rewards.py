"""Rewards of a next item: MiniOneRec's ranking reward over the beams of a group."""

from __future__ import annotations

import torch
from torch import Tensor

from training.core.policy.groups import Group
from training.core.policy.rewards import Term, by_group


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
