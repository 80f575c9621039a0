"""Rollouts: several responses to each request, sampled freely, or the beams of a catalogue trie.

Samples of a request are queries of one forward pass under a tree mask, as the beams of `decoding` are: the prompt's
cache is kept once and never copied. Each request draws from its own numbers, so what is sampled for it does not depend
on the other requests, their order, or the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.core.decoding import REQUESTS_AT_ONCE, beam_search, check_room, left_padded
from training.core.heads import head_parts
from training.core.masks import attention_mask
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
    """`responses` samples per request, each until the token `end` (it is kept) or `max_tokens` tokens.

    `top_k` keeps what is drawn among the most probable tokens. No log-prob of an update knows of that cut (as in TRL):
    ratio, KL and entropy are of the whole softmax at this `temperature`.
    """

    responses: int
    max_tokens: int
    end: int
    temperature: float = 1.0
    top_k: int | None = None
    batch_size: int = REQUESTS_AT_ONCE

    @torch.inference_mode()
    def __call__(self, model: PreTrainedModel, requests: Sequence[Request], seed: Seed) -> list[Group]:
        """One group per request, in their order."""
        prompts, shape = [request.prompt for request in requests], (self.responses, self.max_tokens)
        check_room(model, prompts, self.responses, self.max_tokens - 1)
        numbers = [np.random.default_rng((*seed, request.number)).random(shape) for request in requests]
        draws = torch.from_numpy(np.stack(numbers)).to(model.device)
        ids, visible = left_padded(prompts, model.device)
        positions = (visible.cumsum(dim=1) - 1).clamp(min=0)
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        output = decoder(input_ids=ids, attention_mask=visible.long(), position_ids=positions, use_cache=True)
        hidden = output.last_hidden_state[:, -1:].expand(-1, self.responses, -1)
        written = self._draw(head, hidden, draws[..., 0])[..., None]
        while (steps := written.shape[2]) < self.max_tokens and not (written == self.end).any(dim=2).all():
            output = decoder(
                input_ids=written[..., -1],
                attention_mask=attention_mask(_own_branch(visible, self.responses, steps), model),
                position_ids=(positions[:, -1:] + steps).expand(-1, self.responses),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            written = torch.cat(
                [written, self._draw(head, output.last_hidden_state, draws[..., steps])[..., None]], dim=2
            )
        pairs = zip(requests, written.tolist(), strict=True)
        return [_group(request, [_until(row, self.end) for row in rows]) for request, rows in pairs]

    def _draw(self, head: nn.Linear, hidden: Tensor, uniform: Tensor) -> Tensor:
        """Tokens [B, G] after `hidden` [B, G, D], at the places `uniform` [B, G] of their cumulated probabilities."""
        return head_parts(head, hidden.flatten(0, 1), self._at, uniform.flatten()[:, None]).view(uniform.shape)

    def _at(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Tokens [n] at the places `uniform` [n, 1] of the cumulated probabilities of `logits` [n, V]."""
        scaled = logits.double() / self.temperature
        if self.top_k is None:
            return _place(scaled, uniform)[:, 0]
        kept, tokens = scaled.topk(self.top_k, dim=-1)
        return tokens.gather(-1, _place(kept, uniform))[:, 0]


def _place(logits: Tensor, uniform: Tensor) -> Tensor:
    """The columns [n, 1] in which the cumulated softmax of `logits` [n, V] reaches `uniform` [n, 1]."""
    places = torch.searchsorted(logits.softmax(dim=-1).cumsum(dim=-1), uniform.contiguous(), right=True)
    return places.clamp(max=logits.shape[-1] - 1)


def _own_branch(visible: Tensor, responses: int, steps: int) -> Tensor:
    """What the newest token of each response sees, [B, G, P + G * steps]: its prompt and the tokens of its own."""
    own = torch.eye(responses, dtype=torch.bool, device=visible.device).repeat(1, steps)
    return torch.cat([visible[:, None].expand(-1, responses, -1), own.expand(len(visible), -1, -1)], dim=2)


def _until(tokens: Sequence[int], end: int) -> Tokens:
    return tuple(tokens[: tokens.index(end) + 1] if end in tokens else tokens)


def _group(request: Request, responses: Iterable[Tokens]) -> Group:
    return Group(request, tuple(Response(tokens, request.prompt) for tokens in responses))


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

    def __call__(self, model: PreTrainedModel, requests: Sequence[Request], seed: Seed) -> list[Group]:
        """One group per request, smaller where the catalogue has fewer items; nothing is drawn."""
        found = beam_search(model, self.trie, [request.prompt for request in requests], self.beams, self.batch_size)
        return [
            _group(request, [self.items[item] for item in row if item != NO_ITEM])
            for request, row in zip(requests, found.items.tolist(), strict=True)
        ]
