"""The hidden states at some places, and their gradients, are those of the whole forward pass; less work is done."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.unit.training.peers import gradients, tiny_qwen
from training.core.backbone import LoraSettings, _with_lora
from training.core.hidden import hidden_at
from training.core.masks import attention_mask, block_causal

SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]])
PLACES = torch.tensor([1, 2, 2, 9])
SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16))


def mixture_of_experts() -> PreTrainedModel:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **HEADS, **experts))


def with_lora() -> PreTrainedModel:
    return _with_lora(tiny_qwen(seed=0), LoraSettings(rank=2, dropout=0.0), unknown_tokens=True)


def checkpointing() -> PreTrainedModel:
    model = tiny_qwen(seed=0)
    model.gradient_checkpointing_enable()
    return model


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.arange(12).view(2, 6) + 3
    return ids, block_causal(SEGMENTS), torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 0]])


def everywhere(model: PreTrainedModel) -> Tensor:
    ids, allowed, positions = inputs()
    mask = attention_mask(allowed, model)
    hidden: Tensor = model.get_decoder()(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return hidden.flatten(0, 1)


@pytest.mark.parametrize(
    "build",
    [lambda: tiny_qwen(seed=0), llama, gpt2, mixture_of_experts, with_lora, checkpointing],
    ids=["qwen", "llama", "gpt2", "mixture_of_experts", "lora", "checkpointing"],
)
def test_hidden_states_and_gradients_are_those_of_the_whole_pass(build: Callable[[], PreTrainedModel]) -> None:
    torch.manual_seed(0)
    model = build().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found: list[tuple[Tensor, Tensor]] = []
    ids, allowed, positions = inputs()
    for hidden in (everywhere(model)[PLACES], hidden_at(model, ids, allowed, positions, PLACES)):
        model.zero_grad()
        hidden.square().sum().backward()
        found.append((hidden.detach(), gradients(model)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-4)


@pytest.mark.parametrize("part", ["mlp.down_proj", "self_attn.q_proj", "self_attn.o_proj"])
def test_the_last_layer_computes_the_asked_tokens_once_and_all_again_afterwards(part: str) -> None:
    model, seen = tiny_qwen(seed=0), list[int]()
    for layer in model.model.layers:
        layer.get_submodule(part).register_forward_hook(lambda _, __, out: seen.append(out.shape[:-1].numel()))
    hidden_at(model, *inputs(), PLACES)
    everywhere(model)
    assert seen == [12, 3, 12, 12]
