"""What turns the texts of items, and what users look for, into vectors of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.core.embeddings import embed_texts, kept_vectors
from training.semantic_judge.examples import Floats


@dataclass(frozen=True)
class EncoderConfig:
    """`path`: a sentence-transformers folder; None: the embedded MiniLM. Texts are cut to `max_tokens`."""

    path: str | None = None
    max_tokens: int = 64


@dataclass(frozen=True)
class Encoder:
    """Equal texts are encoded once, whatever run asks for them."""

    config: EncoderConfig

    def __call__(self, texts: Sequence[str]) -> Floats:
        """[texts, width]"""
        path = Path(self.config.path) if self.config.path else None
        vectors = embed_texts(texts, kept_vectors(), encoder=path, max_tokens=self.config.max_tokens)
        return np.asarray(vectors, dtype=np.float32)
