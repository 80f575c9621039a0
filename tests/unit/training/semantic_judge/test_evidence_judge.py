"""The judge of evidence: it learns what can be learnt, is calibrated, and comes back from its folder the same."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_info, threadpool_limits

from tests.unit.training.judge_kit import evidence_of, shop_items
from training.core.errors import DataError, LeftOut
from training.semantic_judge import evidence_judge
from training.semantic_judge.aspects import UNKNOWN, Levels, aspects, expected
from training.semantic_judge.evidence import NAMES
from training.semantic_judge.evidence_judge import (
    EvidenceJudge,
    EvidenceJudgeConfig,
    Linear,
    crossed,
    log_loss,
    softmax,
    temperature_of,
)
from training.semantic_judge.examples import Floats, Pairs
from training.semantic_judge.measures import Bootstrap, level_auc, pair_auc, right_order

pytestmark = pytest.mark.unit
THREE = aspects(False)
PARTS = np.arange(1500), np.arange(1500, 2000)
TEST = np.arange(2000, 3000)
QUICK = EvidenceJudgeConfig(regularisation=(0.1, 1.0), rounds=60, patience=10, learning_rate=0.2, num_leaves=7)


def labelled(seed: int = 0) -> tuple[Floats, Levels]:
    """Profile is linear in one number and drawn, future a step of an interaction, novelty whether a number is there."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(3000, len(NAMES))).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.2] = np.nan
    logits = np.nan_to_num(numbers[:, :1]) * np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) * 1.5
    profile = (softmax(logits).cumsum(axis=1) > rng.random((3000, 1))).argmax(axis=1)
    future = 1 + np.sign(np.nan_to_num(numbers[:, 3] * numbers[:, 4]))
    novelty = np.where(np.isnan(numbers[:, 5]), 2, 0)
    return numbers, np.stack([profile, future, novelty], axis=1).astype(np.int8)


def fitted(numbers: Floats, levels: Levels) -> EvidenceJudge:
    return EvidenceJudge.fit(evidence_of(shop_items()), THREE, numbers, levels, PARTS, QUICK, 3)


def test_it_learns_each_aspect_with_the_model_that_fits_it() -> None:
    numbers, levels = labelled()
    judge = fitted(numbers, levels)
    assert judge.chosen[1].kind == "boosted" and judge.chosen[1].boosted < 0.7 * judge.chosen[1].linear
    chances = judge.chances_of(numbers[TEST])
    right = [(own.argmax(axis=1) == levels[TEST, k]).mean() for k, own in enumerate(chances)]
    assert right[1] > 0.9 and right[2] == 1.0
    assert log_loss(np.log(chances[0]), levels[TEST, 0]) < 0.85 * np.log(5)
    for own in chances:
        np.testing.assert_allclose(own.sum(axis=1), 1.0, atol=1e-5)
    assert level_auc(expected(chances, THREE)[:, 0], levels[TEST, 0]) > 0.8


def test_what_is_said_crosswise_of_a_user_hangs_on_the_labels_of_others_alone() -> None:
    numbers, levels = labelled()
    users = np.arange(3000) // 10
    told = evidence_of(shop_items()), THREE, numbers
    before = crossed(*told, levels, PARTS, users, QUICK, 3)
    assert before.shape == (3000, 3) and np.isfinite(before).all()
    alone = levels.copy()
    alone[users == 0, 0] = 4 - levels[users == 0, 0]
    found = crossed(*told, alone, PARTS, users, QUICK, 3)
    np.testing.assert_array_equal(found[users == 0], before[users == 0])
    assert not np.array_equal(found, before)  # users of the other half hear of it
    plain = expected(fitted(numbers, levels).chances_of(numbers[TEST]), THREE)
    assert level_auc(before[TEST, 0], levels[TEST, 0]) == pytest.approx(
        level_auc(plain[:, 0], levels[TEST, 0]), abs=0.03
    )


def test_it_comes_back_from_its_folder_the_same_and_holds_no_pickle(tmp_path: Path) -> None:
    numbers, levels = labelled()
    judge = fitted(numbers, levels)
    judge.save(tmp_path)
    again = EvidenceJudge.load(tmp_path, judge.evidence)
    for before, after in zip(judge.chances_of(numbers), again.chances_of(numbers), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".txt", ".json"}
    facts = (tmp_path / "judge.json").read_text().replace("near.liked", "near.loved")
    (tmp_path / "judge.json").write_text(facts)
    with pytest.raises(DataError):
        EvidenceJudge.load(tmp_path, judge.evidence)


