"""Rewards of a next item: MiniOneRec's ranking reward over the beams of a group, what the shop's ranker says, what an
advertiser would pay, and what the shop's judge says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.core.policy.groups import Group
from training.core.policy.rewards import Term, by_group
from training.generative_rec.bids import Bids
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.judge_view import JudgeView
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

    def chances(groups: Sequence[Group]) -> list[Tensor]:
        found = _chances(view, items, examples, groups)
        return [torch.where(hit(group) == 1.0, 0.0, own) for group, own in zip(groups, found, strict=True)]

    return Term("ranker", weight, chances)


def ecpm(view: RankerView, bids: Bids, items: ItemCodes, examples: Sequence[Example]) -> Term:
    """The term `ecpm`: 1000 times the bid that held on the day of the sample, times the chance: of the hit 1, as what
    was clicked has paid, of a miss the ranker's. [G], 0 or more

    An item that the ranker does not know, or nobody pays for, earns 0. `examples` as in `ranker_reward`.
    """

    def paid(groups: Sequence[Group]) -> list[Tensor]:
        found, beams = _chances(view, items, examples, groups), _items(items, groups)
        days = [examples[group.request.place].as_of for group in groups]
        bid = [torch.tensor([bids.of(item, day) for item in own]) for own, day in zip(beams, days, strict=True)]
        chance = [torch.where(hit(group) == 1.0, 1.0, own) for group, own in zip(groups, found, strict=True)]
        return [1000.0 * price * likely for price, likely in zip(bid, chance, strict=True)]

    return Term("ecpm", 1.0, paid)


def judge_reward(weight: float, view: JudgeView, items: ItemCodes) -> Term:
    """The term `judge`: the judge's score of each item; a group may be None (`JudgeView.scores`). [G]

    `view`: of the examples of the training's requests, in their order.
    """

    def said(groups: Sequence[Group]) -> list[Tensor | None]:
        found = view.scores([group.request.place for group in groups], _items(items, groups))
        return [None if own is None else torch.from_numpy(own) for own in found]

    return Term("judge", weight, said)


def _chances(view: RankerView, items: ItemCodes, examples: Sequence[Example], groups: Sequence[Group]) -> list[Tensor]:
    pasts = [examples[group.request.place] for group in groups]
    return [torch.from_numpy(own).nan_to_num() for own in view.chances(pasts, _items(items, groups))]


def _items(items: ItemCodes, groups: Sequence[Group]) -> list[list[str]]:
    return [[items.item_of[response.tokens] for response in group.responses] for group in groups]
