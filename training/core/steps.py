"""Numbered training steps that may be killed between any two of them and gone on with, to the same bits on a CPU.

For models that are no language model: the step is the caller's. A step draws what is random from its own number
(`drawn`), so that a resumed run needs no memory of what was drawn before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.core.checkpoint import load_checkpoint, places, read_cursor, save_checkpoint
from training.core.errors import Diverged, Preempted
from training.core.preemption import deferred
from training.core.progress import Progress


def drawn(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """The source of randomness of one step; `purpose` tells apart what one step draws for."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 8 + purpose)


class Steps:
    """One run in `folder`; `run` names it: a checkpoint there of another run is not gone on from.

    `notes` (what JSON can hold) is saved with each checkpoint and found again after a resume; a step that sets
    `notes["enough"]` is the last.
    """

    def __init__(
        self, folder: Path, run: str, model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint_steps: int
    ) -> None:
        (self._checkpoint, _), self._run = places(folder), run
        self._model, self._optimizer, self._every = model, optimizer, checkpoint_steps
        self.notes: dict[str, Any] = {}
        self.done = 0

    def resume(self) -> int | None:
        """Go back to the last checkpoint of this run; its step, or None if there is none."""
        stored = read_cursor(self._checkpoint)
        if stored is None or stored["run"] != self._run:
            return None
        load_checkpoint(self._checkpoint, self._model, self._optimizer)
        self.notes, self.done = stored["notes"], int(stored["done"])
        return self.done

    def run(self, total: int, label: str, step: Callable[[int], float]) -> None:
        """Take the steps from `done` to `total`; `step(number)` returns its loss. Preempted (saved) if stopped.

        Diverged, and nothing saved, where a loss is not finite.
        """
        with deferred() as stop, Progress(total, label, "step", done=self.done) as progress:
            while not self._over(total):
                loss = step(self.done)
                self.done += 1
                Diverged.check(f"{label}, step {self.done}", loss=loss)
                progress.advance(loss=f"{loss:.3f}")
                if stop.is_set() or self.done % self._every == 0 or self._over(total):
                    cursor = {"run": self._run, "done": self.done, "notes": self.notes}
                    save_checkpoint(self._checkpoint, self._model, self._optimizer, cursor)
                if stop.is_set():
                    raise Preempted.saved(f"{label}, step {self.done}")

    def _over(self, total: int) -> bool:
        return self.done >= total or bool(self.notes.get("enough"))
