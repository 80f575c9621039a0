"""What an answer may hold, token by token: any callable from what is written to a mask of the vocabulary will do.

`Choice` asks it before each token. An answer ends with an end token, so a grammar must come to one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from training.core.sequences import Tokens


class Allowed(Protocol):
    """A grammar."""

    def __call__(self, written: Tensor) -> Tensor:
        """Which tokens, [n, V] or [1, V] boolean, may follow the `written` ones [n, t]."""


@dataclass(frozen=True)
class Banned:
    """All of a vocabulary of `size` tokens but `tokens`; for the first `until` places only, where that is given.

    With the end tokens and `until`, an answer has at least so many tokens before its end.
    """

    tokens: Collection[int]
    size: int
    until: int | None = None

    def __call__(self, written: Tensor) -> Tensor:
        """See `Allowed`."""
        mask = torch.ones(1, self.size, dtype=torch.bool, device=written.device)
        if self.until is None or written.shape[1] < self.until:
            mask[0, list(self.tokens)] = False
        return mask


@dataclass(frozen=True)
class ByPlace:
    """The t-th token is one of `places[t]`; behind the last place, any."""

    places: Sequence[Collection[int]]
    size: int

    def __call__(self, written: Tensor) -> Tensor:
        """See `Allowed`."""
        place, anything = written.shape[1], torch.ones(1, self.size, dtype=torch.bool, device=written.device)
        if place >= len(self.places):
            return anything
        mask = ~anything
        mask[0, list(self.places[place])] = True
        return mask


@dataclass(frozen=True)
class OneOf:
    """The answer is one of the `sequences`, its end token included: labels of any length, or a small grammar."""

    sequences: Collection[Tokens]
    size: int

    @cached_property
    def _following(self) -> dict[Tokens, list[int]]:
        following: dict[Tokens, set[int]] = {}
        for sequence in self.sequences:
            for place, token in enumerate(sequence):
                following.setdefault(sequence[:place], set()).add(token)
        return {prefix: sorted(tokens) for prefix, tokens in following.items()}

    def __call__(self, written: Tensor) -> Tensor:
        """See `Allowed`."""
        mask = torch.zeros(len(written), self.size, dtype=torch.bool)
        for row, tokens in zip(mask, written.tolist(), strict=True):
            row[self._following.get(tuple(tokens), [])] = True
        return mask.to(written.device)


@dataclass(frozen=True)
class Both:
    """What all `parts` allow."""

    parts: Sequence[Allowed]

    def __call__(self, written: Tensor) -> Tensor:
        """See `Allowed`."""
        mask = self.parts[0](written)
        for part in self.parts[1:]:
            mask = mask & part(written)
        return mask
