"""Attention masks in the form that a model's attention takes them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.errors import DataError


def attention_mask(allowed: Tensor, model: PreTrainedModel) -> Tensor:
    """`allowed` [B, Q, K] as the 4-D mask of `model`: boolean for sdpa, additive for eager attention.

    DataError for any other: flash kernels take no such mask, and would let tokens see what they must not.
    """
    kind = model.config._attn_implementation
    if kind not in ("sdpa", "eager"):
        raise DataError(
            f"the attention {kind!r} takes no mask of its own for each token",
            why="packed samples and the beams of a request must not see each other",
            do="load the model with sdpa or eager attention",
        )
    if kind == "sdpa":
        return allowed[:, None]
    mask = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)[:, None]


def block_causal(segments: Tensor) -> Tensor:
    """Which tokens see which, [B, L, L]: earlier ones and themselves, of the same segment ([B, L]) only."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (segments[:, :, None] == segments[:, None, :]) & causal


def tree_causal(segments: Tensor, branches: Tensor) -> Tensor:
    """As `block_causal`, where a segment is a tree: a trunk (branch 0) from which all `branches` [B, L] (1, ...) go on.

    A token sees the trunk and the earlier tokens of its own branch, and no other branch.
    """
    trunk, own = branches[:, None, :] == 0, branches[:, :, None] == branches[:, None, :]
    return block_causal(segments) & (trunk | own)
