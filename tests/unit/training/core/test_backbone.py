"""The backbone: made from a config or loaded from a folder, and refused where it does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel

from tests.unit.training.conftest import TINY
from tests.unit.training.language_kit import saved_llama, tiny_llama
from training.core.backbone import (
    BackboneConfig,
    LoraSettings,
    build_backbone,
    load_backbone,
    outline,
    save_backbone,
)
from training.core.errors import DataError
from training.core.loop import NextToken
from training.core.packing import Sample, collate
from training.core.tokens import Vocabulary, train_text_tokenizer

IDS = torch.tensor([[5, 9, 270, 3]])


def test_a_saved_backbone_gives_the_same_logits_when_loaded(
    model: PreTrainedModel, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    save_backbone(model, vocabulary, tmp_path)
    loaded, loaded_vocabulary = load_backbone(tmp_path, expected=vocabulary)
    assert torch.equal(loaded(IDS).logits, model.eval()(IDS).logits)
    assert len(loaded_vocabulary) == len(vocabulary)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(vocabulary: Vocabulary) -> None:
    one, two, other = (build_backbone(TINY, vocabulary, seed).get_input_embeddings().weight for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_backbone_by_path_gets_rows_for_the_new_tokens_and_keeps_the_old_ones(
    model: PreTrainedModel, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    save_backbone(model, vocabulary, tmp_path)
    wider = Vocabulary.create(Vocabulary.load(tmp_path).tokenizer, {"item": (4, 4, 5)})
    grown = build_backbone(replace(TINY, path=str(tmp_path)), wider, seed=1)
    rows, old = grown.get_input_embeddings().weight, model.get_input_embeddings().weight
    assert rows.shape[0] == len(wider) == len(vocabulary) + 5
    assert torch.equal(rows[: len(old)], old)
    meant = build_backbone(replace(TINY, path=str(tmp_path)), wider, 1, {"<a_1>": "pen"}).get_input_embeddings().weight
    assert torch.allclose(meant[wider.token("<a_1>")], old[vocabulary.encode_text("pen")].mean(dim=0))


def test_lora_trains_adapters_and_embeddings_only_and_is_merged_when_saved(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    model = build_backbone(replace(TINY, lora=LoraSettings(rank=2)), vocabulary, seed=1)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name or "embed_tokens" in name for name in trained)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.add_(0.1)
    expected = model.eval()(IDS).logits
    save_backbone(model, vocabulary, tmp_path)
    assert torch.allclose(load_backbone(tmp_path)[0](IDS).logits, expected, atol=1e-5)


@pytest.mark.parametrize(("codes", "learns"), [((), set()), ((4, 4), {"embed_tokens"})])
def test_beside_lora_embeddings_learn_only_where_there_are_new_tokens(
    tmp_path: Path, codes: tuple[int, ...], learns: set[str]
) -> None:
    folder = saved_llama(tmp_path / "hub")
    vocabulary = Vocabulary.create(AutoTokenizer.from_pretrained(folder), {"item": codes} if codes else {})
    config = BackboneConfig(path=str(folder), lora=LoraSettings(rank=2, dropout=0.0))
    model = build_backbone(config, vocabulary, seed=1)
    learnt = [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name]
    assert {name.split(".")[-4] for name in learnt} == learns
    shapes = {
        (tuple(w.shape), w.requires_grad) for w in outline(config, len(vocabulary) - vocabulary.known).parameters()
    }
    assert shapes == {(tuple(w.shape), w.requires_grad) for w in model.parameters()}


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_tied_head_is_no_second_table_in_the_file_and_is_tied_again(
    tmp_path: Path, lora: LoraSettings | None
) -> None:
    folder = saved_llama(tmp_path / "hub")
    vocabulary = Vocabulary.create(AutoTokenizer.from_pretrained(folder), {"item": (3,)})
    model = build_backbone(BackboneConfig(path=str(folder), lora=lora, bf16=False), vocabulary, seed=1)
    expected = model.eval()(IDS).logits
    save_backbone(model, vocabulary, tmp_path / "saved")
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as stored:
        assert not [name for name in stored.keys() if "lm_head" in name]  # noqa: SIM118
    loaded, _ = load_backbone(tmp_path / "saved")
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.allclose(loaded(IDS).logits, expected, atol=1e-5)


def test_where_the_pad_is_the_end_token_the_end_is_learnt_all_the_same() -> None:
    """Labels are marked by their places: a mask of `== pad` would leave the end token out."""
    model, pad = tiny_llama(), 2
    with_end, without = (
        collate([[Sample((5, 6), response), Sample((7,), (8,))]], 8, pad) for response in ((9, 2), (9,))
    )
    assert (with_end.learnt, without.learnt) == (3, 2)
    log_probs = model(torch.tensor([[5, 6, 9]])).logits.log_softmax(-1)[0]
    end = NextToken().loss(model, with_end)[0] - NextToken().loss(model, without)[0]
    assert float(end) == pytest.approx(-float(log_probs[2, 2]), abs=1e-5)


def test_a_checkpoint_of_another_vocabulary_is_refused(
    model: PreTrainedModel, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    save_backbone(model, vocabulary, tmp_path)
    other = Vocabulary.create(train_text_tokenizer(["chair"], 270), {"item": (4, 4)})
    with pytest.raises(DataError, match="another vocabulary"):
        load_backbone(tmp_path, expected=other)


def test_a_truncated_weights_file_is_named(model: PreTrainedModel, vocabulary: Vocabulary, tmp_path: Path) -> None:
    save_backbone(model, vocabulary, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"(?s)truncated or broken.*model\.safetensors"):
        load_backbone(tmp_path)


def test_a_folder_without_weights_or_vocabulary_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no vocabulary"):
        load_backbone(tmp_path)
    vocabulary.save(tmp_path)
    with pytest.raises(DataError, match="no safetensors"):
        load_backbone(tmp_path)
