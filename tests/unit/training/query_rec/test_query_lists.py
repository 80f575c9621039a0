"""Lists of queries as tokens, and which query each token is of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.core.policy.groups import Response
from training.core.policy.variants.il_grpo import NO_SLOT
from training.core.prompts import FENCES
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.query_rec.query_lists import NEXT, QueryLists, plain

VOCABULARY = Vocabulary.create(train_text_tokenizer(["red pen desk lamp"], 300), {}, (*FENCES, NEXT))
LISTS = QueryLists(VOCABULARY, most=3, query_tokens=8)
END, BETWEEN = LISTS.end, LISTS.next


def tokens(text: str) -> tuple[int, ...]:
    return tuple(VOCABULARY.encode_text(text))


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6))
def test_what_is_written_is_read_cut_and_in_its_order(queries: list[str]) -> None:
    """Whatever people type, the names of special tokens too."""
    written, read = LISTS.written(queries), LISTS.read(LISTS.written(queries))
    assert len(written) <= LISTS.max_tokens
    cut = [VOCABULARY.tokenizer.decode(tokens(query)[:8]) for query in queries[:3]]
    assert read == (tuple(map(plain, cut)) if all(map(plain, cut)) else None)


def test_borders_cannot_be_spelt() -> None:
    assert LISTS.read(LISTS.written([NEXT, "a"])) == (NEXT, "a")


def test_what_is_no_list_is_none() -> None:
    pen, lamp = tokens("pen"), tokens("lamp")
    assert LISTS.read((*pen, BETWEEN, *lamp, END)) == ("pen", "lamp")
    no_lists = [
        (),
        (END,),
        (*pen, BETWEEN, *lamp),  # no end
        (*pen, BETWEEN, END),  # an empty query
        (*pen, BETWEEN, *tokens("  "), END),
        (*pen, END, *lamp, END),
        (*pen, VOCABULARY.token(FENCES[0]), END),
        (*tokens("x" * 9), END),  # nine tokens
        (*pen, BETWEEN, *pen, BETWEEN, *pen, BETWEEN, *pen, END),  # four queries
    ]
    assert [LISTS.read(one) for one in no_lists] == [None] * len(no_lists)


def test_a_separator_is_of_the_query_that_it_ends_and_the_end_of_none() -> None:
    pen, lamp = tokens("red pen"), tokens("lamp")
    written = (*pen, BETWEEN, *lamp, END)
    assert LISTS.slots(Response(written, ())) == [0] * (len(pen) + 1) + [1] * len(lamp) + [NO_SLOT]
    broken = (*pen, BETWEEN, END)
    assert LISTS.slots(Response(broken, ())) == [NO_SLOT] * len(broken)
