"""The last hidden states of a decoder, and no more work in its last layer than the asked places need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.core.errors import DataError
from training.core.masks import attention_mask


def hidden_at(model: PreTrainedModel, ids: Tensor, allowed: Tensor, positions: Tensor, places: Tensor) -> Tensor:
    """Last hidden states [n, D] at the `places` [n], which count through the rows laid end to end; repeats may be.

    `ids` and `positions` are [R, L]; `allowed` [R, L, L] says which token sees which. What nothing reads is not
    computed: the parts of the last layer that treat each token by itself, where they are found, run at the asked places
    only. That is most of a layer where few tokens are learnt.
    """
    with last_layer_at(model, torch.unique(places)):
        hidden: Tensor = model.get_decoder()(
            input_ids=ids, attention_mask=attention_mask(allowed, model), position_ids=positions, use_cache=False
        ).last_hidden_state
    return hidden.flatten(0, 1)[places]


@contextmanager
def up_to_layer(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """Inside, the model's last hidden states are those after `layer` layers, and no layer behind is computed.

    They are those of `output_hidden_states` of transformers: the final norm belongs to the last layer only. DataError
    where the model has no such layer, or keeps its layers under other names than the Llama family.
    """
    decoder = model.get_decoder()
    layers, norm = getattr(decoder, "layers", None), getattr(decoder, "norm", None)
    if layers is None or norm is None or not 0 < layer <= len(layers):
        raise DataError(
            f"the model has no layer {layer}",
            where=type(decoder).__name__,
            why=f"it has {len(layers) if layers is not None else 'none that are known'}",
            do="ask for one that it has; of SmolLM2's 30 the 24th to 29th hold most of what a text is about",
        )
    try:
        if layer < len(layers):
            decoder.layers, decoder.norm = layers[:layer], nn.Identity()
        yield
    finally:
        decoder.layers, decoder.norm = layers, norm


@contextmanager
def last_layer_at(model: PreTrainedModel, places: Tensor) -> Iterator[None]:
    """Inside, the model's last hidden states mean something only at the `places` [n], distinct and in order.

    Keys and values of the last layer are computed everywhere: a cache that is filled inside is whole.
    """
    with ExitStack() as stack:
        for part in _token_wise(model, model.get_decoder()):
            stack.enter_context(_only_at(places, part))
        yield


def _token_wise(model: PreTrainedModel, decoder: nn.Module) -> list[nn.Module]:
    """Queries, attention output and dense block of the last layer, by their names in the Llama family; else none.

    None under gradient checkpointing: it runs the layer again in the backward pass, when the places are gone.
    """
    layers = getattr(decoder, "layers", None)
    if not layers or model.is_activation_checkpointing:
        return []
    attention, block = getattr(layers[-1], "self_attn", None), getattr(layers[-1], "mlp", None)
    parts = [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    return [part for part in (*parts, block if hasattr(block, "down_proj") else None) if part is not None]


@contextmanager
def _only_at(places: Tensor, part: nn.Module) -> Iterator[None]:
    """Inside, the `part`, a function of each token by itself, gives 0 for all tokens but those at `places`."""
    shape: list[torch.Size] = []

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        shape.append(inputs[0].shape[:2])
        return (inputs[0].flatten(0, 1)[places][None],)

    def scatter(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        everywhere = output.new_zeros(shape[-1].numel(), output.shape[-1])
        return everywhere.index_copy(0, places, output[0]).view(*shape[-1], -1)

    hooks = (part.register_forward_pre_hook(gather), part.register_forward_hook(scatter))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
