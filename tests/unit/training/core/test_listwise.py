"""Soft targets over responses: by hand, against single responses, drawn, refused, and learnt."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.alignment_runs import LOOP
from tests.unit.training.peers import tiny_qwen
from training.core.errors import DataError
from training.core.listwise import Listed, ListwiseObjective
from training.core.loop import Loop, NextToken
from training.core.packing import Sample

OBJECTIVE = ListwiseObjective()
LISTS = [
    Listed((5, 6, 7), ((8, 9, 2), (10, 2)), (0.25, 0.75)),
    Listed((15, 6), ((8, 2), (10, 20, 11, 2), (9, 2)), (0.5, 0.3, 0.2)),
    Listed((9,), ((30, 2),), (1.0,)),
]


def test_the_loss_is_the_share_of_each_response_times_its_own_negative_log_probability() -> None:
    model, alone = tiny_qwen(1).eval(), NextToken()
    loss, logged = OBJECTIVE.loss(model, OBJECTIVE.collate([LISTS[:2], LISTS[2:]], 32, 0))
    expected = 0.0
    for one in LISTS:
        for response, share in zip(one.responses, one.shares, strict=True):
            expected += share * alone.loss(model, alone.collate([[Sample(one.prompt, response)]], 16, 0))[0].item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    entropies = -sum(share * math.log(share) for one in LISTS for share in one.shares)
    assert logged["entropy"].item() == pytest.approx(entropies, rel=1e-6)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 99))
def test_draws_are_of_the_list_and_their_shares_are_of_one_whole(shares: list[float], count: int, seed: int) -> None:
    whole = [share / sum(shares) for share in shares]
    one = Listed((1,), tuple((10 + n,) for n in range(len(whole))), tuple(whole))
    drawn = one.drawn(count, np.random.default_rng(seed))
    assert set(drawn.responses) <= set(one.responses) and len(drawn.responses) <= count
    times = [share * count for share in drawn.shares]
    assert times == pytest.approx([max(1, round(time)) for time in times])
    assert drawn == one.drawn(count, np.random.default_rng(seed))


def test_what_is_drawn_has_the_shares_of_the_list_in_the_mean() -> None:
    rng, counts, epochs = np.random.default_rng(1), Counter[tuple[int, ...]](), 4000
    for _ in range(epochs):
        drawn = LISTS[1].drawn(4, rng)
        counts.update(dict(zip(drawn.responses, drawn.shares, strict=True)))  # type: ignore[arg-type]
    for response, share in zip(LISTS[1].responses, LISTS[1].shares, strict=True):
        deviation = math.sqrt(share * (1.0 - share) / (4 * epochs))
        assert abs(counts[response] / epochs - share) < 4 * deviation
    assert abs(counts[LISTS[1].responses[0]] / epochs - 1 / 3) > 0.1  # the check can fail


@pytest.mark.parametrize(
    ("responses", "shares"),
    [
        (((1,), (1,)), (0.5, 0.5)),
        (((1,), (2,)), (1.0,)),
        (((1,), (2,)), (0.5, 0.6)),
        (((1,), (2,)), (1.0, 0.0)),
        (((1,), (2,)), (1.5, -0.5)),
        (((1,), (2,)), (math.nan, 1.0)),
    ],
)
def test_a_list_that_is_none_is_refused(responses: tuple[tuple[int, ...], ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match=r"a response stands twice|the shares of a list"):
        Listed((5,), responses, shares)


def test_a_model_learns_the_shares(tmp_path: Path) -> None:
    """Down to the entropy of the shares, which no model beats."""
    model = tiny_qwen(1)
    config = replace(LOOP, epochs=60, patience=60, learning_rate=0.01)
    loop = Loop(model, 0, config, 3, tmp_path, run="r", objective=OBJECTIVE)
    loop.train(lambda _: LISTS, LISTS)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "loss" in line][-1]
    assert last["entropy"] <= last["loss"] < last["entropy"] + 0.1
