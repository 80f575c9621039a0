"""The catalogue trie: every item is a leaf, every leaf an item, and bad catalogues are refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import DataError
from training.core.trie import NO_ITEM, DeadPrefix, Trie

catalogues = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40, unique=True)


@given(catalogues)
def test_every_item_is_found_by_its_own_tokens(items: list[tuple[int, ...]]) -> None:
    trie = Trie.build(items)
    assert [trie.item_of(tokens) for tokens in items] == list(range(len(items)))


@given(catalogues, st.lists(st.lists(st.integers(0, 6), min_size=4, max_size=4), min_size=1, max_size=20))
def test_whatever_was_written_is_the_item_that_it_begins_with_or_none(
    items: list[tuple[int, ...]], written: list[list[int]]
) -> None:
    shortened = [item[:2] if sum(other[:2] == item[:2] for other in items) == 1 else item for item in items]
    found = Trie.build(shortened).items_of(torch.tensor([*written, *([*item, 5, 5][:4] for item in shortened)]))
    begins = [
        next((n for n, item in enumerate(shortened) if tuple(row[: len(item)]) == item), NO_ITEM) for row in written
    ]
    assert found.tolist() == [*begins, *range(len(items))]


@given(catalogues)
def test_leaves_are_exactly_the_items_and_all_other_nodes_have_children(items: list[tuple[int, ...]]) -> None:
    trie = Trie.build(items)
    children = trie.first_child[1:] - trie.first_child[:-1]
    assert sorted(trie.item[trie.item != NO_ITEM].tolist()) == list(range(len(items)))
    assert torch.equal(trie.item == NO_ITEM, children > 0)


def test_a_hand_worked_trie_numbers_its_nodes_breadth_first() -> None:
    trie = Trie.build([[5, 8], [4, 9], [5, 7, 1]])
    assert trie.token[1:].tolist() == [4, 5, 9, 7, 8, 1]
    assert trie.first_child.tolist() == [1, 3, 4, 6, 6, 7, 7, 7]
    assert trie.item.tolist() == [-1, -1, -1, 1, -1, 0, 2]


def test_children_of_several_nodes_are_as_wide_as_the_fullest_of_them() -> None:
    trie = Trie.build([[5, 8], [4, 9], [5, 7, 1]])
    child, real = trie.children(torch.tensor([[0, 1], [2, 3]]))
    assert child.tolist() == [[[1, 2], [3, 0]], [[4, 5], [0, 0]]]
    assert real.tolist() == [[[True, True], [True, False]], [[True, True], [False, False]]]


def test_a_prefix_that_no_item_begins_with_raises() -> None:
    trie = Trie.build([[1, 2], [1, 3]])
    with pytest.raises(DeadPrefix, match=r"\[1, 4\]"):
        trie.walk([1, 4, 5])


def test_tokens_that_stop_short_of_an_item_are_not_an_item() -> None:
    with pytest.raises(DeadPrefix, match="stop short"):
        Trie.build([[1, 2], [1, 3]]).item_of([1])


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "catalogue is empty"),
        ([[1, 2], []], "item 1 has no tokens"),
        ([[3], [1, 2], [1, 2]], "items 1 and 2 have the same codes"),
        ([[1, 2, 3], [1, 2]], "codes of item 1 begin those of another"),
    ],
)
def test_a_catalogue_whose_leaves_are_not_single_items_is_refused(items: list[list[int]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Trie.build(items)
