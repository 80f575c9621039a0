"""In what numbers a device multiplies: bf16 on a GPU, with sums in float32; on a CPU those of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


def products() -> torch.dtype | None:
    """What products are rounded to; None: nothing is."""
    return torch.bfloat16 if torch.cuda.is_available() else None


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model` computes in the products of the device, without gradients; its weights are rounded once, before.

    Autocast would round them anew at every token: it remembers only what needs a gradient. Beside the rounded weights
    those of before stay in memory; they come back at the end.
    """
    dtype = products()
    if dtype is None:
        with torch.inference_mode():
            yield
        return
    before = [weight.data for weight in model.parameters()]
    try:
        for weight in model.parameters():
            weight.data = weight.data.to(dtype)
        with torch.inference_mode():
            yield
    finally:
        for weight, data in zip(model.parameters(), before, strict=True):
            weight.data = data
