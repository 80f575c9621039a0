"""The same bits for a seed, however busy the machine is."""

from __future__ import annotations

import torch


def reproducible() -> None:
    """Let every sum on a CPU be taken in one order; on a GPU leave it to the kernels, which would be slower.

    Threads that add to the same row in the order in which they get there (the gradient of an indexed table) made the
    collaborative encoder end with other bits on a busy machine, and all that is learnt from its vectors with others.
    """
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        # Nothing here reads what it did not write.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
