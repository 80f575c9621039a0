"""Whatever is drawn within the grammar is a list that can be read, and every list can be drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.query_rec.test_interest_lists import LISTS as PLANNED
from tests.unit.training.query_rec.test_interest_lists import MADE, QUERIES, TRIGGERS
from training.core.prompts import FENCES
from training.query_rec.interest_lists import Interest, Interests
from training.query_rec.list_grammar import grammar_of
from training.query_rec.query_lists import QueryLists

FLAT = QueryLists(MADE, most=3, query_tokens=4)
SIZE = len(MADE) + 3
FORMS = [FLAT, PLANNED]


@pytest.mark.parametrize("lists", FORMS, ids=["flat", "planned"])
@given(seed=st.integers(0, 10**6), wordy=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_is_read(lists: Any, seed: int, wordy: float) -> None:
    """Also where words are unlikely, or nothing but words is likely."""
    rng, grammar, tokens = np.random.default_rng(seed), grammar_of(lists, SIZE), list[int]()
    words = set(MADE.encode_text("red pen desk lamp x"))
    while tokens[-1:] != [lists.end]:
        allowed = grammar(torch.tensor([tokens], dtype=torch.int64))[0].nonzero()[:, 0].tolist()
        some = [token for token in allowed if (token in words) == (rng.random() < wordy)]
        tokens.append(int(rng.choice(some or allowed)))
        assert len(tokens) <= lists.max_tokens
    assert lists.read(tuple(tokens)) is not None


@given(QUERIES)
def test_a_flat_list_can_be_drawn(queries: tuple[str, ...]) -> None:
    _can_be_drawn(FLAT, FLAT.written(queries))


@given(st.lists(st.builds(Interest, TRIGGERS, QUERIES), min_size=1, max_size=2).map(tuple))
def test_a_plan_can_be_drawn(found: tuple[Interest, ...]) -> None:
    _can_be_drawn(PLANNED, PLANNED.written(Interests("likes pens", found)))


def _can_be_drawn(lists: Any, answer: tuple[int, ...]) -> None:
    grammar = grammar_of(lists, SIZE)
    for place, token in enumerate(answer):
        assert grammar(torch.tensor([answer[:place]], dtype=torch.int64))[0, token]


@pytest.mark.parametrize("lists", FORMS, ids=["flat", "planned"])
def test_no_special_token_and_none_beyond_the_vocabulary_is_a_word(lists: Any) -> None:
    allowed = grammar_of(lists, SIZE)(torch.zeros(1, 0, dtype=torch.int64))[0]
    assert all(allowed[MADE.encode_text("pen")]) and not allowed[len(MADE) :].any()
    assert not allowed[[MADE.token(FENCES[0]), MADE.token("<d_0>"), lists.end]].any()
