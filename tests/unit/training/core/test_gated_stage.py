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
    stage = GatedStage(spec, StageGate(**gate), Path("start"), ("ndcg@10",), units, "", *gains)
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


def test_a_model_is_held_by_each_metric_on_the_examples_that_have_a_gain_by_it() -> None:
    nothing = math.nan
    before = np.array([[0.8, 0.9], [0.8, nothing]] * 100)
    units = [f"u{n}" for n in range(len(before))]
    spec = StageSpec("toy", "stage", "out", 3, {}, {}, {})
    known = Known(before, None), before
    stage = GatedStage(spec, StageGate(), Path("start"), ("point_acc", "pair_auc"), units, "", *known)
    better = stage.hold(before + np.array([0.1, 0.0]), 1.0)
    assert better.accepted and (better.before, better.after) == pytest.approx((0.8, 0.9))
    worse = stage.hold(before + np.array([0.1, -0.2]), 1.0)
    assert worse.reason == "pair_auc 0.9000 to 0.7000, at worst -22.2% (95%), more than 5% allowed"
    # A gain that is gone is no reason to leave the example out.
    gone = stage.hold(np.array([[0.8, nothing], [0.8, nothing]] * 100), 1.0)
    assert not gone.accepted and gone.reason.startswith("pair_auc 0.9000 to nan")


def test_what_is_known_of_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    gains = np.array([[0.8, math.nan], [0.7, 0.5]])
    asked = [("a", 1), ("b", 2)]

    def stage(name: str, start: Path) -> GatedStage:
        spec = StageSpec("toy", name, str(tmp_path / name), 3, {}, {}, {})
        spec.out_dir.mkdir(exist_ok=True)
        return GatedStage.begin(spec, StageGate(), start, ("point_acc", "pair_auc"), asked, lambda: gains)

    (tmp_path / "sft" / "model").mkdir(parents=True)
    first = stage("first", tmp_path / "sft" / "model")
    first.hand_on(first.hold(gains, 1.0), lambda folder: None, {}, "", None)
    assert "NaN" not in (tmp_path / "first" / "gains.json").read_text()
    second = stage("second", tmp_path / "first" / "model")
    np.testing.assert_array_equal(second.before.gains, gains)
    np.testing.assert_array_equal(second.base, gains)
    assert second.before.valid == 1.0


def test_a_gate_refuses_what_is_no_number_and_decides_the_same_again() -> None:
    assert not held([0.1] * 10, [math.nan] * 10).accepted
    assert held([0.0] * 10, [0.0] * 10).accepted  # a start that knows nothing has nothing to lose
    noise = list(np.random.default_rng(1).random(200))
    assert held(noise, noise[::-1]) == held(noise, noise[::-1])
