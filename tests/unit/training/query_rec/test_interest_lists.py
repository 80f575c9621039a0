"""Interests as tokens: what is read, what each token is of, and what it earns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.core.policy.groups import Group, Request, Response
from training.core.policy.rewards import rewarded
from training.core.policy.variants.il_grpo import NO_SLOT
from training.core.prompts import FENCES
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.query_rec.interest_lists import BORDERS, Interest, InterestLists, Interests
from training.query_rec.prompts import special_tokens
from training.query_rec.query_lists import plain
from training.query_rec.rewards import References, list_terms, trigger_term

MADE = Vocabulary.create(train_text_tokenizer(["red pen desk lamp"], 300), {}, (*FENCES, *BORDERS, *special_tokens(6)))
LISTS = InterestLists(MADE, behaviours=6, most=2, queries=2, query_tokens=8, reason_tokens=10)
QUERIES = st.lists(st.sampled_from(["red pen", "lamp", "<to> desk", "x"]), min_size=1, max_size=2).map(tuple)
TRIGGERS = st.sets(st.integers(1, 6), min_size=1).map(lambda own: tuple(sorted(own)))
WORDS = st.sampled_from(["", "likes pens", "<plan>"])


def ids(text: str) -> tuple[int, ...]:
    """Borders by their names, words as words."""
    named = {name: MADE.token(name) for name in (*BORDERS, *special_tokens(6))}
    tokens = list[int]()
    for part in text.split("|"):
        tokens += [named[part]] if part in named else MADE.encode_text(part)
    return (*tokens, LISTS.end)


@given(WORDS, st.lists(st.builds(Interest, TRIGGERS, QUERIES), min_size=1, max_size=2).map(tuple))
def test_what_is_written_is_read(reasons: str, found: tuple[Interest, ...]) -> None:
    written = LISTS.written(Interests(reasons, found))
    assert len(written) <= LISTS.max_tokens
    assert LISTS.read(written) == Interests(plain(reasons), found)


@pytest.mark.parametrize(
    "text",
    [
        "why|<n_1>|<to>|pen",  # no plan
        "why|<plan>|<plan>|<n_1>|<to>|pen",
        "why|<plan>|<to>|pen",  # no triggers
        "why|<plan>|<n_1>|<to>",  # no queries
        "why|<plan>|<n_1>|pen",
        "why|<plan>|<n_2>|<n_1>|<to>|pen",  # triggers fall
        "why|<plan>|<n_1>|<n_1>|<to>|pen",
        "why|<plan>|<n_1>|<to>|pen|<next>|ink|<next>|lamp",  # three queries
        "why|<plan>|<n_1>|<to>|pen|<and>|<n_2>|<to>|ink|<and>|<n_3>|<to>|lamp",  # three interests
        "why|<plan>|<n_1>|<to>|pen|<and>",
        "why|<plan>|red|<to>|pen",
        "why|<plan>|<n_1>|<to>|pen <|<n_2>",
        "xxxxxxxxxxx|<plan>|<n_1>|<to>|pen",  # eleven tokens of reasons
    ],
)
def test_what_is_no_answer_is_none_and_of_no_slot(text: str) -> None:
    tokens = ids(text)
    assert LISTS.read(tokens) is None and LISTS.read(tokens[:-1]) is None
    for slots in (LISTS.query_slots, LISTS.trigger_slots):
        assert slots(Response(tokens, ())) == [NO_SLOT] * len(tokens)


def test_each_token_is_of_a_query_of_triggers_or_of_the_whole() -> None:
    answer = Interests("x", (Interest((1, 3), ("x", "y")), Interest((2,), ("z",))))
    response = Response(LISTS.written(answer), ())
    none = NO_SLOT
    #            x     plan  n1    n3    to    x  next y  and n2    to    z  end
    assert LISTS.query_slots(response) == [none, none, none, none, none, 0, 0, 1, 1, none, none, 2, none]
    assert LISTS.trigger_slots(response) == [none, none, 0, 0, 0, none, none, none, none, 1, 1, none, none]


def test_triggers_and_queries_are_compared_with_those_at_their_place() -> None:
    """The second interest of an answer is another one than the second query of the first."""
    answers = [
        Interests("", (Interest((1, 3), ("pen",)), Interest((2,), ("lamp",)))),
        Interests("", (Interest((1, 2, 3), ("pen", "ink")),)),
    ]
    wanted = References({0: "pen", 1: "ink", 2: "lamp"}, ((1, 3),))
    broken = Response(ids("why|<plan>|<n_1>|<to>"), ())
    responses = (*(Response(LISTS.written(one), ()) for one in answers), broken)
    (found,) = rewarded([Group(Request((), wanted), responses)], [trigger_term(LISTS), *list_terms(LISTS)], 0.0)
    nan = float("nan")
    expected = torch.tensor([[1.0, 0.0], [0.8, nan], [nan, nan]])
    assert torch.allclose(found.rewards["trigger"].value, expected, equal_nan=True)
    assert found.rewards["format"].value.tolist() == [0.0, 0.0, -1.0]
    assert torch.allclose(found.rewards["found"].value, torch.tensor([2 / 3, 2 / 3, 0.0]))
    assert LISTS.queries_of(responses[0].tokens) == {0: "pen", 2: "lamp"}
