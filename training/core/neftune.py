"""NEFTune: noise on the token embeddings while fine-tuning (Jain et al. 2023, arXiv 2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@contextmanager
def noisy_embeddings(model: PreTrainedModel, segments: Tensor, alpha: float) -> Iterator[None]:
    """Inside, what `model` reads is embedded with noise, uniform in +- alpha / sqrt(L d); d is the embedding's width.

    L is the length of a token's own sample, as in the paper, however many share a row: `segments` [R, L] numbers the
    samples of a row from 1, and padding, which is 0, has no noise. Nothing is drawn with an `alpha` of 0.
    """
    if alpha == 0.0:
        yield
        return
    counts = segments.new_zeros(len(segments), int(segments.max()) + 1).scatter_add_(
        1, segments, torch.ones_like(segments)
    )
    lengths = counts.gather(1, segments)

    def noised(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        size = alpha / (lengths * output.shape[-1]).to(output.dtype).sqrt() * (segments > 0)
        return output + torch.empty_like(output).uniform_(-1.0, 1.0) * size[..., None]

    hook = model.get_input_embeddings().register_forward_hook(noised)
    try:
        yield
    finally:
        hook.remove()
