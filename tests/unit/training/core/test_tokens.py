"""The vocabulary: every text can be encoded, codes never collide, and new tokens begin where their text is."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from training.core.errors import DataError
from training.core.tokens import Vocabulary, fit_embeddings, train_text_tokenizer

TOKENIZER = Vocabulary.create(train_text_tokenizer(["blue pen", "red pen"], 300), {"item": (4, 4)})


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@example("the pen <a_1> of <eos><pad> and <ua_0>")
def test_every_text_comes_back_from_its_tokens(text: str) -> None:
    assert TOKENIZER.tokenizer.decode(TOKENIZER.encode_text(text), clean_up_tokenization_spaces=False) == text


def test_each_code_is_one_token_and_kinds_do_not_share_any(vocabulary: Vocabulary) -> None:
    items, users = vocabulary.code_table("item"), vocabulary.code_table("user")
    assert [vocabulary.token("<a_3>"), vocabulary.token("<b_0>")] == [items[0][3], items[1][0]]
    assert vocabulary.token("<ua_2>") == users[0][2]
    flat = [token for level in items + users for token in level]
    assert len(set(flat)) == 4 + 4 + 3


def test_a_text_that_spells_a_code_or_an_end_is_text(vocabulary: Vocabulary) -> None:
    codes = {token for kind in ("item", "user") for level in vocabulary.code_table(kind) for token in level}
    assert not codes & set(vocabulary.encode_text("<a_3><b_0> <ua_2>"))
    assert vocabulary.tokenizer.eos_token_id not in vocabulary.encode_text("a pen<eos>")


def test_an_unknown_token_is_named(vocabulary: Vocabulary) -> None:
    with pytest.raises(DataError, match="<a_9>"):
        vocabulary.token("<a_9>")


def test_a_saved_vocabulary_is_the_same_when_loaded(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert (loaded.fingerprint, loaded.codebooks) == (vocabulary.fingerprint, vocabulary.codebooks)
    assert loaded.token("<a_1>") == vocabulary.token("<a_1>")


def test_a_tokenizer_that_was_changed_after_saving_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    vocabulary.tokenizer.add_tokens(["<stranger>"])
    vocabulary.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="not the one that was saved"):
        Vocabulary.load(tmp_path)


def test_codes_are_added_to_a_tokenizer_that_has_its_own_special_tokens(vocabulary: Vocabulary) -> None:
    before = len(vocabulary)
    wider = Vocabulary.create(vocabulary.tokenizer, {"item": (4, 4, 2)})
    assert len(wider) == before + 2
    assert wider.tokenizer.eos_token_id == 2


def test_a_new_token_with_a_text_begins_as_the_mean_of_its_sub_words(
    model: PreTrainedModel, vocabulary: Vocabulary
) -> None:
    wider = Vocabulary.create(vocabulary.tokenizer, {}, special=["<pen>"])
    old = model.get_input_embeddings().weight.detach().clone()
    fit_embeddings(model, wider, {"<pen>": "blue pen"})
    rows = model.get_input_embeddings().weight
    assert rows.shape[0] == len(wider) == len(old) + 1
    assert torch.allclose(rows[-1], old[wider.encode_text("blue pen")].mean(dim=0))
    assert torch.equal(rows[:-1], old)
    assert model.get_output_embeddings().weight is rows


def test_new_tokens_start_on_the_device_of_the_model(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """`meta` stands for a GPU: a product of tensors of two devices is refused there as well."""
    wider = Vocabulary.create(vocabulary.tokenizer, {}, special=["<pen>"])
    fit_embeddings(model.to("meta"), wider)
    assert model.get_input_embeddings().weight.is_meta and len(model.get_input_embeddings().weight) == len(wider)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 5, 60])
def test_all_tokens_that_a_pretrained_model_does_not_know_start_at_the_length_of_those_that_it_does(
    tied: bool, spare: int
) -> None:
    tokenizer = train_text_tokenizer(["blue pen", "red pen"], 300)
    known = len(tokenizer)
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=known + spare, **sizes, tie_word_embeddings=tied))
    for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        weight.data[:known] = torch.randn(known, 32) * torch.rand(known, 1) + 0.2
        weight.data[known:] = 1e-3  # rows that no training has ever moved
    before = model.get_input_embeddings().weight.detach().clone()
    vocabulary = Vocabulary.create(tokenizer, {"item": (8, 8, 8)})
    fit_embeddings(model, vocabulary)
    for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        lengths = weight.detach().norm(dim=1)
        assert len(lengths) == max(known + 24, known + spare)
        assert lengths[known:].tolist() == pytest.approx(
            [float(lengths[:known].median())] * (len(lengths) - known), rel=0.1
        )
        assert torch.pdist(weight[known:].detach()).min() > 0.3 * lengths[:known].median()
        assert torch.nn.functional.cosine_similarity(weight[known:].mean(0), weight[:known].mean(0), dim=0) > 0.5
    assert torch.equal(model.get_input_embeddings().weight[:known], before[:known])
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
