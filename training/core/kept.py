"""A cache of keys and values that grows by many tokens at a time, so that hardly a step copies it."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

_AT_ONCE = 32
"""Room is made for so many tokens: what is read in vain, and masked, is less than a copy for each token."""


class Kept(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer, filled from the left: [B, S, H * D], all heads of a token together.

    S is the number of tokens, rounded up. What is not filled is 0: it may be read, and masked. All of it is read by
    products: of a part of it they would make a copy.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """As transformers asks for it, with the first tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, self._heads, _, width = key_states.shape
        self.keys, self.values = (key_states.new_zeros(rows, 0, self._heads * width) for _ in range(2))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, after those of the newest: all [B, H, T, D], as transformers has it."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.add(key_states.transpose(1, 2), value_states.transpose(1, 2))
        keys, values = (
            states[:, : self._length].view(len(states), self._length, self._heads, -1).transpose(1, 2)
            for states in (self.keys, self.values)
        )
        return keys, values

    def add(self, keys: Tensor, values: Tensor) -> None:
        """The newest `keys` and `values` [B, T, H, D]."""
        start, self._length = self._length, self._length + keys.shape[1]
        if self._length > self.keys.shape[1]:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        for states, new in ((self.keys, keys), (self.values, values)):
            states.narrow(1, start, new.shape[1]).copy_(new.flatten(2))

    def _grown(self, states: Tensor) -> Tensor:
        grown = states.new_zeros(len(states), rounded(self._length), states.shape[2])
        grown[:, : states.shape[1]] = states
        return grown

    def keep(self, rows: Tensor) -> None:
        """Let go of all other rows of the batch."""
        self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys a mask is for, and where they begin."""
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        """How many tokens are kept."""
        return self._length

    def get_max_length(self) -> int:
        """No limit, as transformers writes it."""
        return -1


def bias_of(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 or -inf [B, A, S], for scores over all that `Kept` has, where `seen` [B, A, T] says who sees what."""
    bias = torch.full((*seen.shape[:2], rounded(seen.shape[2])), float("-inf"), dtype=dtype, device=seen.device)
    bias[..., : seen.shape[2]].masked_fill_(seen, 0.0)
    return bias


def rounded(length: int) -> int:
    """The places for so many tokens."""
    return -(-length // _AT_ONCE) * _AT_ONCE
