"""Codes of items: one leaf each, by definition of the quantizer, deterministic for a seed."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.core.trie import Trie
from training.generative_rec.quantizers import ResidualKMeans, codebook_report, unique_leaves

CODES = st.integers(1, 3).flatmap(
    lambda levels: st.lists(st.tuples(*[st.integers(0, 2)] * levels), min_size=1, max_size=40)
)


@given(CODES)
def test_every_item_has_a_leaf_of_its_own_whatever_collides(codes: list[tuple[int, ...]]) -> None:
    leaves = unique_leaves(np.array(codes, dtype=np.int32), [str(n) for n in range(len(codes))])
    trie = Trie.build(leaves)
    assert [trie.item_of(leaf) for leaf in leaves] == list(range(len(codes)))
    assert all(tuple(leaf[: len(code)]) == code for leaf, code in zip(leaves, codes, strict=True))


@given(CODES, st.randoms())
def test_leaves_do_not_depend_on_the_order_of_the_items(codes: list[tuple[int, ...]], random: Random) -> None:
    ids = [f"item-{n}" for n in range(len(codes))]
    order = list(range(len(codes)))
    random.shuffle(order)
    straight = unique_leaves(np.array(codes), ids)
    shuffled = unique_leaves(np.array(codes)[order], [ids[n] for n in order])
    assert shuffled == [straight[n] for n in order]


def test_only_items_of_a_collision_get_a_further_code() -> None:
    leaves = unique_leaves(np.array([[1, 2], [1, 3], [1, 2]]), ["c", "b", "a"])
    assert leaves == [[1, 2, 1], [1, 3], [1, 2, 0]]


def test_the_report_counts_collisions_before_they_are_resolved() -> None:
    report = codebook_report(np.array([[0, 0], [0, 0], [0, 1], [1, 0]]), size=4)
    assert report["collision_rate"] == pytest.approx(1 - 3 / 4)
    assert report["usage.level_1"] == pytest.approx(2 / 4)
    # shares 3/4 and 1/4: entropy 0.5623 nats
    assert report["perplexity.level_1"] == pytest.approx(np.exp(0.562335), rel=1e-5)


def test_well_apart_groups_get_a_first_code_each() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = centres.repeat_interleave(20, dim=0) + 0.1 * torch.randn(
        60, 2, generator=torch.Generator().manual_seed(1)
    )
    quantizer = ResidualKMeans(levels=1, codes=3, width=2, seed=4)
    quantizer.fit(vectors)
    codes = quantizer.encode(vectors)[:, 0].reshape(3, 20)
    assert [len(set(group)) for group in codes.tolist()] == [1, 1, 1]
    assert len(set(codes[:, 0].tolist())) == 3


def test_each_level_brings_the_sum_of_codes_nearer_to_the_vector() -> None:
    vectors = torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    quantizer = ResidualKMeans(levels=3, codes=16, width=8, seed=4)
    quantizer.fit(vectors)
    codes, state = quantizer.encode(vectors), quantizer.state()
    residual = (vectors - state["mean"]) @ state["axes"]
    norms = [residual.square().sum()]
    for level in range(3):
        residual = residual - state[f"codebook.{level}"][codes[:, level]]
        norms.append(residual.square().sum())
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 0.3 * norms[0]


def test_the_same_seed_gives_the_same_codes() -> None:
    vectors = torch.randn(100, 8, generator=torch.Generator().manual_seed(1))
    first, second = (ResidualKMeans(levels=2, codes=8, width=4, seed=9) for _ in range(2))
    first.fit(vectors)
    second.fit(vectors)
    assert np.array_equal(first.encode(vectors), second.encode(vectors))


def test_fewer_items_than_codes_is_no_error() -> None:
    vectors = torch.eye(3)
    quantizer = ResidualKMeans(levels=2, codes=256, width=32, seed=1)
    quantizer.fit(vectors)
    assert len(np.unique(quantizer.encode(vectors)[:, 0])) == 3


def test_equal_vectors_are_quantized_and_collide() -> None:
    vectors = torch.ones(10, 4)
    quantizer = ResidualKMeans(levels=2, codes=4, width=4, seed=1)
    quantizer.fit(vectors)
    assert codebook_report(quantizer.encode(vectors), 4)["collision_rate"] == pytest.approx(0.9)
