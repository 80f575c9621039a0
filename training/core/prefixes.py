"""Prompts that are read once, and what follows them in many ways: their keys and values are kept and shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from training.core.decoding import left_padded
from training.core.hidden import last_layer_at
from training.core.masks import attention_mask
from training.core.sequences import Tokens


@dataclass(frozen=True)
class Prefixes:
    """B prompts that `model` has read. `real` [B, P] says which of their places are no padding; `last` [B, D] are the
    hidden states that the first token behind each comes of."""

    model: PreTrainedModel
    real: Tensor
    cache: Cache
    last: Tensor

    @classmethod
    def read(cls, model: PreTrainedModel, prompts: Sequence[Tokens]) -> Self:
        """Read them, once."""
        ids, real = left_padded(prompts, model.device)
        with last_layer_at(model, torch.arange(1, len(ids) + 1, device=model.device) * ids.shape[1] - 1):
            output = model.get_decoder()(
                input_ids=ids,
                attention_mask=real.long(),
                position_ids=(real.cumsum(dim=1) - 1).clamp(min=0),
                use_cache=True,
            )
        return cls(model, real, output.past_key_values, output.last_hidden_state[:, -1])

    def after(self, of: Tensor, ids: Tensor, seen: Tensor, depth: Tensor, wanted: Tensor) -> Tensor:
        """Hidden states [m, D] at the m `wanted` [n, W] places of n texts, row by row; text i is behind prompt `of[i]`.

        `ids` [n, W] are its tokens, `depth` [n, W] how far each is behind the prompt, from 0, and `seen` [n, W, W]
        which of them each sees, itself among them; all see their prompt. No text sees another.
        """
        places = torch.cat([self.real[of, None].expand(-1, ids.shape[1], -1), seen], dim=2)
        with last_layer_at(self.model, wanted.flatten().nonzero()[:, 0]):
            hidden: Tensor = self.model.get_decoder()(
                input_ids=ids,
                attention_mask=attention_mask(places, self.model),
                position_ids=self.real.sum(dim=1)[of, None] + depth,
                past_key_values=self._copied(of),
                use_cache=True,
            ).last_hidden_state
        return hidden[wanted]

    def _copied(self, of: Tensor) -> Cache:
        """The cache with the rows `of`: what is read after them does not stay in it."""
        copied = DynamicCache(config=self.model.config)
        for number, layer in enumerate(self.cache.layers):
            copied.update(layer.keys[of], layer.values[of], number)
        return copied
