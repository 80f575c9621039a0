"""Constrained beam search against a brute-force decoder and against `transformers.generate`."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from training.core.decoding import SubCatalogues, beam_search, valid_id_rate
from training.core.errors import DataError
from training.core.trie import NO_ITEM, Trie

VOCABULARY = 14
Items = Sequence[tuple[int, ...]]


@cache
def qwen(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen3Config(
        vocab_size=VOCABULARY, num_key_value_heads=1, head_dim=8, max_position_embeddings=64, pad_token_id=0, **sizes
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
    return model


@torch.no_grad()
def next_log_probs(model: PreTrainedModel, tokens: Sequence[int]) -> list[float]:
    return model(torch.tensor([list(tokens)])).logits[0, -1].log_softmax(-1).tolist()


def brute_force(model: PreTrainedModel, items: Items, prompt: Sequence[int], beams: int) -> list[tuple[float, int]]:
    """Beam search with one uncached forward per beam and step, over sets of prefixes."""
    front: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    while any(prefix not in items for _, prefix in front):
        grown = []
        for score, prefix in front:
            if prefix in items:
                grown.append((score, prefix))
                continue
            log_probs = next_log_probs(model, [*prompt, *prefix])
            following = {item[len(prefix)] for item in items if item[: len(prefix)] == prefix}
            grown += [(score + log_probs[token], (*prefix, token)) for token in following]
        front = sorted(grown, reverse=True)[:beams]
    return [(score, items.index(prefix)) for score, prefix in front]


def prefix_free(items: Items) -> bool:
    return not any(a != b and b[: len(a)] == a for a in items for b in items)


codes = st.tuples(st.integers(1, 4), st.integers(5, 8), st.integers(9, 11))
longer = st.tuples(st.integers(1, 4), st.integers(5, 8), st.integers(9, 11), st.integers(12, 13))
catalogues = st.lists(codes | longer, min_size=1, max_size=16, unique=True).filter(prefix_free)
# Token 0 is the pad: its embedding is zero, so all next tokens would tie after it.
prompts = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(catalogues, prompts, st.integers(1, 30), st.integers(1, 3))
def test_items_and_scores_are_those_of_a_brute_force_decoder(
    items: Items, asked: list[list[int]], beams: int, batch: int
) -> None:
    found = beam_search(qwen(), Trie.build(items), asked, beams, batch_size=batch)
    for row, prompt in enumerate(asked):
        expected = brute_force(qwen(), items, prompt, beams)
        missing = beams - len(expected)
        assert found.log_probs[row].tolist() == pytest.approx(
            [score for score, _ in expected] + [float("-inf")] * missing, abs=1e-4
        )
        assert found.items[row].tolist() == [item for _, item in expected] + [NO_ITEM] * missing


@settings(max_examples=40, deadline=None)
@given(catalogues, prompts, st.integers(1, 30), st.data())
def test_a_request_with_a_part_of_the_catalogue_finds_what_it_would_find_if_that_were_all(
    items: Items, asked: list[list[int]], beams: int, data: st.DataObject
) -> None:
    part = st.lists(st.integers(0, len(items) - 1), min_size=1, unique=True)
    parts = data.draw(st.lists(part, min_size=1, max_size=3))
    chosen = data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=len(asked), max_size=len(asked)))
    trie = Trie.build(items)
    within = SubCatalogues.create(trie, parts, chosen)
    found = beam_search(qwen(), trie, asked, beams, batch_size=2, within=within)
    for row, prompt in enumerate(asked):
        own = sorted(parts[chosen[row]])
        alone = beam_search(qwen(), Trie.build([items[item] for item in own]), [prompt], beams)
        assert found.log_probs[row].tolist() == pytest.approx(alone.log_probs[0].tolist(), abs=1e-4)
        assert found.items[row].tolist() == [own[n] if n != NO_ITEM else NO_ITEM for n in alone.items[0].tolist()]


def test_the_legal_share_counts_the_prompts_whose_own_answer_is_an_item() -> None:
    asked = [[1], [2, 3], [4], [5, 6, 7], [8]]
    own = []
    for prompt in asked:
        written: list[int] = []
        for _ in range(3):
            log_probs = next_log_probs(qwen(), [*prompt, *written])
            written.append(max(range(VOCABULARY), key=log_probs.__getitem__))
        own.append(tuple(written))
    assert valid_id_rate(qwen(), Trie.build(sorted(set(own))), asked, batch_size=2) == 1.0
    others = [item for item in ((1, 5, 9), (2, 6, 9)) if item not in own]
    kept = [own[0], *(item for item in others if item[:1] != own[0][:1])]
    assert valid_id_rate(qwen(), Trie.build(kept), asked) == own.count(own[0]) / 5


def test_an_empty_part_of_the_catalogue_is_an_error_before_any_work() -> None:
    with pytest.raises(DataError, match="part 1 of the catalogue is empty"):
        SubCatalogues.create(Trie.build([(1, 5), (2, 5)]), [[0], []], [0, 1])


def test_more_beams_than_items_lists_every_item_once_and_counts_the_dead_places() -> None:
    items = [(1, 5, 9), (1, 5, 10), (2, 6, 9, 12), (2, 6, 9, 13)]
    found = beam_search(qwen(), Trie.build(items), [[3, 4], [7]], beams=6)
    assert [sorted(row) for row in found.items.tolist()] == [[-1, -1, 0, 1, 2, 3]] * 2
    assert found.dead == 4


def test_ranks_count_from_one_and_are_zero_for_an_item_that_was_not_found() -> None:
    items = [(1, 5, 9), (1, 6, 10), (2, 6, 9)]
    found = beam_search(qwen(), Trie.build(items), [[3], [3]], beams=2)
    first, second = found.items[0].tolist()
    absent = ({0, 1, 2} - {first, second}).pop()
    assert found.ranks(torch.tensor([second, absent])).tolist() == [2, 0]


def generate(
    model: PreTrainedModel, items: Items, prompt: list[int], beams: int
) -> list[tuple[tuple[int, ...], float]]:
    following: dict[tuple[int, ...], list[int]] = {}
    for item in items:
        for depth in range(len(item)):
            following.setdefault(item[:depth], []).append(item[depth])
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=len(items[0]),
        do_sample=False,
        length_penalty=0.0,
        eos_token_id=None,
        prefix_allowed_tokens_fn=lambda _, tokens: sorted(set(following[tuple(tokens[len(prompt) :].tolist())])),
        return_dict_in_generate=True,
        output_scores=True,
    )
    sequences = out.sequences[:, len(prompt) :].tolist()
    return list(zip(map(tuple, sequences), out.sequences_scores.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_items_and_scores_are_those_of_transformers_generate(kind: str) -> None:
    torch.manual_seed(1)
    gpt2 = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
    model = qwen() if kind == "qwen3" else GPT2LMHeadModel(gpt2).eval()
    items = [(a, b, c) for a in (1, 2, 3) for b in (5, 6, 7) for c in (9, 10) if (a + b + c) % 3]
    prompt = [4, 8, 2, 11, 3]
    found = beam_search(model, Trie.build(items), [prompt], beams=4)
    expected = generate(model, items, prompt, beams=4)
    assert [items[item] for item in found.items[0].tolist()] == [item for item, _ in expected]
    assert found.log_probs[0].tolist() == pytest.approx([score for _, score in expected], abs=1e-4)


def test_the_prompt_is_cached_once_and_three_levels_take_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, widths = qwen(), []
    forward = model.get_decoder().forward

    def recording(**inputs: torch.Tensor) -> object:
        widths.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(model.get_decoder(), "forward", recording)
    items = [(a, b, c) for a in (1, 2, 3) for b in (5, 6, 7) for c in (9, 10)]
    beam_search(model, Trie.build(items), [[4, 8, 2, 11], [3]], beams=3)
    assert widths == [(2, 4), (2, 3), (2, 3)]


@pytest.mark.parametrize(
    ("asked", "beams", "reason"),
    [
        ([], 2, "prompt is empty"),
        ([[1], []], 2, "prompt is empty"),
        ([[1]], 0, "0 beams"),
        ([[1] * 64], 2, "prompt of 64 tokens and 1 more"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(asked: list[list[int]], beams: int, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        beam_search(qwen(), Trie.build([(1, 5)]), asked, beams)


def test_a_sliding_window_works_as_long_as_all_beams_fit_into_it() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        num_key_value_heads=1,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=12,
        max_window_layers=1,
        initializer_range=0.3,
        **sizes,
    )
    model, items = Qwen3ForCausalLM(config).eval(), [(a, b, c) for a in (1, 2, 3) for b in (5, 6) for c in (9, 10)]
    assert "sliding_attention" in config.layer_types
    found = beam_search(model, Trie.build(items), [[4, 8, 2]], beams=4)
    expected = brute_force(model, items, [4, 8, 2], beams=4)
    assert found.items[0].tolist() == [item for _, item in expected]
    with pytest.raises(DataError, match="does not fit into the sliding window"):
        beam_search(model, Trie.build(items), [[4, 8, 2]], beams=5)


def test_scores_are_the_same_however_few_logits_are_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine beams over a table of no more than two rows of logits."""
    items = [(a, b, c) for a in (1, 2, 3) for b in (5, 6, 7) for c in (9, 10)]
    asked = [[4, 8, 2, 11], [3]]
    whole, model, rows = beam_search(qwen(), Trie.build(items), asked, beams=9), qwen(), []
    model.get_output_embeddings().register_forward_hook(lambda _, given, logits: rows.append(logits.shape[0]))
    monkeypatch.setattr("training.core.heads.LOGITS_AT_ONCE", 2 * VOCABULARY)
    found = beam_search(model, Trie.build(items), asked, beams=9)
    assert torch.equal(found.items, whole.items)
    assert torch.allclose(found.log_probs, whole.log_probs, atol=1e-6)
    assert max(rows) == 2 and len(rows) > 10
