"""RQ-VAE over item vectors alone (TIGER, arXiv 2305.05065): the baseline of the dual tokenizer, on its quantizer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.core.progress import Progress
from training.core.steps import drawn
from training.generative_rec.scid.residual_quantizer import QuantizerConfig, ResidualQuantizer


@dataclass(frozen=True)
class RQVAESchedule:
    """How the baseline is trained; sizes for a CPU (INFERRED)."""

    hidden: tuple[int, ...] = (256, 128, 64)
    steps: int = 1000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    revive_steps: int = 25


class ResidualVAE:
    """Vectors are centred and scaled to a mean norm of 1, then encoded, quantized and decoded; see the module."""

    def __init__(self, levels: int, codes: int, width: int, seed: int, schedule: RQVAESchedule | None = None) -> None:
        self.levels, self.codes = levels, codes
        self._schedule, self._seed = schedule or RQVAESchedule(), seed
        self._config = QuantizerConfig(levels, codes, width, self._schedule.hidden)
        self._mean = self._scale = torch.empty(0)
        self._network: ResidualQuantizer

    def fit(self, vectors: torch.Tensor) -> None:
        """See `Quantizer.fit`."""
        self._mean = vectors.mean(dim=0)
        self._scale = (vectors - self._mean).norm(dim=1).mean().clamp(min=1e-12).reciprocal()
        scaled = (vectors - self._mean) * self._scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self._network = ResidualQuantizer(scaled.shape[1], self._config, rows=len(scaled))
        self._network.start(scaled, drawn(self._seed, 0, 1))
        self._train(scaled)

    def encode(self, vectors: torch.Tensor) -> NDArray[np.int32]:
        """See `Quantizer.encode`."""
        return self._network.encode((vectors - self._mean) * self._scale)[0].numpy().astype(np.int32)

    def state(self) -> dict[str, torch.Tensor]:
        """See `Quantizer.state`."""
        weights = {name: value.clone() for name, value in self._network.state_dict().items() if name != "books"}
        books = {f"codebook.{level}": book.detach().clone() for level, book in enumerate(self._network.books)}
        return {"mean": self._mean, "scale": self._scale, **weights, **books}

    def _train(self, scaled: torch.Tensor) -> None:
        plan, network = self._schedule, self._network
        optimizer = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
        with Progress(plan.steps, "rq_vae", "step") as progress:
            for step in range(plan.steps):
                source = drawn(self._seed, step)
                rows = torch.randint(len(scaled), (min(plan.batch_size, len(scaled)),), generator=source)
                quantized = network(scaled[rows])
                optimizer.zero_grad()
                torch.autograd.backward(quantized.loss)
                optimizer.step()
                if (step + 1) % plan.revive_steps == 0 and step + 1 < plan.steps:
                    network.revive(quantized.residuals, source)
                progress.advance(loss=f"{float(quantized.loss.detach()):.3f}")
