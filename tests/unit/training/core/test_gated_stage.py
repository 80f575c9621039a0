"""The gate of a stage that trains a model further: what it refuses, and that small losses do not add up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from training.core.gated_stage import GatedStage, Known, StageGate, Verdict
from training.core.stage import StageSpec


def held(before: list[float], after: list[float], base: list[float] | None = None, **gate: float) -> Verdict:
    """The verdict on gains of the users `u0`, `u1`, ..., one example each."""
    spec = StageSpec("toy", "stage", "out", 3, {}, {}, {})
    units = [f"u{n}" for n in range(len(after))]
    gains = Known(np.array(before), None), np.array(before if base is None else base)
    stage = GatedStage(spec, StageGate(**gate), Path("start"), "ndcg@10", units, "", *gains)
    return stage.hold(np.array(after), 1.0)


def test_a_loss_that_chance_explains_is_refused_only_where_it_may_be_a_large_one() -> None:
    # One question in ten falls from 1 to 0.5: a mean of -0.05, and a resample has a binomial number of such users.
    before, few = [1.0] * 10_000, [1.0] * 9_000 + [0.5] * 1_000
    lost = held(before, few)
    # sd of the mean: 0.5 * sqrt(0.1 * 0.9 / 10000) = 0.0015; 1.645 of them below -0.05.
    assert lost.difference == pytest.approx(-0.05)
    assert lost.difference_lo == pytest.approx(-0.05 - 1.645 * 0.0015, abs=0.0003)
    assert lost.reason == "ndcg@10 1.0000 to 0.9500, at worst -5.2% (95%), more than 5% allowed" and not lost.accepted
    assert held(before, few, max_loss=0.06).accepted
    # The same loss of fewer users is less sure: five of fifty, sd 0.021, at worst -0.085.
    fewer = [1.0] * 45 + [0.5] * 5
    assert not held(before[:50], fewer, max_loss=0.06).accepted and held(before[:50], fewer, max_loss=0.1).accepted


def test_a_gate_pairs_the_answers_to_a_question() -> None:
    # Gains differ wildly between questions, and each is but a hair lower than before: unpaired, that would be nothing.
    before = [1.0, 0.0] * 50
    assert held(before, [gain * 0.99 for gain in before]).accepted
    # The other half of the questions is answered: the same mean, and nobody knows.
    assert not held(before, before[::-1]).accepted


def test_losses_that_each_are_small_enough_do_not_add_up_along_a_chain() -> None:
    """Five stages of -4.5 %: each would pass against the one below, and the last would be 21 % below the base."""
    base = [1.0, 0.5, 0.0] * 100
    model, stood = base, list[bool]()
    for _ in range(5):
        trained = [gain * 0.955 for gain in model]
        assert held(model, trained).accepted
        verdict = held(model, trained, base)
        stood.append(verdict.accepted)
        model = trained if verdict.accepted else model
    assert stood == [True, False, False, False, False]
    # -8.8 %, and 1.645 standard errors (-9.5 %): losses of 0.088, 0.044 and 0 deviate by 0.036, 0.0021 over 300.
    assert verdict.reason.startswith("ndcg@10 from the base of the chain 0.5000 to 0.4560, at worst -9.4% (95%)")
    assert verdict.base == 0.5 and sum(model) / sum(base) == pytest.approx(0.955)
    # What a stage has gained may be lost again.
    assert held([gain * 1.04 for gain in base], base, base).accepted


def test_a_gate_refuses_what_is_no_number_and_decides_the_same_again() -> None:
    assert not held([0.1] * 10, [math.nan] * 10).accepted
    assert held([0.0] * 10, [0.0] * 10).accepted  # a start that knows nothing has nothing to lose
    noise = list(np.random.default_rng(1).random(200))
    assert held(noise, noise[::-1]) == held(noise, noise[::-1])
