"""The short decoding step against the forward pass of transformers, and which models it leaves to that."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tests.unit.training.language_kit import tiny_llama
from tests.unit.training.peers import tiny_qwen
from training.core.choice import Choice
from training.core.decoding_step import suits
from training.core.generation import write
from training.core.precision import multiplies_bf16

PROMPTS = [(5, 6, 7), (8,), (9, 10, 20, 21, 30, 4, 3)]
LENGTHS = [[40, 2, 9], [1, 1, 1], [3, 40, 40]]  # of answers: beyond the first room of the cache, and prompts that leave
BF16 = pytest.mark.skipif(not multiplies_bf16(), reason="the processor has no products in bf16")


def tiny_qwen2(seed: int, **more: Any) -> PreTrainedModel:
    """With biases that count, and two heads of keys; the weights of norms are not 1."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.3,
        **more,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                weight.add_(torch.randn_like(weight) / 2)
    return model


BUILDS = [tiny_llama, tiny_qwen2, tiny_qwen]


def hidden_states(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What each token of the answers with `LENGTHS` is chosen by."""
    seen: list[Tensor] = []

    def look(self: Choice, head: object, hidden: Tensor, uniform: Tensor, written: Tensor) -> Tensor:
        seen.append(hidden.float())
        return uniform.long()

    monkeypatch.setattr(Choice, "tokens", look)
    draws = torch.arange(3 * 3 * 40).view(3, 3, 40) % 29 + 3
    for row, lengths in enumerate(LENGTHS):
        for answer, length in enumerate(lengths):
            draws[row, answer, length - 1] = 2
    write(model.eval(), PROMPTS, draws, [2], Choice())
    return seen


def by_transformers(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr("training.core.generation.suits", lambda model: False)
        patch.setattr("training.core.generation.DecodingStep", None)
        return hidden_states(model, patch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", BUILDS)
def test_hidden_states_are_those_of_transformers(
    build: Callable[..., PreTrainedModel], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(seed=1).eval().to(dtype)
    assert suits(model)
    found, expected = hidden_states(model, monkeypatch), by_transformers(model, monkeypatch)
    assert [states.shape for states in found] == [states.shape for states in expected] and len(found) == 40
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@BF16
@pytest.mark.parametrize("build", BUILDS)
def test_rounding_costs_about_what_it_does_in_transformers(
    build: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(seed=1).eval().bfloat16()
    found, peer = (torch.cat(run(model, monkeypatch)) for run in (hidden_states, by_transformers))
    exact = torch.cat(by_transformers(model.float(), monkeypatch))
    assert 0 < (found - exact).norm() <= 1.5 * (peer - exact).norm()


def adapted() -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    model: PreTrainedModel = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["v_proj"])).base_model.model
    return model.eval()


def hooked() -> PreTrainedModel:
    model = tiny_llama()
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    return model


def mixed() -> PreTrainedModel:
    model = tiny_llama().bfloat16()
    model.model.norm.float()
    return model


class Another(Qwen2ForCausalLM):  # type: ignore[misc]  # transformers has no types
    """Might compute otherwise."""


@pytest.mark.parametrize(
    "build",
    [
        adapted,
        hooked,
        mixed,
        lambda: tiny_llama().train(),
        lambda: Another(tiny_qwen2(0).config).eval(),
        lambda: tiny_qwen2(0, use_sliding_window=True, sliding_window=4, max_window_layers=1).eval(),
    ],
    ids=["adapter", "hook", "dtypes", "training", "subclass", "sliding window"],
)
def test_other_models_are_left_to_transformers(build: Callable[[], PreTrainedModel]) -> None:
    assert not suits(build())
