"""Rollouts: several responses to each request, sampled freely, or the beams of a catalogue trie.

Samples are written by `generation`. Each request draws from its own numbers, so what is sampled for it does not depend
on the other requests, their order, or the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from training.core.choice import Choice
from training.core.decoding import REQUESTS_AT_ONCE, beam_search
from training.core.generation import write
from training.core.grammar import Allowed
from training.core.policy.groups import Group, Request, Response
from training.core.sequences import Tokens
from training.core.trie import NO_ITEM, Trie

Seed = tuple[int, ...]


class Stopped(Exception):
    """Rollouts were given up between two batches."""


class Rollout(Protocol):
    """A way to answer a batch of requests. All randomness comes from the seed and the requests' numbers."""

    @property
    def batch_size(self) -> int:
        """How many requests it is given at once."""

    @property
    def max_tokens(self) -> int:
        """The length of the longest response that there can be."""

    @property
    def temperature(self) -> float:
        """What the logits are divided by; the update reads the same probabilities."""

    def telling(self) -> Rollout:
        """The same, with the log-prob of each response as it was written (`Response.told`)."""

    def __call__(self, model: PreTrainedModel, requests: Sequence[Request], seed: Seed) -> list[Group]:
        """One group per request, in their order."""


def roll_out(
    rollout: Rollout, model: PreTrainedModel, requests: Sequence[Request], seed: Seed, stop: Event
) -> list[Group]:
    """One group per request, in their order, from batches of like lengths; Stopped if `stop` is set before one."""
    order = sorted(range(len(requests)), key=lambda row: len(requests[row].prompt))
    groups: dict[int, Group] = {}
    for start in range(0, len(order), rollout.batch_size):
        if stop.is_set():
            raise Stopped
        rows = order[start : start + rollout.batch_size]
        groups |= dict(zip(rows, rollout(model, [requests[row] for row in rows], seed), strict=True))
    return [groups[row] for row in range(len(requests))]


@dataclass(frozen=True)
class Sampling:
    """`responses` samples per request, each until an `end` token (it is kept) or `max_tokens` tokens.

    `top_k`, `top_p` and `allowed` keep what is drawn among some tokens (`core.choice`). No log-prob of an update knows
    of such a cut (as in TRL): ratio, KL and entropy are of the whole softmax at this `temperature`. `tells`: see
    `Rollout.telling`; it costs a second reading of the head for each token.
    """

    responses: int
    max_tokens: int
    end: int | tuple[int, ...]
    temperature: float = 1.0
    top_k: int | None = None
    batch_size: int = REQUESTS_AT_ONCE
    top_p: float | None = None
    allowed: Allowed | None = None
    tells: bool = False

    def telling(self) -> Sampling:
        """See `Rollout`."""
        return replace(self, tells=True)

    def __call__(self, model: PreTrainedModel, requests: Sequence[Request], seed: Seed) -> list[Group]:
        """One group per request, in their order."""
        shape = (self.responses, self.max_tokens)
        numbers = [np.random.default_rng((*seed, request.number)).random(shape) for request in requests]
        ends = (self.end,) if isinstance(self.end, int) else self.end
        choice = Choice(self.temperature, self.top_k, self.top_p, self.allowed)
        prompts = [request.prompt for request in requests]
        told = torch.zeros(len(requests), self.responses, device=model.device) if self.tells else None
        answers = write(model, prompts, torch.from_numpy(np.stack(numbers)), ends, choice, told)
        said = [[None] * self.responses] * len(requests) if told is None else told.tolist()
        return [_group(*one) for one in zip(requests, answers, said, strict=True)]


def _group(request: Request, responses: Sequence[Tokens], told: Sequence[float | None]) -> Group:
    pairs = zip(responses, told, strict=True)
    return Group(request, tuple(Response(tokens, request.prompt, told=own) for tokens, own in pairs))


@dataclass(frozen=True)
class Beams:
    """The `beams` best items of the catalogue, best first; item i of the trie is written as `items[i]`."""

    trie: Trie
    items: Sequence[Tokens]
    beams: int
    batch_size: int = REQUESTS_AT_ONCE

    @property
    def max_tokens(self) -> int:
        """The length of the longest item."""
        return max(map(len, self.items))

    @property
    def temperature(self) -> float:
        """Beams are ranked by the model's own probabilities."""
        return 1.0

    def telling(self) -> Beams:
        """See `Rollout`: the search has scores anyway."""
        return self

    def __call__(self, model: PreTrainedModel, requests: Sequence[Request], seed: Seed) -> list[Group]:
        """One group per request, smaller where the catalogue has fewer items; nothing is drawn."""
        found = beam_search(model, self.trie, [request.prompt for request in requests], self.beams, self.batch_size)
        groups = []
        for request, row, scores in zip(requests, found.items.tolist(), found.log_probs.tolist(), strict=True):
            there = [(item, score) for item, score in zip(row, scores, strict=True) if item != NO_ITEM]
            groups.append(_group(request, [self.items[item] for item, _ in there], [score for _, score in there]))
        return groups
