"""Weights in shards over the processes (FSDP), and the whole of them lent to a model for as long as it is asked.

What has no shards is whole already: all of this then does nothing, or works with the tensors themselves. What is lent
computes and does not learn, so where it has to be gathered it comes in the products of the device: half of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from training.core.precision import products


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process has a shard; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_held(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor that all have, where `like` is sharded; else all of it."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All of the tensors, on the CPU of the processes that `keep` them; every process must ask.

    One tensor at a time is whole on a GPU, never all.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        everything = whole(tensor)
        if keep:
            kept[name] = everything.cpu().contiguous()
    return kept


@torch.no_grad()
def give(model: nn.Module, weights: Sequence[Tensor]) -> None:
    """Let `model` have these `weights`, in the order of its parameters, whole; every process must do so."""
    for own, weight in zip(model.parameters(), weights, strict=True):
        own.data = whole(weight.detach())


@torch.no_grad()
def empty(model: nn.Module) -> None:
    """Take its weights from `model`: it must be given some before it can compute."""
    for own in model.parameters():
        own.data = own.new_empty(0)


@contextmanager
def lent(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Inside, `model` has these `weights`, whole; after it those that it had. Every process must enter."""
    before = [own.data for own in model.parameters()]
    held, dtype = [weight.detach() for weight in weights], products()
    if dtype is not None:
        held = [weight.to(dtype) if isinstance(weight, DTensor) else weight for weight in held]
    give(model, held)
    try:
        yield
    finally:
        give(model, before)
