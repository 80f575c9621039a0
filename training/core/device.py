"""Where and how a process computes: its own GPU with bf16 products, or the CPU in float32; one process or several."""

from __future__ import annotations

import torch
from accelerate import Accelerator


def accelerator() -> Accelerator:
    """The state that all parts of a process share; it starts with the first call."""
    return Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
