"""Rejected items: levels by shared leading codes or by the ranker, the truth left out, few negatives dropped, silence
no dislike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.unit.training.conftest import TINY
from tests.unit.training.ranker_kit import view
from training.core.backbone import build_backbone
from training.core.decoding import beam_search
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.negatives import (
    FIRST,
    SHARED,
    Choice,
    Level,
    depth_shared,
    ranker_rejects,
    real_feedback,
    self_play,
    shared_codes,
)
from training.generative_rec.validation import Example

VOCABULARY = Vocabulary.create(train_text_tokenizer(["pen"], 260), {"item": (3, 3, 3, 2)})
TABLE = VOCABULARY.code_table("item")
# 26 items of three codes; the last pair of codes (2, 2, 2) is shared by two items, which have a fourth.
NUMBERS = [*[(a, b, c) for a in range(3) for b in range(3) for c in range(3)][:26], (2, 2, 2, 0), (2, 2, 2, 1)]
ITEMS = ItemCodes(
    tuple(f"i{n}" for n in range(len(NUMBERS))),
    tuple(tuple(TABLE[level][code] for level, code in enumerate(row)) for row in NUMBERS),
    VOCABULARY,
)
BOS = VOCABULARY.tokenizer.bos_token_id
EXAMPLES = [Example(f"u{n}", (BOS, *ITEMS.tokens[n]), (7 * n + 3) % len(NUMBERS)) for n in range(12)]


@pytest.fixture(scope="module")
def policy() -> PreTrainedModel:
    return build_backbone(TINY, VOCABULARY, seed=2).eval()


def leading(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            return count
        count += 1
    return count


@given(st.integers(0, 27), st.lists(st.integers(0, 27), min_size=1, max_size=9))
def test_depth_counts_leading_codes_up_to_the_first_mismatch(truth: int, candidates: list[int]) -> None:
    found = depth_shared(shared_codes(ITEMS), torch.tensor([candidates]), torch.tensor([truth]))[0].tolist()
    for depth, candidate in zip(found, candidates, strict=True):
        if candidate != truth:
            assert depth == leading(NUMBERS[candidate], NUMBERS[truth])


def test_equal_codes_after_a_mismatch_do_not_count() -> None:
    truth, other = NUMBERS.index((0, 1, 2)), NUMBERS.index((1, 1, 2))
    assert depth_shared(shared_codes(ITEMS), torch.tensor([[other]]), torch.tensor([truth])).item() == 0


@pytest.mark.parametrize("level", ["easy", "medium", "hard", "mixed"])
def test_negatives_are_the_policys_own_wrong_answers_of_that_level_in_its_order(
    policy: PreTrainedModel, level: str
) -> None:
    found = self_play(policy, ITEMS, EXAMPLES, level, Choice(most=4, least=1, beams=20))  # type: ignore[arg-type]
    by_prompt = {sample.prompt: sample for sample in found.kept}
    beams = beam_search(policy, ITEMS.trie, [one.prompt for one in EXAMPLES], 20)
    low, high = SHARED[level]  # type: ignore[index]
    for question, row in zip(EXAMPLES, beams.items.tolist(), strict=True):
        truth = NUMBERS[question.item]
        wrong = [n for n in row if n != question.item and low <= leading(NUMBERS[n], truth) < high]
        if wrong:
            sample = by_prompt[question.prompt]
            assert sample.chosen == ITEMS.tokens[question.item]
            assert sample.rejected == tuple(ITEMS.tokens[n] for n in wrong[:4])
        else:
            assert question.prompt not in by_prompt


def test_an_item_that_shares_all_codes_but_the_last_is_hard(policy: PreTrainedModel) -> None:
    first, second = len(NUMBERS) - 2, len(NUMBERS) - 1
    asked = [Example("u", (BOS,), first)]
    ((sample,), _) = self_play(policy, ITEMS, asked, "hard", Choice(least=1, beams=len(NUMBERS)))
    assert ITEMS.tokens[second] in sample.rejected and ITEMS.tokens[first] not in sample.rejected


def test_a_question_with_too_few_negatives_is_dropped_and_counted(policy: PreTrainedModel) -> None:
    kept, dropped = self_play(policy, ITEMS, EXAMPLES, "hard", Choice(least=2, beams=28))
    assert kept and all(len(sample.rejected) >= 2 for sample in kept)
    assert len(kept) + dropped == len(EXAMPLES)
    assert self_play(policy, ITEMS, EXAMPLES, "hard", Choice(least=4, beams=28)) == ([], len(EXAMPLES))


def test_easy_feedback_rejects_what_was_disliked_and_hard_what_left_cold() -> None:
    said = [("u0", "i3", "liked"), ("u0", "i5", "disliked"), ("u0", "i6", "neutral"), ("u0", "i7", "unknown")]
    choice = Choice(least=1)
    ((easy,), _) = real_feedback(ITEMS, EXAMPLES, said, "easy", choice)
    ((hard,), _) = real_feedback(ITEMS, EXAMPLES, said, "hard", choice)
    assert (easy.chosen, easy.rejected) == (ITEMS.tokens[3], (ITEMS.tokens[5],))
    assert (hard.chosen, hard.rejected) == (ITEMS.tokens[3], (ITEMS.tokens[6],))


def test_what_was_ever_liked_is_rejected_nowhere_and_a_target_not_liked_is_no_choice() -> None:
    said = [("u0", "i3", "liked"), ("u0", "i5", "disliked"), ("u0", "i5", "liked"), ("u1", "i10", "neutral")]
    # One question has a liked target, and nothing to reject; the others are none to learn from.
    assert real_feedback(ITEMS, EXAMPLES, said, "easy", Choice(least=1)) == ([], 1)
    assert real_feedback(ITEMS, EXAMPLES, [*said, ("u1", "i4", "disliked")], "easy", Choice(least=1)) == ([], 1)


LEVELS: tuple[Level, ...] = ("easy", "hard", "mixed")


def chance(history: Sequence[str], item: str) -> float:
    """Halved from item to item, starting from the one after the last of the history."""
    return 0.8 * 0.5 ** ((int(item[1:]) - int(history[-1][1:]) - 1) % len(NUMBERS))


@pytest.mark.parametrize("level", list(FIRST))
def test_the_ranker_rejects_of_the_policys_own_answers_what_is_unlikely_beside_the_likeliest(
    policy: PreTrainedModel, level: Level
) -> None:
    asked = [replace(one, history=("i9", f"i{n}")) for n, one in enumerate(EXAMPLES)]
    found = ranker_rejects(policy, ITEMS, asked, view(chance), level, Choice(most=4, least=1, beams=20))
    by_prompt = {sample.prompt: sample for sample in found.kept}
    beams = beam_search(policy, ITEMS.trie, [one.prompt for one in asked], 20)
    for question, row in zip(asked, beams.items.tolist(), strict=True):
        gives = {n: chance(question.history, f"i{n}") for n in row if n != question.item}
        unlikely = [n for n, given in gives.items() if given < max(gives.values()) / 2]
        if level == "easy":
            unlikely.sort(key=gives.__getitem__)
        elif level == "hard":
            unlikely.sort(key=gives.__getitem__, reverse=True)
        sample = by_prompt[question.prompt]
        assert sample.chosen == ITEMS.tokens[question.item]
        assert sample.rejected == tuple(ITEMS.tokens[n] for n in unlikely[:4])
    assert (len(found.kept), found.dropped) == (len(asked), 0)


def test_of_equally_unlikely_answers_the_policys_first_are_rejected_first(policy: PreTrainedModel) -> None:
    told, choice = view(lambda history, item: 0.8 if item == "i0" else 0.1), Choice(most=4, least=1, beams=28)
    easy, hard, mixed = (ranker_rejects(policy, ITEMS, EXAMPLES, told, level, choice) for level in LEVELS)
    assert easy == hard == mixed and easy.kept


def test_what_the_ranker_does_not_know_or_finds_all_alike_is_not_rejected(policy: PreTrainedModel) -> None:
    choice = Choice(least=1, beams=28)
    for alike in (float("nan"), 0.3):
        told = view(lambda history, item, alike=alike: alike)  # type: ignore[misc]
        assert ranker_rejects(policy, ITEMS, EXAMPLES, told, "mixed", choice) == ([], len(EXAMPLES))
    known = view(lambda history, item: 0.0 if item == "i2" else float("nan") if item == "i4" else 0.3)
    for sample in ranker_rejects(policy, ITEMS, EXAMPLES, known, "easy", choice).kept:
        assert sample.rejected == (ITEMS.tokens[2],)
