"""Dropout where models of the Llama family have none: after the embedding, and before each sum of the residual stream.

Each place gets a module of its own below the one whose output it drops from, and a hook that finds it there. So a copy
of the model drops by itself, `train` and `eval` switch it, and no name of a weight changes (Vaswani et al. 2017, 5.4).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from training.core.errors import DataError

_NAME = "output_dropout"


def add_dropout(model: PreTrainedModel, embedding: float, residual: float) -> None:
    """Drop from the token embeddings and from the output of each attention and dense block, with these probabilities.

    DataError for a model whose layers have no `self_attn` and `mlp`.
    """
    if embedding:
        _drop_from(model.get_input_embeddings(), embedding)
    for layer in model.get_decoder().layers if residual else ():
        for name in ("self_attn", "mlp"):
            part = getattr(layer, name, None)
            if part is None:
                raise DataError(f"a layer of the backbone has no {name!r}", do="set residual_dropout to 0")
            _drop_from(part, residual)


def _drop_from(part: nn.Module, probability: float) -> None:
    part.add_module(_NAME, nn.Dropout(probability))
    part.register_forward_hook(_dropped)


def _dropped(part: nn.Module, _: Any, output: Any) -> Any:
    """The output with its states, the first of several values, dropped from."""
    dropout = part.get_submodule(_NAME)
    return (dropout(output[0]), *output[1:]) if isinstance(output, tuple) else dropout(output)
