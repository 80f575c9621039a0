"""The last hidden states of a decoder, and no more work in its last layer than the asked places need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.core.masks import attention_mask


def hidden_at(model: PreTrainedModel, ids: Tensor, allowed: Tensor, positions: Tensor, places: Tensor) -> Tensor:
    """Last hidden states [n, D] at the `places` [n], which count through the rows laid end to end; repeats may be.

    `ids` and `positions` are [R, L]; `allowed` [R, L, L] says which token sees which. What no layer above reads is not
    computed: the last layer's feed-forward block, where it is found, runs at the asked places only. That is most of a
    layer where few tokens are learnt.
    """
    decoder = model.get_decoder()
    with _only_at(torch.unique(places), _last_feed_forward(model, decoder)):
        hidden: Tensor = decoder(
            input_ids=ids, attention_mask=attention_mask(allowed, model), position_ids=positions, use_cache=False
        ).last_hidden_state
    return hidden.flatten(0, 1)[places]


def _last_feed_forward(model: PreTrainedModel, decoder: nn.Module) -> nn.Module | None:
    """The dense block of the Llama family (Qwen, Mistral, Gemma, ...); None for others, and where it would not do.

    Gradient checkpointing runs the layer again in the backward pass, when the places are gone.
    """
    layers = getattr(decoder, "layers", None)
    block = getattr(layers[-1], "mlp", None) if layers else None
    return block if hasattr(block, "down_proj") and not model.is_activation_checkpointing else None


@contextmanager
def _only_at(places: Tensor, block: nn.Module | None) -> Iterator[None]:
    """Inside, a `block` that treats each token by itself gives 0 for all tokens but those at `places`."""
    if block is None:
        yield
        return
    shape: list[torch.Size] = []

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        shape.append(inputs[0].shape)
        return (inputs[0].flatten(0, 1)[places][None],)

    def scatter(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        everywhere = output.new_zeros(shape[-1]).flatten(0, 1)
        return everywhere.index_copy(0, places, output[0]).view(shape[-1])

    hooks = (block.register_forward_pre_hook(gather), block.register_forward_hook(scatter))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
