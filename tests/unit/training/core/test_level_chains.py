"""Chances of chained levels against `transformers`, every answer that there may be written out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from tests.unit.training.language_kit import tiny_llama
from tests.unit.training.peers import tiny_qwen
from training.core.errors import DataError
from training.core.level_chains import LevelChain, answer_chances, level_chances
from training.core.sequences import Tree

CHAIN = LevelChain(((3, 4, 5, 6, 7), (8, 9, 10), (8, 9, 11), (12, 13)))


@torch.no_grad()
def alone(model: PreTrainedModel, text: Sequence[int], chain: LevelChain) -> list[Tensor]:
    """Each answer read by itself from the first token; its probability is the product of its levels'."""
    found = [torch.zeros(len(levels)) for levels in chain.tokens]
    for answer in product(*(range(len(levels)) for levels in chain.tokens)):
        tokens = [levels[place] for levels, place in zip(chain.tokens, answer, strict=True)]
        logits = model(torch.tensor([[*text, *tokens]])).logits[0].float()
        steps = [
            logits[len(text) - 1 + k, list(levels)].softmax(-1)[place]
            for k, (levels, place) in enumerate(zip(chain.tokens, answer, strict=True))
        ]
        for k, place in enumerate(answer):
            found[k][place] += torch.stack(steps).prod()
    return found


tokens = st.lists(st.integers(0, 31), min_size=1, max_size=6).map(tuple)
levels = st.lists(st.integers(0, 31), min_size=1, max_size=3, unique=True).map(tuple)


@settings(max_examples=25)
@given(
    trees=st.lists(st.builds(Tree, tokens, st.lists(tokens, min_size=1, max_size=3).map(tuple)), max_size=3),
    chain=st.builds(LevelChain, st.lists(levels, min_size=1, max_size=3).map(tuple)),
    at_once=st.sampled_from([1, 40, 10_000]),
)
def test_chances_are_those_of_every_answer_written_out_however_many_are_read_at_once(
    trees: list[Tree], chain: LevelChain, at_once: int
) -> None:
    for model in (tiny_llama(seed=1), tiny_qwen(seed=1).eval()):
        for tree, found in zip(trees, level_chances(model, trees, chain, at_once), strict=True):
            for number, response in enumerate(tree.responses):
                for own, expected in zip(found, alone(model, tree.prompt + response, chain), strict=True):
                    assert own[number].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_later_level_is_weighed_over_all_earlier_ones_and_not_after_the_likeliest() -> None:
    model, tree = tiny_llama(seed=3), Tree((5, 60, 7), ((8, 9), (10,), (10, 11, 12, 2)))
    (found,) = level_chances(model, [tree], CHAIN)
    assert all(torch.allclose(own.sum(1), torch.ones(3), atol=1e-5) for own in found)
    text = tree.prompt + tree.responses[0]
    best = CHAIN.tokens[0][int(found[0][0].argmax())]
    after_best = alone(model, (*text, best), LevelChain(CHAIN.tokens[1:]))[0]
    assert not torch.allclose(found[1][0], after_best, atol=1e-3)
    assert torch.allclose(found[1][0], alone(model, text, CHAIN)[1], atol=1e-5)


def test_a_prompt_is_read_once_however_many_texts_follow_it() -> None:
    model, read = tiny_llama(), list[tuple[int, ...]]()
    model.get_decoder().embed_tokens.register_forward_hook(lambda _, given, __: read.append(tuple(given[0].shape)))
    trees = [Tree(tuple(range(20, 50)), tuple((n, n + 1) for n in range(40))), Tree((5, 6, 7), ((8,),))]
    level_chances(model, trees, CHAIN, tokens_at_once=1000)
    assert read[0] == (2, 30)
    # 40 texts of 2 tokens and one of 1, with 65 tokens of the tree behind each.
    assert sum(rows for rows, _ in read[1:]) == 41 and len(CHAIN.nodes) == 65
    assert all(rows * (30 + width) <= 1000 for rows, width in read[1:])


def test_a_model_with_adapters_answers_with_them() -> None:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted, tree = get_peft_model(tiny_llama(), settings).eval(), Tree((5, 6), ((7,),))
    (found,) = level_chances(adapted, [tree], CHAIN)
    assert [own[0].tolist() for own in found] == [
        pytest.approx(own.tolist(), abs=1e-5) for own in alone(adapted, (5, 6, 7), CHAIN)
    ]


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DataError, match="no levels"):
        LevelChain(((3,), ()))
    with pytest.raises(DataError, match="longer than the model"):
        level_chances(tiny_llama(), [Tree((5,) * 250, ((6,) * 4,))], CHAIN)
    assert level_chances(tiny_llama(), [], CHAIN) == []


def test_levels_are_the_margins_of_whole_answers_in_the_order_of_their_product() -> None:
    model, trees = tiny_llama(seed=3), [Tree((5, 60, 7), ((8, 9), (10,))), Tree((4, 4), ((9, 8, 7),))]
    sizes = [len(levels) for levels in CHAIN.tokens]
    whole = answer_chances(model, trees, CHAIN)
    for tree, answers, levels in zip(trees, whole, level_chances(model, trees, CHAIN), strict=True):
        joint = answers.view(len(tree.responses), *sizes)
        for k, own in enumerate(levels):
            others = [1 + place for place in range(len(sizes)) if place != k]
            assert torch.allclose(joint.sum(dim=others), own, atol=1e-6)
    # One answer, its levels multiplied by hand.
    text, answer, chance = trees[1].prompt + trees[1].responses[0], (4, 1, 2, 0), 1.0
    for levels, place in zip(CHAIN.tokens, answer, strict=True):
        chance *= float(alone(model, text, LevelChain((levels,)))[0][place])
        text = (*text, levels[place])
    assert float(whole[1].view(*sizes)[answer]) == pytest.approx(chance, abs=1e-6)
