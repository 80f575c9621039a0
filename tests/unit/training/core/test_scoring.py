"""Log-probs of texts after a prompt against `transformers`, pair by pair."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tests.unit.training.language_kit import llama_tokenizer, tiny_llama
from tests.unit.training.peers import tiny_qwen
from training.core.errors import DataError
from training.core.scoring import scores
from training.core.sequences import Tree

TREES = [
    Tree((5, 60, 7), ((8, 9), (10,), (10, 11, 12, 2))),
    Tree((80,), ((2,), (3,))),
    Tree((9, 10, 200, 201, 30, 31, 32), ((40, 41), (42, 2))),
]


@torch.no_grad()
def alone(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> float:
    log_probs = model(torch.tensor([[*prompt, *response]])).logits[0].float().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return sum(float(log_probs[place, token]) for place, token in zip(places, response, strict=True))


def expected(model: PreTrainedModel, trees: Sequence[Tree]) -> list[list[float]]:
    return [[alone(model, tree.prompt, response) for response in tree.responses] for tree in trees]


tokens = st.lists(st.integers(0, 31), min_size=1, max_size=6).map(tuple)


@settings(max_examples=40)
@given(
    trees=st.lists(st.builds(Tree, tokens, st.lists(tokens, min_size=1, max_size=4).map(tuple)), max_size=4),
    at_once=st.sampled_from([1, 30, 10_000]),
)
def test_scores_are_those_of_each_pair_alone_however_many_are_done_at_once(trees: list[Tree], at_once: int) -> None:
    for model in (tiny_llama(seed=1), tiny_qwen(seed=1).eval()):
        found = scores(model, trees, at_once)
        for tree, row in zip(expected(model, trees), found, strict=True):
            assert row.tolist() == pytest.approx(tree, abs=1e-4)
            assert row.dtype == torch.float32


def test_labels_of_one_token_take_one_place_of_the_head_for_each_prompt() -> None:
    model, asked = tiny_llama(), list[tuple[int, ...]]()
    model.get_output_embeddings().register_forward_hook(lambda _, given, __: asked.append(tuple(given[0].shape)))
    labels = tuple((token,) for token in (10, 11, 12, 13))
    prompts = [Tree(tuple(range(20, 20 + length)), labels) for length in (30, 3, 17)]
    found = scores(model, prompts)
    assert asked == [(3, 24)]
    assert [row.tolist() for row in found] == [pytest.approx(row, abs=1e-4) for row in expected(model, prompts)]


def test_no_more_logits_are_there_than_tokens_are_asked_for_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_llama(), list[int]()
    whole = scores(model, TREES)
    monkeypatch.setattr("training.core.heads.LOGITS_AT_ONCE", 2 * len(llama_tokenizer()))
    model.get_output_embeddings().register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    for one, other in zip(scores(model, TREES), whole, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    later = sum(len(response) - 1 for tree in TREES for response in tree.responses)
    assert max(sizes) <= 2 and sum(sizes) == len(TREES) + later


def test_a_label_of_several_tokens_is_scored_whole() -> None:
    """The likelier first token must not decide: " high pen" begins as " high" does."""
    tokenizer, model = llama_tokenizer(), tiny_llama()
    prompt = tuple(tokenizer.encode("the level is:"))
    labels = tuple(tuple(tokenizer.encode(label)) for label in (" high", " high pen", " low"))
    assert list(map(len, labels)) == [1, 2, 1] and labels[1][:1] == labels[0]
    found = scores(model, [Tree(prompt, labels)])[0]
    assert found.tolist() == pytest.approx([alone(model, prompt, label) for label in labels], abs=1e-4)
    assert found[1] < found[0]


def test_a_model_with_adapters_is_scored_with_them() -> None:
    torch.manual_seed(0)
    adapted = get_peft_model(
        tiny_llama(),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
    ).eval()
    found = scores(adapted, TREES)
    assert [row.tolist() for row in found] == [pytest.approx(row, abs=1e-4) for row in expected(adapted, TREES)]
    assert [row.tolist() for row in scores(tiny_llama(), TREES)] != [row.tolist() for row in found]


def test_a_text_that_is_longer_than_the_model_is_refused() -> None:
    with pytest.raises(DataError, match="longer than the model"):
        scores(tiny_llama(), [Tree((5,) * 250, ((6,) * 8,))])
