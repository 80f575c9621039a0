"""Vectors of texts by a causal language model: what it has in mind where it would say the text in one word.

The text stands in a prompt that asks for one word, and the vector is the hidden state of the prompt's last token (Jiang
et al. 2024, PromptEOL). Never a mean over tokens: the first one is an attention sink whose norm is hundreds of times
that of the others, and takes the mean with it. Vectors of one model lie close together, so they are centred before
their cosines mean anything (Su et al. 2021): `Standard`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.core.errors import DataError
from training.core.hidden import hidden_at, up_to_layer
from training.core.masks import block_causal
from training.core.packing import Sample, collate, plan_rows
from training.core.precision import inference

PROMPT = 'The customer says: "{}". In one word, the customer wants to'
LAYER = 26
"""Of SmolLM2's 30. INFERRED: measured on intents only; 24 to 29 are alike there, earlier ones are worse."""
_ROW_TOKENS, _ROWS = 128, 32

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LastToken:
    """`prompt` has a place `{}` for the text, of which no more than `max_tokens` tokens are read; `layer` counts from
    1, the embeddings are 0."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt: str = PROMPT
    layer: int = LAYER
    max_tokens: int = 64

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors [n, D] of the `texts`, in their order.

        Texts are packed into rows, so no pad is ever read for an end. DataError where the model has no such layer.
        """
        samples = [Sample(self._tokens(text), ()) for text in texts]
        width = max([_ROW_TOKENS, *map(len, samples)])
        plan = plan_rows(list(map(len, samples)), width, None)
        found = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        with inference(self.model), up_to_layer(self.model, self.layer):
            for start in range(0, len(plan), _ROWS):
                rows = plan[start : start + _ROWS]
                batch = collate([[samples[number] for number in row] for row in rows], width, 0).to(self.model.device)
                following = torch.nn.functional.pad(batch.segments[:, 1:], (0, 1))
                ends = ((batch.segments > 0) & (batch.segments != following)).flatten().nonzero()[:, 0]
                seen = block_causal(batch.segments)
                hidden = hidden_at(self.model, batch.input_ids, seen, batch.positions, ends)
                found[[number for row in rows for number in row]] = hidden.float().cpu().numpy()
        return found

    def _tokens(self, text: str) -> tuple[int, ...]:
        settings: dict[str, Any] = {"add_special_tokens": False, "split_special_tokens": True}
        # A text is cut and the prompt is not: its last token is the vector.
        offsets = self.tokenizer(text, return_offsets_mapping=True, **settings)["offset_mapping"]
        cut = text[: offsets[self.max_tokens - 1][1]] if len(offsets) > self.max_tokens else text
        return tuple(self.tokenizer.encode(self.prompt.replace("{}", cut), **settings))


@dataclass(frozen=True)
class Standard:
    """Vectors less their `mean` [D], each dimension over its `scale` [D]."""

    mean: Vectors
    scale: Vectors

    @classmethod
    def fit(cls, vectors: Vectors, *, scaled: bool = True) -> Standard:
        """By the mean of `vectors` [n, D] and, where `scaled`, their standard deviation; one that is 0 is left alone.

        DataError for no vectors.
        """
        if not len(vectors):
            raise DataError("there are no vectors to take a mean of", do="fit on the texts of the training part")
        spread = vectors.std(axis=0) if scaled else np.ones(vectors.shape[1])
        return cls(vectors.mean(axis=0), np.where(spread > 0, spread, 1.0).astype(np.float32))

    def __call__(self, vectors: Vectors) -> Vectors:
        """The `vectors` [n, D], standardised."""
        return (vectors - self.mean) / self.scale

    def save(self, file: Path) -> None:
        """Write it (safetensors)."""
        save_file({"mean": self.mean, "scale": self.scale}, file)

    @classmethod
    def load(cls, file: Path) -> Standard:
        """Read what `save` wrote; DataError where it is not there."""
        if not file.is_file():
            raise DataError("the vectors' mean and scale are missing", where=str(file), do="fit and save them first")
        return cls(**load_file(file))
