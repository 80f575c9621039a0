"""Dropout of embeddings and of the residual stream: in training only, by copies too, and nowhere unless asked for."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tests.unit.training.conftest import TINY
from training.core.backbone import BackboneConfig, LoraSettings, build_backbone, load_backbone, save_backbone
from training.core.dropout import add_dropout
from training.core.errors import DataError
from training.core.hidden import hidden_at
from training.core.loop import NextToken
from training.core.masks import block_causal
from training.core.packing import Sample, collate
from training.core.sequences import without_dropout
from training.core.tokens import Vocabulary

DROPPING = replace(TINY, embedding_dropout=0.3, residual_dropout=0.5)
KINDS = {
    "plain": DROPPING,
    "lora": replace(DROPPING, lora=LoraSettings(rank=2, dropout=0.0)),
    "checkpointing": replace(DROPPING, gradient_checkpointing=True),
}
SAMPLES = [Sample((5, 9, 7), (11, 2)), Sample((8,), (12, 13, 2)), Sample((5, 6), (14, 2))]


def loss(model: PreTrainedModel, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return NextToken().loss(model, collate([SAMPLES[:2], SAMPLES[2:]], 12, 0))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_it_acts_in_training_only_and_by_the_random_state(vocabulary: Vocabulary, kind: str) -> None:
    model, plain = (build_backbone(one, vocabulary, seed=7) for one in (KINDS[kind], no_dropout(KINDS[kind])))
    assert torch.equal(loss(model.eval()), loss(plain.eval()))
    assert torch.equal(loss(plain.train()), loss(plain.eval()))
    one, again, other = loss(model.train()), loss(model.train()), loss(model.train(), seed=1)
    assert torch.equal(one, again) and not torch.equal(one, other)
    without_dropout(model)
    assert torch.equal(loss(model.train()), loss(plain.eval()))


def no_dropout(config: BackboneConfig) -> BackboneConfig:
    return replace(config, embedding_dropout=0.0, residual_dropout=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_masks_that_the_loss_was_computed_with(vocabulary: Vocabulary, kind: str) -> None:
    """A small step along the gradient, under the same masks, lowers the loss by its squared length."""
    model = build_backbone(KINDS[kind], vocabulary, seed=7).double().train()
    before = loss(model)
    before.backward()
    learnt = [weight for weight in model.parameters() if weight.grad is not None]
    squared = sum(float(weight.grad.square().sum()) for weight in learnt if weight.grad is not None)
    with torch.no_grad():
        for weight in learnt:
            weight -= 1e-5 * weight.grad
    assert (before - loss(model)).item() / 1e-5 == pytest.approx(squared, rel=0.02)


def test_a_share_of_every_place_is_dropped_and_the_rest_is_scaled(vocabulary: Vocabulary) -> None:
    model = build_backbone(DROPPING, vocabulary, seed=7).train()
    places = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    assert sorted(module.p for module in places) == [0.3] + [0.5] * 4
    seen: list[tuple[float, Tensor, Tensor]] = []
    for module in places:
        module.register_forward_hook(lambda one, given, dropped: seen.append((one.p, given[0], dropped)))
    model(torch.arange(5, 45)[None])
    assert len(seen) == 5
    for probability, given, dropped in seen:
        kept = dropped != 0
        assert (1.0 - kept.float().mean()).item() == pytest.approx(probability, abs=0.1)
        assert torch.allclose(dropped[kept], given[kept] / (1.0 - probability))


def test_a_copy_drops_by_its_own_mode(vocabulary: Vocabulary) -> None:
    model = build_backbone(DROPPING, vocabulary, seed=7).eval()
    learning = copy.deepcopy(model).train()
    assert not torch.equal(loss(learning), loss(model))


def test_switched_off_a_packed_row_is_the_samples_one_by_one(vocabulary: Vocabulary) -> None:
    model = build_backbone(DROPPING, vocabulary, seed=7).eval()
    packed = NextToken().loss(model, collate([SAMPLES], 16, 0))[0]
    alone = [NextToken().loss(model, collate([[sample]], 12, 0))[0] for sample in SAMPLES]
    assert packed.item() == pytest.approx(sum(one.item() for one in alone), rel=1e-6)


def test_it_changes_no_name_of_a_weight_and_is_not_handed_on(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model, plain = (build_backbone(one, vocabulary, seed=7) for one in (DROPPING, TINY))
    assert model.state_dict().keys() == plain.state_dict().keys()
    save_backbone(model, vocabulary, tmp_path)
    loaded, _ = load_backbone(tmp_path)
    assert torch.equal(loss(loaded.train()), loss(plain.eval()))


def test_a_llama_drops_alike_where_only_some_places_of_its_last_layer_are_computed() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes))
    add_dropout(model, 0.2, 0.4)
    ids, segments = torch.arange(3, 15).view(2, 6), torch.ones(2, 6, dtype=torch.int64)
    asked = ids, block_causal(segments), torch.arange(6).expand(2, -1), torch.tensor([2, 7])
    still = hidden_at(model.eval(), *asked)
    assert not torch.allclose(hidden_at(model.train(), *asked), still)


def test_a_model_of_another_family_is_refused_where_it_has_no_such_parts() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
    model.get_decoder().layers = model.get_decoder().h
    with pytest.raises(DataError, match="self_attn"):
        add_dropout(model, 0.0, 0.1)
