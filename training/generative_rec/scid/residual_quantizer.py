"""RQ-VAE: an encoder, a residual quantizer and the mirrored decoder (Lee et al. 2022; TIGER, arXiv 2305.05065).

    r_0 = Enc(z);  c_l = argmin_k ||r_(l-1) - e_lk||^2;  r_l = r_(l-1) - e_l,c_l
    L_RQ = ||z_hat - sg(z)||^2 + mean_l [ ||sg(r_(l-1)) - e_l,c_l||^2 + mu ||r_(l-1) - sg(e_l,c_l)||^2 ]

LETTER's diversity term (weight 1e-4 in Align3GR's code, absent from the paper) is left out: dead codes are revived
instead, and usage and perplexity of every level are measured and gated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from training.generative_rec.clustering import kmeans, nearest, principal_axes
from training.generative_rec.code_sizes import fitted

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class QuantizerConfig:
    """At most `levels` codebooks of at most `codes` rows of `width` (see `code_sizes`).

    `hidden` are the layers between a vector and its latent.
    """

    levels: int = 3
    codes: int = 256
    width: int = 32
    hidden: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64)
    commitment: float = 0.25
    kmeans_rounds: int = 10


@dataclass(frozen=True)
class Quantized:
    """What a pass gave: `loss` (mean over the rows), `codes` [n, levels], `residuals` [n, levels, width], r_0 first."""

    loss: Tensor
    codes: Tensor
    residuals: Tensor


class ResidualQuantizer(nn.Module):
    """One side's quantizer. `levels` and `codes` are those that fit so many `rows` (users, or items)."""

    def __init__(self, inputs: int, config: QuantizerConfig, rows: int) -> None:
        super().__init__()
        self.levels, self.codes = fitted(config.levels, config.codes, rows)
        self._commitment, self._rounds = config.commitment, config.kmeans_rounds
        self.encoder = StraightMlp(inputs, config.hidden, config.width)
        self.decoder = StraightMlp(config.width, tuple(reversed(config.hidden)), inputs)
        self.books = nn.Parameter(torch.zeros(self.levels, self.codes, config.width))
        self.uses: Tensor
        self.register_buffer("uses", torch.zeros(self.levels, self.codes))

    def forward(self, vectors: Tensor) -> Quantized:
        """One training pass over vectors [n, inputs]; codes that it chose are counted in `uses`."""
        latent = self.encoder(vectors)
        codes, residuals = self._chain(latent)
        chosen = self._rows(codes)
        moved = latent + (chosen.sum(dim=1) - latent).detach()
        rebuilt = (self.decoder(moved) - vectors.detach()).square().sum(dim=1)
        books = (residuals.detach() - chosen).square().sum(dim=2).mean(dim=1)
        commitment = (residuals - chosen.detach()).square().sum(dim=2).mean(dim=1)
        with torch.no_grad():
            self.uses += torch.stack([torch.bincount(code, minlength=self.codes) for code in codes.T])
        return Quantized((rebuilt + books + self._commitment * commitment).mean(), codes, residuals.detach())

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [n, levels] and residuals [n, levels, width] of vectors [n, inputs]."""
        codes, residuals = self._chain(in_parts(self.encoder, vectors))
        return codes, residuals

    @torch.no_grad()
    def rebuilt(self, codes: Tensor) -> Tensor:
        """What codes [n, levels] stand for: vectors [n, inputs]."""
        return in_parts(lambda part: self.decoder(self._rows(part).sum(dim=1)), codes)

    @torch.no_grad()
    def start(self, vectors: Tensor, source: torch.Generator) -> None:
        """Start from what is known of `vectors` [n, inputs]: latents on their principal axes, codebooks by k-means.

        So the codes start as those of RQ-k-means. (The axes are INFERRED: through seven layers with random weights all
        latents are nearly alike, and what is alike about vectors is lost until long training finds it again.)
        """
        mean, axes = principal_axes(vectors, self.books.shape[2])
        for layers, weight, bias in ((self.encoder, axes.T, -mean @ axes), (self.decoder, axes, mean)):
            layers.start(weight, bias)
        residual = in_parts(self.encoder, vectors).cpu()
        for level in range(self.levels):
            book = kmeans(residual, self.codes, self._rounds, source)
            self.books[level] = book
            residual = residual - book[nearest(residual, book)[0]]
        self.uses.zero_()

    @torch.no_grad()
    def revive(self, residuals: Tensor, source: torch.Generator) -> int:
        """Give each code that no pass has chosen since the last call the place of a residual of its level.

        Args:
            residuals: [n, levels, width] of a batch; each row revives at most one code of a level
        Returns: how many codes came back.
        """
        revived = 0
        for level, uses in enumerate(self.uses):
            dead = (uses == 0).nonzero().squeeze(1)[: len(residuals)]
            rows = torch.randperm(len(residuals), generator=source)[: len(dead)]
            self.books[level, dead] = residuals[rows.to(residuals.device), level]
            revived += len(dead)
        self.uses.zero_()
        return revived

    def _chain(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest codes and the residuals before each. A codebook row gets no gradient from the levels after it."""
        codes, residuals, residual = [], [], latent
        for book in self.books:
            code = nearest(residual.detach(), book.detach())[0]
            codes.append(code)
            residuals.append(residual)
            residual = residual - book.detach()[code]
        return torch.stack(codes, dim=1), torch.stack(residuals, dim=1)

    def _rows(self, codes: Tensor) -> Tensor:
        """The codebook rows of codes: [n, levels] -> [n, levels, width]."""
        return torch.stack([book[code] for book, code in zip(self.books, codes.T, strict=True)], dim=1)


def in_parts(layers: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """`layers` over all rows, some thousands at a time: wide hidden layers of a whole table would not fit."""
    return torch.cat([layers(part) for part in torch.split(rows, _ROWS_AT_ONCE)])


class StraightMlp(nn.Module):
    """W x + b + MLP(x). The MLP's last layer starts at zero, so that what W starts as holds at first."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, outputs)
        self.bent = mlp((inputs, *hidden, outputs))
        self.start(torch.zeros(outputs, inputs), torch.zeros(outputs))

    def start(self, weight: Tensor, bias: Tensor) -> None:
        """Make this the map W x + b. A W smaller than the layer fills its corner, the rest stays zero."""
        last = self.bent[-1]
        with torch.no_grad():
            for values in (self.straight.weight, self.straight.bias, last.weight, last.bias):
                cast(Tensor, values).zero_()
            self.straight.weight[: weight.shape[0], : weight.shape[1]] = weight
            self.straight.bias[: len(bias)] = bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        found: Tensor = self.straight(x) + self.bent(x)
        return found


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers between these widths with ReLU between them: no normalisation, no dropout."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
