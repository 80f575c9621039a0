"""What the language model learns of labels: answers to imitate (SFT), and how far its own agree with them (GRPO)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from training.core.packing import Sample, Samples
from training.core.policy.groups import Group, Request
from training.core.policy.rewards import Term, by_group
from training.core.prompts import Codes
from training.semantic_judge.answers import Answer, Answers
from training.semantic_judge.aspects import UNKNOWN, Aspect, Levels
from training.semantic_judge.labelled import Labelled
from training.semantic_judge.prompts import CasePrompts

FORMAT_REWARD = 0.1
"""INFERRED: what an answer earns for being one."""


def samples_of(prompts: CasePrompts, answers: Answers, labelled: Labelled, seed: int) -> Samples:
    """The answers to imitate.

    A level that nobody knows is drawn from those of the other rows and not learnt: what comes behind it is learnt
    whatever it is. So an answer is learnt in the pieces between such levels.
    """
    rng = np.random.default_rng(seed)
    known = [own[own != UNKNOWN] for own in labelled.levels.T]
    rows = zip(prompts.whole(labelled.cases), labelled.levels, labelled.reasons, strict=True)
    return Samples.of(
        sample
        for prompt, levels, reason in rows
        for sample in _pieces(prompt, answers, _filled(levels, known, rng), levels != UNKNOWN, reason)
    )


def _filled(levels: Levels, known: Sequence[Levels], rng: np.random.Generator) -> list[int]:
    """One row's levels [K]; an aspect of which nothing is known anywhere has the lowest."""
    return [
        int(level if level != UNKNOWN else rng.choice(others) if len(others) else 0)
        for level, others in zip(levels, known, strict=True)
    ]


def _pieces(prompt: Codes, answers: Answers, levels: list[int], learnt: Levels, reason: str | None) -> Iterator[Sample]:
    written = answers.written(levels, reason)
    start = 0
    for place in [*np.flatnonzero(~learnt).tolist(), len(written)]:
        if place > start:
            yield Sample(prompt + written[:start], written[start:place])
        start = place + 1


def requests_of(prompts: CasePrompts, labelled: Labelled) -> list[Request]:
    """One request for each case; its context are the levels [K]."""
    rows = zip(prompts.whole(labelled.cases), labelled.levels.tolist(), strict=True)
    return [Request(prompt, tuple(levels)) for prompt, levels in rows]


def agreement(answer: Answer | None, levels: Sequence[int], scored: Sequence[Aspect]) -> float:
    """How far an answer agrees with the known `levels`: over the aspects, the sum of

        1(s_k = gold_k) + 1 - |s_k - gold_k| / (levels_k - 1)

    with places on the grid; 0 for what is no answer (a public reimplementation of S-GRec, whose reward is not printed).
    """
    if answer is None:
        return 0.0
    cells = zip(answer.levels, levels, scored, strict=True)
    return sum(
        float(own == gold) + 1.0 - abs(own - gold) / (len(aspect.values) - 1)
        for own, gold, aspect in cells
        if gold != UNKNOWN
    )


def rewards_of(answers: Answers) -> tuple[Term, Term]:
    """Agreement with the levels that a request has as its context, and a little for being an answer."""

    def agrees(group: Group) -> Tensor:
        read = [answers.read(response.tokens) for response in group.responses]
        return torch.tensor([agreement(one, group.request.context, answers.aspects) for one in read])

    def is_one(group: Group) -> Tensor:
        return torch.tensor([float(answers.read(response.tokens) is not None) for response in group.responses])

    return Term("agreement", 1.0, by_group(agrees)), Term("format", FORMAT_REWARD, by_group(is_one))
