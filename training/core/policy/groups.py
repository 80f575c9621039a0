"""What a round of policy optimisation is about: requests, the responses to them, what those are worth; the round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object
from torch import Tensor

from training.core.sequences import Tokens

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A prompt, what the rewards need to know about it, and its number in the round (its randomness hangs on it).

    `place` is its place among all requests of the training, by which it is known in other rounds.
    """

    prompt: Tokens
    context: Any = None
    number: int = 0
    place: int = 0


@dataclass(frozen=True)
class Response:
    """Tokens that a policy wrote (the end token included), and the prompt after which they are learnt.

    That is the prompt they were written after, unless a replay says otherwise (a hint that is stripped). `behaviour`
    are the log-probs of the tokens where the old policy after `prompt` is not what wrote them. `told` is the log-prob
    of the whole response as the rollout saw it, where it tells.
    """

    tokens: Tokens
    prompt: Tokens
    behaviour: tuple[float, ...] | None = None
    told: float | None = None


@dataclass(frozen=True)
class Reward:
    """A reward term's values for a group: [G], or [G, slots] with NaN where a response has no such slot."""

    value: Tensor
    weight: float

    @property
    def weighted(self) -> Tensor:
        """What the term adds to the total."""
        return self.weight * self.value


@dataclass(frozen=True)
class Group:
    """The responses to one request, over which advantages are standardised, with their rewards by term."""

    request: Request
    responses: tuple[Response, ...]
    rewards: Mapping[str, Reward] = field(default_factory=dict)

    def total(self) -> Tensor:
        """The weighted sum [G] of the terms with one value per response."""
        terms = [reward.weighted for reward in self.rewards.values() if reward.value.ndim == 1]
        return torch.stack(terms).sum(dim=0) if terms else torch.zeros(len(self.responses))


class Tally:
    """Means of what happened in a round, over all processes."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, name: str, values: Tensor | Sequence[float] | float) -> None:
        """Count `values` under `name`; NaN is no value."""
        flat = torch.as_tensor(values, dtype=torch.float64).flatten()
        real = flat[~flat.isnan()]
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + float(real.sum()), count + len(real)

    def means(self) -> dict[str, float]:
        """The mean by name; all processes must ask together."""
        parts: list[dict[str, tuple[float, int]]] = gather_object([self._sums])
        names = sorted({name for part in parts for name, (_, count) in part.items() if count})
        found = {name: [part[name] for part in parts if name in part] for name in names}
        return {name: sum(total for total, _ in all_) / sum(n for _, n in all_) for name, all_ in found.items()}


@dataclass
class Round:
    """What the parts of a variant see of the round that they are in, and where they leave word of it.

    `progress` goes from 0 to 1 over the training; `epoch` counts the passes over all requests that were begun before.
    `memory` is what parts keep for later rounds. It is saved in the checkpoint, so it holds what JSON does (text,
    numbers, lists, and mappings by text), and it must be the same in all processes (see `gathered`). `tally` is logged.
    """

    number: int = 0
    epoch: int = 0
    progress: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def gathered(self, own: Sequence[T]) -> list[T]:
        """What all processes bring, end to end; they must ask together."""
        everywhere: list[T] = gather_object(list(own))
        return everywhere
