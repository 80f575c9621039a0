"""One more token for each answer, in as few operations as models of the Llama family need.

With a few rows an operation costs more than its numbers do, and what is left is to read weights and cache once. So
products of the same input are one, with the weight of the norm before them in it, and so are those of all heads of a
prompt: queries are 0 where a key is another head's. In float32 the results are those of transformers, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import Cache, LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from training.core.kept import Kept, bias_of
from training.core.precision import Product

_FAMILY = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


def suits(model: PreTrainedModel) -> bool:
    """Whether `DecodingStep` knows `model`: one of the family, with no adapter, shard, hook, dropout or sliding window,
    and in one dtype.
    """
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    # A subclass may compute otherwise.
    if type(model) not in _FAMILY or model.training or set(kinds) != {"full_attention"}:
        return False
    parts = [part for layer in model.get_decoder().layers for part in (layer.self_attn, layer.mlp)]
    linear = [child for part in parts for name, child in part.named_children() if name.endswith("_proj")]
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    one_dtype = len({weight.dtype for weight in model.parameters()}) == 1
    return all(type(layer) is nn.Linear for layer in linear) and not hooked and one_dtype


class DecodingStep:
    """The decoder of a `model` that `suits`, with its weights as they are now; the cache's layers are `Kept`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._decoder = model.get_decoder()
        self._layers = [_Layer(layer) for layer in self._decoder.layers]

    def __call__(self, ids: Tensor, seen: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Last hidden states [B, A, D] of the tokens `ids` [B, A], which see what `seen` [B, A, T] says of the cache
        with themselves at its end.
        """
        values: Tensor = self._decoder.embed_tokens(ids)
        shared = self._layers[0].shared(seen, *self._decoder.rotary_emb(values, positions))
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            values = layer(values, shared, kept)
        normed: Tensor = self._decoder.norm(values)
        return normed


@dataclass(frozen=True)
class _Shared:
    """What is the same in all layers of a step.

    `cosine` and `sine` [B, A, heads, D] turn queries and keys and leave values; `bias` [B, 1 or heads * A, S] is added
    to scores. `wide` [B, heads * A, heads of keys * D] is 0 but for `own` [B, A, heads of keys, group, D], a view.
    """

    cosine: Tensor
    sine: Tensor
    bias: Tensor
    wide: Tensor
    own: Tensor


class _Layer:
    """One layer; for each head of keys there is a group of heads of queries."""

    def __init__(self, layer: LlamaDecoderLayer) -> None:
        attention, block = layer.self_attn, layer.mlp
        self._width, self._scale, self._activation = attention.head_dim, attention.scaling, block.act_fn
        self._heads = attention.k_proj.out_features // self._width
        self._group = attention.q_proj.out_features // attention.k_proj.out_features
        self._sizes = [self._heads * self._group, self._heads, self._heads]
        self._norms = [getattr(attention, name) for name in ("q_norm", "k_norm") if hasattr(attention, name)]
        self._to_heads = _Normed(layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj])
        self._from_heads = Product(attention.o_proj.weight, attention.o_proj.bias)
        self._to_block = _Normed(layer.post_attention_layernorm, [block.gate_proj, block.up_proj])
        self._from_block = Product(block.down_proj.weight, block.down_proj.bias)

    def shared(self, seen: Tensor, cosine: Tensor, sine: Tensor) -> _Shared:
        """For a step in which tokens see what is `seen`, of rotary `cosine` and `sine` [B, A, D]."""
        first, second = sine.chunk(2, dim=2)
        turns = cosine[:, :, None], torch.cat([-first, second], dim=2)[:, :, None]
        rows, answers, queries = len(seen), seen.shape[1], self._sizes[0]
        shape = (-1, -1, queries + self._heads, -1)
        still = cosine.new_ones(rows, answers, self._heads, self._width)
        bias = bias_of(seen, cosine.dtype)
        wide = cosine.new_zeros(rows, self._heads, self._group, answers, self._heads, self._width)
        return _Shared(
            torch.cat([turns[0].expand(shape), still], dim=2),
            torch.cat([turns[1].expand(shape), torch.zeros_like(still)], dim=2),
            bias if answers == 1 else bias.repeat(1, queries, 1),
            wide.view(rows, queries * answers, self._heads * self._width),
            _own(wide),
        )

    def __call__(self, values: Tensor, shared: _Shared, kept: Kept) -> Tensor:
        """`values` [B, A, D] after the layer."""
        values = self._from_heads(self._attended(self._to_heads(values), shared, kept), values)
        gate, up = self._to_block(values).chunk(2, dim=2)
        return self._from_block(self._activation(gate) * up, values)

    def _attended(self, joint: Tensor, shared: _Shared, kept: Kept) -> Tensor:
        states = joint.view(*joint.shape[:2], -1, self._width)
        if self._norms:
            states = self._heads_normed(states)
        turned = torch.addcmul(states * shared.cosine, states.roll(self._width // 2, 3), shared.sine)
        queries, keys, values = torch.split(turned, self._sizes, 2)
        kept.add(keys, values)
        shared.own.copy_(queries.view(shared.own.shape))
        # Keys are on the left, where the processor takes them as they lie; a softmax is fast along rows alone.
        scores = torch.bmm(kept.keys, shared.wide.transpose(1, 2)).transpose(1, 2).contiguous()
        weights = torch.add(shared.bias, scores, alpha=self._scale).softmax(2)
        found = torch.bmm(weights, kept.values)
        batch, answers = joint.shape[:2]
        return _own(found.view(batch, self._heads, self._group, answers, self._heads, self._width)).reshape(
            batch, answers, -1
        )

    def _heads_normed(self, states: Tensor) -> Tensor:
        """Queries and keys each normed over a head, as in Qwen3."""
        *normed, values = torch.split(states, self._sizes, 2)
        pairs = zip(normed, self._norms, strict=True)
        return torch.cat([*(rms_norm(x, x.shape[-1:], n.weight, n.variance_epsilon) for x, n in pairs), values], dim=2)


class _Normed:
    """Linear layers with the same input, side by side, behind their norm, whose weight is in theirs."""

    def __init__(self, norm: LlamaRMSNorm, layers: Sequence[nn.Linear]) -> None:
        width = layers[0].in_features
        self._wide = torch.promote_types(norm.weight.dtype, torch.float32)
        floor = math.sqrt(norm.variance_epsilon * width)
        self._floor = torch.tensor(floor, dtype=self._wide, device=norm.weight.device)
        weight = layers[0].weight.new_empty(sum(layer.out_features for layer in layers), width)
        factor = norm.weight.detach() * math.sqrt(width)
        for layer, place in zip(layers, torch.split(weight, [layer.out_features for layer in layers]), strict=True):
            torch.mul(layer.weight.detach(), factor, out=place)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self._product = Product(weight, torch.cat(biases) if biases else None)

    def __call__(self, values: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=self._wide)
        scaled = torch.div(values, torch.hypot(length, self._floor), out=torch.empty_like(values))
        return self._product(scaled)


def _own(wide: Tensor) -> Tensor:
    """Of [B, K, G, A, K, D] the parts of the own head: a view [B, A, K, G, D]."""
    return wide.diagonal(dim1=1, dim2=4).permute(0, 2, 4, 1, 3)
