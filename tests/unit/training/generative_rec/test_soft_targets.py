"""Soft targets: shares by hand, what stands in no list, the item that was taken beside them, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.ranker_kit import view
from training.generative_rec.soft_targets import Asked, RankedConfig, asked_of, soft_targets, softened

IDS = [f"i{n}" for n in range(8)]
CHANCES = {"i1": 0.4, "i2": 0.1, "i5": 0.2}
NOBODY = frozenset[str]()


def says(history: Sequence[str], item: str) -> float:
    return CHANCES.get(item, 0.0)


def test_shares_by_hand() -> None:
    assert softened([0.4, 0.1], 1.0).tolist() == pytest.approx([0.8, 0.2])
    assert softened([0.4, 0.1], 0.5).tolist() == pytest.approx([16 / 17, 1 / 17])  # squares
    assert softened([0.4, 0.1], 2.0).tolist() == pytest.approx([2 / 3, 1 / 3])  # roots
    assert softened([1e-300, 0.0], 0.01).tolist() == [1.0, 0.0]  # nothing is lost below the smallest number


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=9), st.floats(0.1, 10.0))
def test_shares_are_of_one_whole_and_keep_the_rankers_order(chances: list[float], temperature: float) -> None:
    shares = softened(chances, temperature)
    assert shares.sum() == pytest.approx(1.0) and (shares >= 0.0).all()
    assert (np.diff(shares[np.argsort(chances)]) >= -1e-12).all()
    assert softened(chances, 2.0 * temperature).max() <= shares.max() + 1e-12


def test_the_end_of_a_sequence_has_the_rankers_first_items() -> None:
    (found,) = soft_targets(
        view(says, IDS), [Asked("u", ("i0",), None, NOBODY)], IDS, RankedConfig(top=2, temperature=1.0)
    )
    assert found.items == ("i1", "i5") and found.shares.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_what_was_taken_has_its_weight_and_what_was_taken_later_stands_in_no_list() -> None:
    asked = [Asked("u", ("i0",), "i5", frozenset({"i1", "i5"})), Asked("u", (), "i3", frozenset({"i3"}))]
    one, other = soft_targets(view(says, IDS), asked, IDS, RankedConfig(top=2, temperature=1.0, truth=0.4))
    assert one.items == ("i5", "i2") and one.shares.tolist() == pytest.approx([0.4, 0.6])
    # 0.6 of 0.4 : 0.2
    assert other.items == ("i3", "i1", "i5") and other.shares.tolist() == pytest.approx([0.4, 0.4, 0.2])
    without, _ = soft_targets(view(says, IDS), asked, IDS, RankedConfig(top=2, temperature=1.0, truth=0.0))
    assert without.items == ("i2",) and without.shares.tolist() == [1.0]


def test_where_no_other_item_is_likely_there_is_no_list() -> None:
    asked = [Asked("u", (), "i1", frozenset(CHANCES)), Asked("v", (), None, NOBODY)]
    # An item without a semantic id is no target.
    (one,) = soft_targets(view(says, IDS), asked, ["i2", "i3"], RankedConfig())
    assert (one.asked.user, one.items) == ("v", ("i2",))


def test_a_small_temperature_leaves_the_first_item_alone() -> None:
    (found,) = soft_targets(view(says, IDS), [Asked("u", (), None, NOBODY)], IDS, RankedConfig(temperature=0.0005))
    assert found.items == ("i1",) and found.shares.tolist() == [1.0]


def test_asked_are_the_ends_of_as_many_sequences_as_configured_and_the_histories_that_are_not_empty() -> None:
    sequences = {f"u{n}": IDS[: 1 + n % 8] for n in range(40)}
    samples = [("u3", ("i0",), "i1", {"user_daily__n": 1.0}), ("u4", (), "i0", {})]
    one, same, other = (asked_of(sequences, samples, 12, seed) for seed in (1, 1, 2))
    assert one == same != other and len(one) == 13
    assert all(ask.history == tuple(sequences[ask.user]) and not ask.later for ask in one[:12])
    assert one[12] == Asked("u3", ("i0",), "i1", frozenset({"i1", "i2", "i3"}), {"user_daily__n": 1.0})
    (end,) = asked_of({"u3": IDS[:4]}, [], 1, 1, {"u3": {"user_daily__n": 2.0}})
    assert end == Asked("u3", tuple(IDS[:4]), None, NOBODY, {"user_daily__n": 2.0})
    again = ("u3", ("i0", "i1", "i2", "i3"), "i0", {})  # what is taken again is the answer
    assert asked_of(sequences, [again], 0, 1) == [Asked("u3", again[1], "i0", frozenset({"i0"}))]
