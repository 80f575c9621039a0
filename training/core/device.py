"""Where a process computes: on its own GPU or the CPU; one process or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.fsdp import MixedPrecisionPolicy

from training.core.precision import products

T = TypeVar("T")
R = TypeVar("R")


def accelerator() -> Accelerator:
    """The state that all parts of a process share; it starts with the first call."""
    rounds = products() is torch.bfloat16
    if rounds:
        torch.set_float32_matmul_precision("high")  # what is left of products in float32 may take TF32's
    found = Accelerator(mixed_precision="bf16" if rounds else None)
    if found.is_fsdp2 and found.mixed_precision == "bf16":
        # Products in bf16; accelerate's own policy would round the summed loss and the sums of gradients to it, too.
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        found.state.fsdp_plugin.mixed_precision_policy = policy
    return found


def in_shares(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
    """`work` on `items`, one result for each, in their order: each process does a share, and all have all results."""
    state = accelerator()
    own = items[state.process_index :: state.num_processes]
    parts: list[Sequence[R]] = gather_object([work(own) if own else []])
    return [parts[place % len(parts)][place // len(parts)] for place in range(len(items))]
