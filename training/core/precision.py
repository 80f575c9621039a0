"""In what numbers a device multiplies: bf16 on a GPU, with sums in float32.

On a CPU those of the weights, unless a model asks for bf16 and the processor has it. A model trained from nothing on a
CPU is small: it stays in float32, and so do its golden trajectories. The wish is part of the model's config, so it goes
with the weights from stage to stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_WISH = "bf16_on_cpu"


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for products in bf16 (AVX512-BF16 or AMX): without them it is slower."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def wish_bf16(model: PreTrainedModel) -> None:
    """Let `model` compute in bf16 on a CPU, too, wherever it is loaded from now on."""
    setattr(model.config, _WISH, True)


def products(wished: bool = False) -> torch.dtype | None:
    """What products are rounded to; None: nothing is. On a CPU they are only where it is `wished`."""
    return torch.bfloat16 if torch.cuda.is_available() or (wished and multiplies_bf16()) else None


def products_of(model: PreTrainedModel) -> torch.dtype | None:
    """What the products of `model` are rounded to."""
    return products(getattr(model.config, _WISH, False))


def autocast(model: PreTrainedModel) -> AbstractContextManager[object]:
    """Inside, the products of `model` are rounded and its weights stay as they are: the forward pass of a step."""
    dtype = products_of(model)
    return nullcontext() if dtype is None else torch.autocast(model.device.type, dtype)


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model` computes in the products of the device, without gradients; its weights are rounded once, before.

    Autocast would round them anew at every token: it remembers only what needs a gradient. Beside the rounded weights
    those of before stay in memory; they come back at the end.
    """
    dtype = products_of(model)
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


@contextmanager
def laid_out(model: nn.Module) -> Iterator[None]:
    """Inside, linear layers of `model` compute by `Product` where that is faster; none may learn."""
    layers = [m for m in model.modules() if type(m) is nn.Linear and _suits_onednn(m.weight)]
    try:
        for layer in layers:
            layer.__dict__["forward"] = Product(layer.weight, layer.bias)  # stands before the method of its class
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


class Product:
    """The linear layer of a `weight` and a `bias`; bf16 on a CPU is laid out once, as its products read it.

    A product of a few rows with a weight as torch keeps it spends about half of its time on that order. It stands in
    memory twice meanwhile. These are calls that torch makes itself where it compiles a frozen model.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias, self._laid_out = weight, bias, _suits_onednn(weight)
        if self._laid_out:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
            self._call = torch.ops.mkldnn._linear_pointwise.default
            self._call_and_add = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, values: Tensor, more: Tensor | None = None) -> Tensor:
        """The product of `values`, and `more` added to it."""
        if not self._laid_out:
            found = nn.functional.linear(values, self._weight, self._bias)
            return found if more is None else found + more
        if more is None:
            plain: Tensor = self._call(values, self._weight, self._bias, "none", [], "")
            return plain
        added: Tensor = self._call_and_add(values, more, self._weight, self._bias, "add")
        return added


def _suits_onednn(weight: Tensor) -> bool:
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return weight.device.type == "cpu" and weight.dtype is torch.bfloat16 and has_onednn and multiplies_bf16()
