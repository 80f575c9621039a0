"""On a device that multiplies in bf16, here a CPU that is told so: what is rounded, when, and what comes back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from tests.unit.training.alignment_runs import ITEMS
from tests.unit.training.conftest import TINY
from tests.unit.training.peers import tiny_qwen
from training.core.backbone import LoraSettings, build_backbone, load_backbone, save_backbone
from training.core.checkpoint import trainable
from training.core.decoding import Beams, beam_search, valid_id_rate
from training.core.errors import DataError
from training.core.learner import Learner
from training.core.loop import NextToken
from training.core.masks import attention_mask
from training.core.packing import Sample, collate
from training.core.policy.groups import Request
from training.core.policy.rollouts import Sampling
from training.core.policy.variant import Actor
from training.core.precision import inference, laid_out, multiplies_bf16, products, products_of
from training.core.tokens import Vocabulary
from training.core.trie import Trie

PROMPTS = [(5, 6, 7), (8,), (9, 10)]
PRODUCTS = products


@pytest.fixture(autouse=True)
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("precision", "backbone"):
        monkeypatch.setattr(f"training.core.{module}.products", lambda wished=False: torch.bfloat16)


class WeightCasts(TorchDispatchMode):
    """Counts how often a whole weight of a model is copied into another dtype."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.count, self._weights = 0, {weight.data_ptr() for weight in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self._weights
        return func(*args, **(kwargs or {}))


def searched(model: PreTrainedModel) -> Beams:
    return beam_search(model, Trie.build(ITEMS), PROMPTS, beams=5)


def answered(model: PreTrainedModel, max_tokens: int = 6) -> list[list[tuple[int, ...]]]:
    rollout = Sampling(4, max_tokens, end=2)
    groups = Actor(model, [], rollout, (3,)).answer([Request(prompt, number=n) for n, prompt in enumerate(PROMPTS)], 0)
    return [[response.tokens for response in group.responses] for group in groups]


def test_a_search_in_bf16_is_that_of_a_bf16_model_and_leaves_the_weights_as_they_were() -> None:
    model, rounded = tiny_qwen(seed=0).eval(), tiny_qwen(seed=0).eval()
    for weight in rounded.parameters():
        weight.data = weight.data.bfloat16()  # positions stay float32, as in a model that is loaded in bf16
    before = {name: weight.clone() for name, weight in trainable(model).items()}
    found, expected = searched(model), searched(rounded)
    assert torch.equal(found.items, expected.items) and torch.equal(found.log_probs, expected.log_probs)
    assert found.log_probs.dtype == torch.float32
    assert answered(model) == answered(rounded)
    for name, weight in trainable(model).items():
        assert weight.dtype == torch.float32 and torch.equal(weight, before[name]), name


@pytest.mark.parametrize(
    "work",
    [searched, answered, lambda model: answered(model, 30), lambda m: valid_id_rate(m, Trie.build(ITEMS), PROMPTS)],
    ids=["search", "six tokens", "thirty tokens", "legal share"],
)
def test_every_weight_is_rounded_once_however_many_tokens_are_written(work: Callable[[PreTrainedModel], Any]) -> None:
    model = tiny_qwen(seed=0).eval()
    with WeightCasts(model) as casts:
        work(model)
    assert casts.count == len(list(model.parameters()))


def test_a_model_that_is_loaded_in_bf16_is_not_rounded_again(
    model: PreTrainedModel, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    save_backbone(model, vocabulary, tmp_path)
    loaded, _ = load_backbone(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    with WeightCasts(loaded) as casts:
        searched(loaded.eval())
    assert casts.count == 0


def test_the_weights_come_back_after_an_error() -> None:
    model = tiny_qwen(seed=0)
    with pytest.raises(KeyError), inference(model):
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        raise KeyError
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("by_path", [True, False])
def test_with_adapters_what_is_frozen_is_rounded_and_what_learns_is_not(
    vocabulary: Vocabulary, tmp_path: Path, by_path: bool
) -> None:
    save_backbone(build_backbone(TINY, vocabulary, seed=1), vocabulary, tmp_path)
    config = replace(TINY, lora=LoraSettings(rank=2, dropout=0.0), path=str(tmp_path) if by_path else None)
    model = build_backbone(config, vocabulary, seed=1)
    found = {(weight.requires_grad, weight.dtype) for weight in model.parameters()}
    assert found == {(True, torch.float32), (False, torch.bfloat16)}
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.tensor([[5, 9, 270]])).logits.float().square().sum().backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in model.parameters() if w.requires_grad)


