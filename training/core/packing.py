"""Packing: several samples per row, so that almost no computed token is padding.

Samples of a row do not see each other: positions restart at each sample and the mask is block-diagonal (see
`masks.block_causal`). Rows are short (a few samples), because a block mask computes the whole square of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.core.errors import DataError

IGNORED = -100
_OPEN_ROWS = 16


@dataclass(frozen=True)
class Sample:
    """Token ids of the prompt and of the response that the model has to learn (its end token included)."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Batch:
    """All [R, L] int64. `segments` numbers the samples of a row from 1, padding is 0; `targets` holds the token that
    follows each position where it is to be learnt, `IGNORED` elsewhere."""

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    targets: Tensor

    @property
    def learnt(self) -> int:
        """How many tokens count in the loss."""
        return int((self.targets != IGNORED).sum())

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
        return Batch(*(t.to(device) for t in (self.input_ids, self.positions, self.segments, self.targets)))


def plan_rows(lengths: Sequence[int], width: int, seed: tuple[int, int] | None) -> list[list[int]]:
    """Put samples of these lengths into rows of at most `width` tokens, first fit; `seed` shuffles them before.

    Raises DataError for a sample longer than a row.
    """
    if lengths and max(lengths) > width:
        raise DataError(
            f"a sample has {max(lengths)} tokens, a row {width}", do="raise row_tokens or shorten histories"
        )
    order = range(len(lengths)) if seed is None else np.random.default_rng(seed).permutation(len(lengths)).tolist()
    done: list[list[int]] = []
    open_rows: list[tuple[list[int], int]] = []
    for sample in order:
        place = next((i for i, (_, room) in enumerate(open_rows) if room >= lengths[sample]), None)
        if place is None:
            if len(open_rows) == _OPEN_ROWS:
                done.append(open_rows.pop(0)[0])
            open_rows.append(([sample], width - lengths[sample]))
        else:
            row, room = open_rows[place]
            row.append(sample)
            open_rows[place] = (row, room - lengths[sample])
    return done + [row for row, _ in open_rows]


def collate(rows: Sequence[Sequence[Sample]], width: int, pad: int, response_only: bool = True) -> Batch:
    """Rows of samples as one batch; with `response_only` prompts are read but not learnt."""
    shape = (len(rows), width)
    ids, positions = np.full(shape, pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
    for r, row in enumerate(rows):
        start = 0
        for number, sample in enumerate(row, start=1):
            end = start + len(sample)
            ids[r, start:end] = sample.prompt + sample.response
            positions[r, start:end] = np.arange(len(sample))
            segments[r, start:end] = number
            learnt = start + (len(sample.prompt) - 1 if response_only else 0)
            targets[r, learnt : end - 1] = ids[r, learnt + 1 : end]
            start = end
    return Batch(*map(torch.from_numpy, (ids, positions, segments, targets)))
