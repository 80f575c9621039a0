"""Last-token vectors against `transformers`, one text at a time, and the traps of pooling."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tests.unit.training.language_kit import llama_tokenizer, tiny_llama
from training.core.errors import DataError
from training.core.last_token import LastToken, Standard

TOKENIZER = llama_tokenizer()
TEXTS = ["a red pen", "", "pen", "the customer wants a blue pen, in one word", "pen <|im_end|>", "ééé ok"] * 7
PROMPT = 'They say: "{}". In one word:'


@torch.no_grad()
def alone(model: PreTrainedModel, text: str, layer: int) -> torch.Tensor:
    ids = TOKENIZER.encode(PROMPT.replace("{}", text), add_special_tokens=False, split_special_tokens=True)
    states: torch.Tensor = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1]
    return states


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("sink", [False, True])
def test_vectors_are_those_of_each_text_alone(layer: int, sink: bool) -> None:
    model = tiny_llama(sink=sink)
    found = LastToken(model, TOKENIZER, PROMPT, layer).encode(TEXTS)
    assert found.dtype == np.float32
    for text, vector in zip(TEXTS, found, strict=True):
        assert torch.allclose(torch.from_numpy(vector), alone(model, text, layer), atol=1e-4), text
    assert len(model.get_decoder().layers) == 3  # all are there again


def test_layers_behind_are_not_computed() -> None:
    model, seen = tiny_llama(), list[int]()
    for number, layer in enumerate(model.get_decoder().layers):
        layer.register_forward_hook(lambda *_, number=number: seen.append(number))
    LastToken(model, TOKENIZER, PROMPT, 2).encode(["pen"])
    assert seen == [0, 1]


def test_a_long_text_is_cut_and_the_prompt_is_not() -> None:
    model = tiny_llama()
    cut = TOKENIZER.decode(TOKENIZER.encode("a red pen " * 9)[:4])
    found = LastToken(model, TOKENIZER, PROMPT, 2, max_tokens=4).encode(["a red pen " * 9])
    assert torch.allclose(torch.from_numpy(found[0]), alone(model, cut, 2), atol=1e-4)


def test_the_first_token_has_a_norm_that_a_mean_would_not_survive() -> None:
    """Two texts that share nothing but the start token: by their means they are one text, by their last tokens not."""
    model, cosine = tiny_llama(sink=True), torch.nn.functional.cosine_similarity
    states = [
        model(torch.tensor([[1, *TOKENIZER.encode(text)]]), output_hidden_states=True).hidden_states[0][0]
        for text in ("a red pen", "wants low")
    ]
    assert cosine(states[0].mean(0), states[1].mean(0), dim=0) > 0.99
    assert cosine(states[0][-1], states[1][-1], dim=0) < 0.9


def test_a_model_without_such_a_layer_is_refused() -> None:
    for layer in (0, 4):
        with pytest.raises(DataError, match=rf"no layer {layer}(.|\n)*it has 3"):
            LastToken(tiny_llama(), TOKENIZER, PROMPT, layer).encode(["pen"])


def test_no_text_gives_no_vector_and_adapters_take_part() -> None:
    assert LastToken(tiny_llama(), TOKENIZER, PROMPT, 2).encode([]).shape == (0, 24)
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(tiny_llama(), settings).eval()
    found = LastToken(adapted, TOKENIZER, PROMPT, 2).encode(["pen"])
    assert torch.allclose(torch.from_numpy(found[0]), alone(adapted, "pen", 2), atol=1e-4)
    assert not np.allclose(found, LastToken(tiny_llama(), TOKENIZER, PROMPT, 2).encode(["pen"]), atol=1e-2)


def test_a_standard_is_the_mean_and_the_spread_of_what_it_was_fitted_on_and_comes_back(tmp_path: Path) -> None:
    vectors = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 6.0]], dtype=np.float32)
    standard = Standard.fit(vectors)
    assert standard(vectors).tolist() == [[-1, 0, -1], [1, 0, 1]]
    assert Standard.fit(vectors, scaled=False)(vectors).tolist() == [[-1, 0, -2], [1, 0, 2]]
    standard.save(tmp_path / "standard.safetensors")
    again = Standard.load(tmp_path / "standard.safetensors")
    assert np.array_equal(again(vectors * 7), standard(vectors * 7))
    with pytest.raises(DataError, match="missing"):
        Standard.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no vectors"):
        Standard.fit(np.zeros((0, 3), dtype=np.float32))
