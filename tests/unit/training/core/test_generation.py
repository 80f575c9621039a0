"""Written text against `transformers.generate`, and the grammar, the cuts and the ends that it keeps to."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel, TopKLogitsWarper, TopPLogitsWarper

from tests.unit.training.language_kit import llama_tokenizer, tiny_llama
from tests.unit.training.peers import tiny_qwen
from training.core.choice import Choice
from training.core.decoding_step import DecodingStep
from training.core.errors import DataError
from training.core.generation import generate, write
from training.core.grammar import Banned, Both, ByPlace, OneOf
from training.core.kept import Kept

GREEDY = Choice(temperature=0.0)
PROMPTS = [(5, 60, 7), (80,), (9, 10, 200, 201, 30), (77, 9), (1, 2, 3, 4), (300, 301)]
SIZE = len(llama_tokenizer())


@torch.no_grad()
def by_transformers(model: PreTrainedModel, prompt: Sequence[int], ends: list[int] | None, **more: Any) -> list[int]:
    ids = torch.tensor([prompt])
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=ends, pad_token_id=2, **more
    )
    found: list[int] = written[0, len(prompt) :].tolist()
    return found


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("build", [tiny_llama, tiny_qwen])
def test_greedy_answers_are_those_of_transformers(build: Any, batch_size: int) -> None:
    model = build(seed=3).eval()
    prompts = [tuple(token % 32 for token in prompt) for prompt in PROMPTS] if build is tiny_qwen else PROMPTS
    free = [by_transformers(model, prompt, None, max_new_tokens=12) for prompt in prompts]
    ends = [free[0][3], free[1][7]]  # tokens that are written, so that answers end at different places
    found = generate(model, prompts, max_tokens=12, ends=ends, choice=GREEDY, batch_size=batch_size)
    expected = [by_transformers(model, prompt, ends, max_new_tokens=12) for prompt in prompts]
    assert [list(answers[0]) for answers in found] == expected
    assert len({len(tokens) for tokens in expected}) > 1


def test_a_minimum_length_is_that_of_transformers() -> None:
    model = tiny_llama(seed=3)
    end = by_transformers(model, PROMPTS[0], None, max_new_tokens=1)[0]
    rule = Banned([end], SIZE, until=4)
    found = generate(model, PROMPTS[:1], max_tokens=9, ends=[end], choice=Choice(0.0, allowed=rule))
    assert list(found[0][0]) == by_transformers(model, PROMPTS[0], [end], max_new_tokens=9, min_new_tokens=4)
    assert end not in found[0][0][:4]


def test_answers_do_not_depend_on_which_prompts_are_beside_and_have_ended() -> None:
    model, choice = tiny_llama(), Choice(temperature=1.5)
    ends = list(range(0, SIZE, 3))  # many short answers, some long
    together = generate(model, PROMPTS, max_tokens=20, ends=ends, choice=choice, responses=3)
    for batch_size in (1, 2, 5):
        again = generate(model, PROMPTS, max_tokens=20, ends=ends, choice=choice, responses=3, batch_size=batch_size)
        assert again == together
    lengths = [len(answer) for answers in together for answer in answers]
    assert min(lengths) <= 2 and max(lengths) >= 5
    assert all((token in ends) == (n + 1 == len(a)) for aa in together for a in aa for n, token in enumerate(a))


@pytest.mark.parametrize("known", [True, False])
def test_finished_prompts_leave_the_batch_and_finished_answers_are_not_asked_again(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shapes = tiny_llama(), list[tuple[int, ...]]()
    decoder = model.get_decoder()
    forward, call = decoder.forward, DecodingStep.__call__

    def recording(**inputs: Tensor) -> object:
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    def stepping(self: DecodingStep, ids: Tensor, *inputs: Any) -> Tensor:
        shapes.append(tuple(ids.shape))
        return call(self, ids, *inputs)

    monkeypatch.setattr(decoder, "forward", recording)
    monkeypatch.setattr(DecodingStep, "__call__", stepping)
    monkeypatch.setattr("training.core.generation.suits", lambda model: known)
    lengths = [[1, 1], [2, 1], [6, 3], [4, 6]]
    sequences = {(n, g): (*range(10, 9 + length), 2) for n, row in enumerate(lengths) for g, length in enumerate(row)}

    draws = torch.zeros(4, 2, 6)
    # What is drawn is the token itself.
    monkeypatch.setattr(Choice, "tokens", lambda self, head, hidden, uniform, written: uniform.long())
    for (n, g), tokens in sequences.items():
        draws[n, g, : len(tokens)] = torch.tensor(tokens).float()
    found = write(model, PROMPTS[:4], draws, [2], Choice())
    assert {(n, g): answer for n, row in enumerate(found) for g, answer in enumerate(row)} == sequences
    assert shapes == [(4, 5), (3, 2), (2, 2), (2, 2), (2, 1), (2, 1)]


def test_the_cache_grows_by_many_tokens_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    add = Kept.add

    def look(self: Kept, keys: Tensor, values: Tensor) -> None:
        add(self, keys, values)
        seen.append((self.keys.data_ptr(), self.keys.shape[1]))

    monkeypatch.setattr(Kept, "add", look)
    model = tiny_llama()
    generate(model, PROMPTS[:1], max_tokens=35, ends=[], choice=GREEDY)
    layers = model.config.num_hidden_layers
    assert [size for _, size in seen[::layers]] == [32] * 30 + [64] * 5  # 3 to 32 tokens, and 33 to 37
    assert len(set(seen[::layers])) == 2


@given(
    logits=st.lists(st.lists(st.floats(-8, 8), min_size=6, max_size=6), min_size=1, max_size=4),
    top_k=st.sampled_from([None, 1, 3, 6, 50]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    widths=st.sampled_from([(2,), (1, 3), (512,)]),
)
def test_the_cuts_keep_the_tokens_that_transformers_keeps(
    logits: list[list[float]], top_k: int | None, top_p: float, widths: tuple[int, ...]
) -> None:
    table = torch.tensor(logits, dtype=torch.float64)
    gaps = table.sort(dim=1).values.diff(dim=1)
    table += torch.arange(6) * 1e-3 * (gaps.min() < 1e-3)  # of equal ones either may be kept
    wrappers = LogitsProcessorList(([TopKLogitsWarper(min(top_k, 6))] if top_k else []) + [TopPLogitsWarper(top_p)])
    odds = wrappers(None, table.clone() / 0.7).softmax(-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.core.choice._NUCLEUS_WIDTHS", widths)
        for place in (0.0, 0.2, 0.5, 0.8, 1.0 - 1e-9):
            uniform = torch.full((len(table), 1), place, dtype=torch.float64)
            drawn = Choice(0.7, top_k, top_p)._drawn(table, uniform)
            assert (odds.gather(1, drawn[:, None]) > 0).all()
            ranked = odds.sort(dim=1, descending=True)
            expected = ranked.values.cumsum(1).le(uniform + 1e-9).sum(1)
            near = (ranked.values.cumsum(1) - uniform).abs().min() < 1e-6
            assert near or torch.equal(drawn, ranked.indices.gather(1, expected[:, None])[:, 0])


def test_an_answer_under_a_grammar_is_one_of_its_sequences_and_each_has_its_share() -> None:
    """Drawn token by token among what is allowed: the softmax over the allowed tokens, at each place."""
    model = tiny_llama()
    sequences = [(10, 11, 2), (10, 12, 2), (20, 2), (30, 31, 32, 2)]
    choice = Choice(allowed=OneOf(sequences, SIZE))
    answers = generate(model, [PROMPTS[0]] * 200, max_tokens=6, ends=[2], choice=choice, responses=15)
    counts = Counter(answer for row in answers for answer in row)
    assert set(counts) == set(sequences)
    logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1]
    first = logits[[10, 20, 30]].softmax(0)
    second = model(torch.tensor([[*PROMPTS[0], 10]])).logits[0, -1][[11, 12]].softmax(0)
    for sequence, share in zip(sequences, [*(first[0] * second).tolist(), *first[1:].tolist()], strict=True):
        assert counts[sequence] / 3000 == pytest.approx(share, abs=0.04)


def test_grammars_are_met_together() -> None:
    rule = Both([ByPlace([[5, 6, 7], [2, 8]], SIZE), Banned([6, 7], SIZE), Banned([2], SIZE, until=2)])
    masks = [rule(torch.zeros(1, place, dtype=torch.int64))[0] for place in range(3)]
    assert [mask.nonzero()[:, 0].tolist() for mask in masks[:2]] == [[5], [8]]
    assert masks[2].sum() == SIZE - 2
    answers = generate(tiny_llama(), PROMPTS, max_tokens=4, ends=[2], choice=Choice(allowed=rule), responses=2)
    assert all(answer[:2] == (5, 8) for row in answers for answer in row)


def test_where_a_grammar_leaves_nothing_the_place_is_named() -> None:
    with pytest.raises(DataError, match=r"no token is allowed(.|\n)*\[20\]"):
        generate(tiny_llama(), PROMPTS[:1], max_tokens=4, ends=[2], choice=Choice(0.0, allowed=OneOf([(20,)], SIZE)))


def test_a_model_with_adapters_writes_too() -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny_llama()
    expected = generate(plain, PROMPTS, max_tokens=5, ends=[2], choice=GREEDY)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    assert generate(adapted, PROMPTS, max_tokens=5, ends=[2], choice=GREEDY) == expected
