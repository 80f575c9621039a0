"""SmolLM2 itself: read from its package, beside transformers, and with the traps that the small models imitate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from training.core import embedded
from training.core.backbone import BackboneConfig, LoraSettings, build_backbone
from training.core.choice import Choice
from training.core.embedded import SMOLLM2, is_missing, local_folder
from training.core.generation import generate
from training.core.last_token import LAYER, PROMPT, LastToken, Standard
from training.core.scoring import scores
from training.core.sequences import Tree
from training.core.texts import chat_prompt
from training.core.tokens import Vocabulary

pytestmark = pytest.mark.skipif(is_missing(SMOLLM2), reason=f"its weights are not installed: {embedded.INSTALL}")


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of its own: the weights are read from the package once more."""
    if embedded._installed() is None:
        yield Path(os.environ.get("PLUMBLINE__HOME", ""))
        return
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE__HOME", str(folder))
        yield folder


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(local_folder(SMOLLM2))


@cache
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(local_folder(SMOLLM2), dtype=torch.float32).eval()


def tokens(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text, add_special_tokens=False))


def test_it_is_read_once_into_a_folder_that_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = local_folder(SMOLLM2)
    with safe_open(folder / "model.safetensors", "pt") as stored:
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    assert embedded.weights_hash(weights) == embedded._WEIGHTS_SHA256
    assert "lm_head.weight" not in weights and {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    monkeypatch.setattr(embedded, "_convert", None)
    assert local_folder(SMOLLM2) == folder


def test_what_is_cut_off_while_it_is_written_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if embedded._installed() is None:
        pytest.skip(f"the package is not installed: {embedded.INSTALL}")
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path))

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("transformers.LlamaForCausalLM.save_pretrained", cut_off)
        with pytest.raises(KeyboardInterrupt):
            local_folder(SMOLLM2)
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_special_tokens_and_labels_are_as_the_code_takes_them() -> None:
    words = tokenizer()
    assert (words.bos_token_id, words.eos_token_id, words.pad_token_id, words.unk_token_id) == (1, 2, 2, 0)
    for label in (" exact", " substitute", " complement", " irrelevant", " high", " low"):
        assert len(tokens(label)) == 1
        assert tokens(f"label:{label}") == tokens("label:") + tokens(label)
    assert tokens("label: exact") != tokens("label: ") + tokens("exact")


def test_it_answers_a_chat_as_transformers_has_it_answer() -> None:
    prompts = [
        chat_prompt(tokenizer(), [{"role": "user", "content": question}])
        for question in ("What is the capital of France?", "Name a colour of the sky, please.")
    ]
    found = generate(model(), prompts, max_tokens=12, ends=[2], choice=Choice(temperature=0.0))
    for prompt, (answer,) in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            written = model().generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert list(answer) == written[0, len(prompt) :].tolist()
    assert tokenizer().decode(found[0][0]) == "The capital of France is Paris.<|im_end|>"


def test_scores_are_those_of_each_pair_alone() -> None:
    tree = Tree(tokens("The capital of France is"), (tokens(" Paris"), tokens(" Rome."), tokens(" the Eiffel Tower")))
    found = scores(model(), [tree])[0]
    for response, score in zip(tree.responses, found.tolist(), strict=True):
        with torch.no_grad():
            log_probs = model()(torch.tensor([tree.prompt + response])).logits[0].log_softmax(-1)
        places = range(len(tree.prompt) - 1, len(tree.prompt) + len(response) - 1)
        expected = sum(float(log_probs[place, token]) for place, token in zip(places, response, strict=True))
        assert score == pytest.approx(expected, abs=1e-4)
    assert found.argmax() == 0


def test_vectors_are_the_hidden_states_of_transformers_and_near_in_meaning_is_near_in_space() -> None:
    texts = ["I want my money back", "please refund me", "where is my parcel", "track the delivery of my order"]
    found = LastToken(model(), tokenizer()).encode(texts)
    with torch.no_grad():
        ids = torch.tensor([tokens(PROMPT.replace("{}", texts[1]))])
        states = model()(ids, output_hidden_states=True).hidden_states[LAYER][0]
    assert np.allclose(found[1], states[-1].numpy(), atol=1e-2, rtol=1e-4)
    assert states[0].norm() > 20 * states[1:].norm(dim=1).median()  # the attention sink
    centred = Standard.fit(found, scaled=False)(found)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert (unit @ unit.T - 2 * np.eye(4)).argmax(axis=1).tolist() == [1, 0, 3, 2]


def test_a_stage_gets_it_with_adapters_alone_where_no_token_is_new() -> None:
    config = BackboneConfig(path=SMOLLM2, lora=LoraSettings(rank=4, dropout=0.0))
    adapted = build_backbone(config, Vocabulary.create(tokenizer(), {}), seed=1)
    assert {weight.dtype for weight in adapted.parameters() if weight.requires_grad} == {torch.float32}
    assert all("lora_" in name for name, weight in adapted.named_parameters() if weight.requires_grad)