def test_the_same_seed_gives_the_same_judge() -> None:
    numbers, levels = labelled()
    one, other = fitted(numbers, levels), fitted(numbers, levels)
    for a, b in zip(one.chances_of(numbers[TEST]), other.chances_of(numbers[TEST]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_level_that_training_never_saw_is_nearly_impossible_and_breaks_nothing() -> None:
    numbers, levels = labelled()
    levels[:, 0] = np.where(levels[:, 0] == 2, 1, levels[:, 0])
    levels[PARTS[1][0], 0] = 2  # validation has one
    chances = fitted(numbers, levels).chances_of(numbers[TEST])[0]
    assert chances.shape == (len(TEST), 5) and chances[:, 2].max() < 0.05


def test_too_few_labels_leave_the_stage_out_and_unlabelled_rows_are_passed_over() -> None:
    numbers, levels = labelled()
    levels[:1000] = UNKNOWN
    fitted(numbers, levels)
    levels[:1460, 1] = UNKNOWN
    with pytest.raises(LeftOut, match="too few labels"):
        fitted(numbers, levels)
    levels[:, 1] = 1
    with pytest.raises(LeftOut, match="the same"):
        fitted(numbers, levels)


@given(st.floats(0.4, 3.0))
@settings(deadline=None, max_examples=15)
def test_the_temperature_undoes_a_wrong_sureness(wrong: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 3)) * 2
    levels = (softmax(logits).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1).astype(np.int8)
    assert temperature_of(logits * wrong, levels) == pytest.approx(wrong, rel=0.12)


SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=2, max_size=30)


@given(SCORES, SCORES)
def test_pair_auc_is_that_of_scikit_learn(preferred: list[float], other: list[float]) -> None:
    size = min(len(preferred), len(other))
    scores = np.array([*preferred[:size], *other[:size]], dtype=np.float32)
    none = np.zeros(size, dtype=np.int8)
    pairs = Pairs(np.arange(size), np.arange(size, 2 * size), none.astype(np.str_), none)
    found = pair_auc(scores, pairs, [f"u{n % 3}" for n in range(size)], Bootstrap(1, 50))
    assert found.value == pytest.approx(roc_auc_score([1] * size + [0] * size, scores))
    assert found.lo <= found.hi and found.n == size


def test_a_tie_is_half_right_and_an_unscored_pair_is_no_win() -> None:
    none = np.zeros(4, dtype=np.int8)
    pairs = Pairs(np.array([0, 1, 2, 3]), np.array([1, 0, 2, 4]), none.astype(np.str_), none)
    scores = np.array([2.0, 1.0, 5.0, 1.0, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(right_order(scores, pairs), [1.0, 0.0, 0.5, np.nan])


def test_level_auc_of_hand_worked_numbers() -> None:
    # Of (0, 1): 1 of 1; of (0, 2): 1 of 1; of (1, 2): 0.
    assert level_auc(np.array([0.1, 0.9, 0.5]), np.array([0, 1, 2], dtype=np.int8)) == pytest.approx(2 / 3)
    assert np.isnan(level_auc(np.array([0.1, 0.9]), np.array([1, 1], dtype=np.int8)))


def test_regressions_are_fitted_by_one_thread_and_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, levels = labelled()
    pools, own = list[set[int]](), LogisticRegression.fit

    def fit(self: LogisticRegression, *given: Any) -> LogisticRegression:
        pools.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
        return own(self, *given)

    with monkeypatch.context() as patch, threadpool_limits(2, user_api="blas"):
        patch.setattr(LogisticRegression, "fit", fit)
        alone = Linear.fit(numbers, levels[:, 0], 5, 0.1, seed=1)
        patch.setattr(evidence_judge, "one_thread", nullcontext)
        among = Linear.fit(numbers, levels[:, 0], 5, 0.1, seed=1)
    assert pools == [{1}, {2}]
    np.testing.assert_allclose(alone.weights, among.weights, atol=1e-6)
