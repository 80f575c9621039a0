"""What is looked at once, before the first update: a run that cannot learn is not begun.

The first round's responses are the dry batch: they are there, and nothing has been learnt from them yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.errors import DataError, LeftOut
from training.core.learner import Learner
from training.core.policy.episodes import drafts, with_old
from training.core.policy.groups import Group, Tally

SAMPLER_GAP = 0.05
"""Nats a token, in the mean over responses. bf16 against float32 stays below a tenth of it; a forgotten adapter does
not."""


def refuse_another_sampler(
    learner: Learner[Any], model: PreTrainedModel, groups: Sequence[Group], how: tuple[int, int, float], tally: Tally
) -> None:
    """DataError where what wrote the responses is not the policy that is going to learn from them.

    `how`: pad, tokens of a row, temperature. Logs the mean gap of their log-probs, in nats a token, as `sampler_gap`.
    """
    gaps = list[float]()
    with learner.whole():
        for group in groups:
            known, _ = with_old(model, drafts(group, torch.zeros(len(group.responses)), how[1]), *how)
            sizes = [len(response.tokens) for response in group.responses]
            tokens = torch.cat([*(one.old for one in known), torch.zeros(0)])
            sums = [float(own.sum()) for own in torch.split(tokens, sizes)]
            gaps += [
                abs(response.told - own) / len(response.tokens)
                for response, own in zip(group.responses, sums, strict=True)
                if response.told is not None
            ]
    tally.add("sampler_gap", gaps)
    gap = sum(everywhere) / len(everywhere) if (everywhere := learner.gathered(torch.tensor(gaps))).numel() else 0.0
    if gap > SAMPLER_GAP:
        raise DataError(
            "the sampler is not the policy that learns",
            why=f"their log-probs of the first responses differ by {float(gap):.3f} nats a token",
            do="look for an adapter or weights that one of them lacks, or another temperature",
        )


def refuse_flat_rewards(learner: Learner[Any], advantages: Sequence[Tensor]) -> None:
    """LeftOut where no group of the first round has an advantage to learn from, though some were kept."""
    told = any(bool(advantage.any()) for advantage in advantages)
    kept, telling = learner.total(len(advantages)), learner.total(told)
    if kept and not telling:
        raise LeftOut(
            "the reward says the same of all responses",
            why=f"none of the first round's {kept:.0f} groups has two that earn differently",
            do="train the model further before, ask for more responses, or add a reward that tells them apart",
        )
