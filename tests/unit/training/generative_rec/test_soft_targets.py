"""Soft targets: shares by hand, what they leave out, how many there are, and that drawing from them is unbiased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.generative_rec.test_tasks import BOS, CODES, CORPUS, EARLY, WRITER
from tests.unit.training.ranker_kit import view
from training.core.packing import Sample
from training.generative_rec.soft_targets import RankedConfig, SoftTarget, soft_targets, softened
from training.generative_rec.tasks import Mixture

IDS = [f"i{n}" for n in range(8)]
CHANCES = {"i1": 0.4, "i2": 0.1, "i5": 0.2}


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


def test_a_position_has_the_rankers_first_items_without_its_answer_and_what_is_unlikely() -> None:
    sequences = {"u0": ["i0", "i1", "i2"], "u1": ["i5"]}
    found = soft_targets(view(says, IDS), sequences, IDS, RankedConfig(top=2), seed=3)
    assert [(one.user, one.cut, one.items) for one in found] == [
        ("u0", 0, ("i1", "i5")),
        ("u0", 1, ("i5", "i2")),
        ("u0", 2, ("i1", "i5")),
        ("u1", 0, ("i1", "i2")),
    ]
    assert found[1].shares.tolist() == pytest.approx([2 / 3, 1 / 3])
    # An item without a semantic id is no target, and where nothing is likely there is none.
    (one, *_) = soft_targets(view(says, IDS), sequences, ["i2", "i3"], RankedConfig(), seed=3)
    assert one.items == ("i2",)
    assert soft_targets(view(lambda history, item: 0.0, IDS), sequences, IDS, RankedConfig(), seed=3) == []


def test_no_more_lists_are_asked_for_than_configured_and_the_seed_says_which() -> None:
    sequences = {f"u{n}": IDS[: 1 + n % 8] for n in range(40)}
    asked = list[Sequence[str]]()
    told = view(lambda history, item: asked.append(history) or 0.5, IDS)  # type: ignore[func-returns-value]
    one, same, other = (soft_targets(told, sequences, IDS, RankedConfig(prefixes=12), seed) for seed in (1, 1, 2))
    assert len(one) == 12 and len(asked) == 3 * 12 * len(IDS)
    places = [[(target.user, target.cut) for target in found] for found in (one, same, other)]
    assert places[0] == places[1] != places[2]


def test_a_ranked_sample_is_the_prompt_of_serving_and_an_item_of_the_ranker() -> None:
    only = np.ones(1)
    ranked = [
        SoftTarget("u0", 2, ("i5",), only),
        SoftTarget("u2", 0, ("i6",), only),
        SoftTarget("u0", 0, ("i7",), only),
    ]
    corpus = replace(CORPUS, ranked=ranked)
    samples = Mixture({"sequential": 0.0, "ranked": 1.0}, WRITER).epoch(corpus, (1, 0))
    assert set(samples) == {
        Sample((BOS, *EARLY["u0"], *CODES[0], *CODES[1]), CODES[5]),
        Sample((BOS,), CODES[6]),
        Sample((BOS,), CODES[7]),  # before any item nobody is named
    }


def drawn(shares: Sequence[float], epochs: int) -> Counter[tuple[int, ...]]:
    """How often each answer was drawn for one ranked position."""
    corpus = replace(CORPUS, ranked=[SoftTarget("u2", 1, ("i1", "i2", "i5"), np.array(shares))])
    mixture = Mixture({"sequential": 0.0, "ranked": 1.0}, WRITER)
    return Counter(sample.response for epoch in range(epochs) for sample in mixture.epoch(corpus, (1, epoch)))


def test_what_is_drawn_over_the_epochs_is_the_loss_over_all_of_the_list() -> None:
    """The mean loss of drawn answers is that of the equation, whatever each answer costs."""
    shares, epochs = [0.7, 0.2, 0.1], 3000
    costs: dict[tuple[int, ...], float] = {CODES[1]: 1.0, CODES[2]: 5.0, CODES[5]: 30.0}
    exact = 0.7 * 1.0 + 0.2 * 5.0 + 0.1 * 30.0
    deviation = (0.7 * 1.0 + 0.2 * 25.0 + 0.1 * 900.0 - exact**2) ** 0.5 / epochs**0.5

    def mean(counts: Counter[tuple[int, ...]]) -> float:
        return sum(costs[answer] * count for answer, count in counts.items()) / epochs

    assert abs(mean(drawn(shares, epochs)) - exact) < 4 * deviation
    assert abs(mean(drawn([1 / 3, 1 / 3, 1 / 3], epochs)) - exact) > 4 * deviation  # the check can fail


def test_the_weight_of_the_task_is_the_weight_of_the_lists() -> None:
    ranked = [SoftTarget("u2", 1, ("i1",), np.ones(1))] * 8
    for weight, count in ((0.5, 4), (1.0, 8), (2.5, 20)):
        mixture = Mixture({"sequential": 0.0, "ranked": weight}, WRITER)
        assert len(mixture.epoch(replace(CORPUS, ranked=ranked), (1, 0))) == count
