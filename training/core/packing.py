"""Packing: several samples per row, so that almost no computed token is padding.

Samples of a row do not see each other: positions restart at each sample and the mask is block-diagonal (see
`masks.block_causal`). Rows are short (a few samples), because a block mask computes the whole square of the row.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.core.errors import DataError

IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """Token ids of the prompt and of the response that the model has to learn (its end token included).

    A token counts `weight` times in the loss (of a task, say). DataError for one that is not positive.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < math.inf:
            raise DataError(f"a sample weighs {self.weight:g}", do="leave it out, or give it a positive weight")

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True, eq=False)
class Samples(Sequence[Sample]):
    """Samples as one array of `tokens`, four bytes each; one is made when it is looked at.

    `ends` [n, 3] are the places in `tokens` where a sample begins, where its response begins, and where it ends;
    `weights` [n] those in the loss.
    """

    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        """These samples, which are looked at one by one."""
        tokens, ends, weights = array("i"), array("q"), array("d")
        for sample in samples:
            ends.extend((len(tokens), len(tokens) + len(sample.prompt), len(tokens) + len(sample)))
            tokens.extend(sample.prompt)
            tokens.extend(sample.response)
            weights.append(sample.weight)
        places = np.array(ends, dtype=np.int64).reshape(-1, 3)
        return cls(np.array(tokens, dtype=np.int32), places, np.array(weights, dtype=np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """All samples of the parts, in their order."""
        before = np.cumsum([0, *(len(part.tokens) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, before, strict=False)]
        tokens, weights = ([getattr(part, name) for part in parts] for name in ("tokens", "weights"))
        return cls(np.concatenate(tokens), np.concatenate(ends), np.concatenate(weights))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice | NDArray[np.int64]) -> Samples: ...
    def __getitem__(self, place: int | slice | NDArray[np.int64]) -> Sample | Samples:
        if not isinstance(place, int):
            return Samples(self.tokens, self.ends[place], self.weights[place])
        (start, response, end), weight = self.ends[place], float(self.weights[place])
        return Sample(tuple(self.tokens[start:response].tolist()), tuple(self.tokens[response:end].tolist()), weight)


@dataclass(frozen=True)
class Batch:
    """All [R, L] int64. `segments` numbers the samples of a row from 1, padding is 0; `targets` holds the token that
    follows each position where it is to be learnt, `IGNORED` elsewhere. `weights` [R, L], float32, is what such a token
    counts in the loss, 0 elsewhere."""

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    targets: Tensor
    weights: Tensor

    @property
    def learnt(self) -> float:
        """How many tokens count in the loss, by weight."""
        return float(self.weights.sum(dtype=torch.float64))

    @property
    def useful(self) -> int:
        """How many tokens are not padding."""
        return int((self.segments > 0).sum())

    @property
    def sequences(self) -> int:
        """How many samples there are."""
        return int(self.segments.amax(dim=1).sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def plan_rows(lengths: Sequence[int], width: int, seed: tuple[int, int] | None) -> list[list[int]]:
    """Put samples of these lengths into rows of at most `width` tokens; `seed` shuffles equal lengths and the rows.

    Best fit, longest first (Johnson 1974): rows of mixed lengths are full to a percent. DataError for a sample longer
    than a row.
    """
    if lengths and max(lengths) > width:
        raise DataError(
            f"a sample has {max(lengths)} tokens, a row {width}", do="raise row_tokens or shorten histories"
        )
    rng = None if seed is None else np.random.default_rng(seed)
    order = list(range(len(lengths))) if rng is None else rng.permutation(len(lengths)).tolist()
    rows: list[list[int]] = []
    rooms = [width]  # how much room there is, ascending; an empty row is always at hand
    rows_with: defaultdict[int, list[list[int]]] = defaultdict(list)
    for sample in sorted(order, key=lambda sample: -lengths[sample]):
        place = bisect_left(rooms, lengths[sample])
        room = rooms[place]
        if room == width:
            rows.append(row := [])
        else:
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms.pop(place)
        row.append(sample)
        left = room - lengths[sample]
        if not rows_with[left]:
            insort(rooms, left)
        rows_with[left].append(row)
    return rows if rng is None else [rows[row] for row in rng.permutation(len(rows))]


def collate(rows: Sequence[Sequence[Sample]], width: int, pad: int, response_only: bool = True) -> Batch:
    """Rows of samples as one batch; with `response_only` prompts are read but not learnt."""
    shape = (len(rows), width)
    ids, positions = np.full(shape, pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
    weights = np.zeros(shape, dtype=np.float32)
    for r, row in enumerate(rows):
        start = 0
        for number, sample in enumerate(row, start=1):
            end = start + len(sample)
            ids[r, start:end] = sample.prompt + sample.response
            positions[r, start:end] = np.arange(len(sample))
            segments[r, start:end] = number
            learnt = start + (len(sample.prompt) - 1 if response_only else 0)
            targets[r, learnt : end - 1] = ids[r, learnt + 1 : end]
            weights[r, learnt : end - 1] = sample.weight
            start = end
    return Batch(*map(torch.from_numpy, (ids, positions, segments, targets, weights)))