def test_an_adapter_is_not_lost_in_the_rounding_when_it_is_merged(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = build_backbone(replace(TINY, lora=LoraSettings(rank=2, dropout=0.0)), vocabulary, seed=1)
    learnt = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    base = {name: weight.clone() for name, weight in model.named_parameters() if "base_layer" in name}
    with torch.no_grad():
        for weight in learnt:
            weight.add_(1e-4)
    save_backbone(model, vocabulary, tmp_path)
    merged = dict(load_backbone(tmp_path)[0].named_parameters())
    for name, weight in base.items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        moved = (merged[plain] - weight.float()).abs()
        assert 0 < moved.median() < 1e-3, name


@pytest.mark.parametrize("kind", ["flash_attention_2", "flex_attention"])
def test_an_attention_that_takes_no_mask_for_each_token_is_refused(kind: str) -> None:
    model = tiny_qwen(seed=0)
    model.config._attn_implementation_internal = kind
    with pytest.raises(DataError, match=f"'{kind}' takes no mask"):
        attention_mask(torch.ones(1, 2, 2, dtype=torch.bool), model)


def on_the_cpu(monkeypatch: pytest.MonkeyPatch, multiplies: bool) -> None:
    monkeypatch.setattr("training.core.precision.multiplies_bf16", lambda: multiplies)
    for module in ("precision", "backbone"):
        monkeypatch.setattr(f"training.core.{module}.products", PRODUCTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU rounds whatever the model wishes")
@pytest.mark.parametrize(
    ("multiplies", "asked", "by_path", "rounded"),
    [
        (True, None, False, False),
        (True, None, True, True),
        (True, True, False, True),
        (True, False, True, False),
        (False, True, True, False),
    ],
)
def test_on_a_cpu_a_model_is_rounded_where_it_is_pretrained_or_asked_for_and_the_cpu_has_bf16(
    vocabulary: Vocabulary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    multiplies: bool,
    asked: bool | None,
    by_path: bool,
    rounded: bool,
) -> None:
    on_the_cpu(monkeypatch, multiplies)
    save_backbone(build_backbone(TINY, vocabulary, seed=1), vocabulary, tmp_path / "start")
    config = replace(TINY, path=str(tmp_path / "start") if by_path else None, bf16=asked)
    save_backbone(build_backbone(config, vocabulary, seed=1), vocabulary, tmp_path / "stage")
    model, _ = load_backbone(tmp_path / "stage")  # as the next stage does
    assert (products_of(model) is torch.bfloat16) == rounded
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    batch = collate([[Sample((5, 6), (7, 2))]], 8, 0)
    learner: Learner[Any] = Learner(model, NextToken().loss, tmp_path, "run", weight_decay=0.0, max_grad_norm=1.0)
    seen: set[torch.dtype] = set()
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    learner.step([batch], 1e-3, 1)
    assert seen == {torch.bfloat16 if rounded else torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.skipif(not multiplies_bf16(), reason="the processor has no products in bf16")
def test_weights_that_are_laid_out_for_the_cpu_give_the_same_products_and_are_themselves_again() -> None:
    model, ids = tiny_qwen(seed=0).eval().bfloat16(), torch.tensor([[5, 9, 3]])
    with torch.inference_mode():
        plain = model(ids).logits
        with laid_out(model):
            assert sum("forward" in module.__dict__ for module in model.modules()) == 2 * 7 + 1
            assert torch.allclose(model(ids).logits, plain, rtol=0.02, atol=0.05)
        assert torch.equal(model(ids).logits, plain)
    assert not any("forward" in module.__dict__ for module in model.modules())
    exact = tiny_qwen(seed=0)
    with laid_out(exact):  # float32 is left alone
        assert not any("forward" in module.__dict__ for module in exact.modules())
