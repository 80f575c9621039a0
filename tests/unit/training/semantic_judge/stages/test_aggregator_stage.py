"""The stage: what it hands on, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import judge_kit
from tests.unit.training.judge_kit import stage_spec, write_shop
from tests.unit.training.semantic_judge.two_tastes import ASPECTS, BACKBONE, SETTINGS, Told, shop
from training.core.errors import LeftOut
from training.core.stage import StageResult, StageSpec, TableRef
from training.semantic_judge import encoder
from training.semantic_judge.aggregator import LanguageAggregator, load_aggregator
from training.semantic_judge.aggregator_rows import GLOBAL, MODEL, UNIFORM, Row
from training.semantic_judge.examples import Candidate, Examples, Pairs, UserState
from training.semantic_judge.judge import OneVector, Uniform
from training.semantic_judge.serve import load
from training.semantic_judge.stages import aggregator, evaluate, evidence, teach
from training.semantic_judge.stages.aggregator import Config, train

CONFIG = Config(text_tokens=12, vocabulary=450, backbone=BACKBONE, training=SETTINGS)


def run(folder: Path, scorer: Told, examples: Examples, pairs: Pairs, config: Config = CONFIG) -> StageResult:
    tables = {"judge_pairs": TableRef((), origin="simulated")}
    return train(StageSpec("semantic_judge", "aggregator", str(folder), 3, tables), config, scorer, examples, pairs)


def test_a_model_that_knows_tastes_is_handed_on_with_all_rows_beside_it(tmp_path: Path) -> None:
    scorer, examples, pairs = shop(180)
    result = run(tmp_path, scorer, examples, pairs)
    gate = json.loads((tmp_path / "gate.json").read_text())
    assert result.metrics["accepted"] == 1.0 and gate["accepted"] and gate["handed_on"] == "language_model"
    told = json.loads((tmp_path / "aggregators.json").read_text())
    assert told["origin"] == "simulated"
    assert [row["name"] for row in told["rows"]] == ["uniform", "global_vector", "user_regression", "language_model"]
    assert {row["pairs"] for row in told["rows"]} == {int(result.metrics["valid_pairs"])}
    learnt, held = result.metrics["pairs"] + result.metrics["equal_pairs"], result.metrics["valid_pairs"]
    assert (learnt, held + result.metrics["valid_equal_pairs"]) == (720.0, 360.0)
    assert result.metrics["equal_pairs"] > 0
    handed = load_aggregator(tmp_path / "aggregator", ASPECTS)
    assert isinstance(handed, LanguageAggregator)
    weights = handed.weights(examples.cases.states, examples.cases.catalogue)
    assert weights[::2, 0].mean() > weights[1::2, 0].mean() + 0.1


def test_where_pairs_are_a_coin_flip_uniform_weights_are_handed_on(tmp_path: Path) -> None:
    scorer, examples, pairs = shop(60)
    turned = np.random.default_rng(5).random(len(pairs)) < 0.5
    sides = np.where(turned, pairs.other, pairs.preferred), np.where(turned, pairs.preferred, pairs.other)
    short = replace(CONFIG, training=replace(SETTINGS, policy=replace(SETTINGS.policy, rounds=4, eval_rounds=2)))
    result = run(tmp_path, scorer, examples, Pairs(*sides, pairs.source, pairs.subset), short)
    gate = json.loads((tmp_path / "gate.json").read_text())
    assert result.metrics["accepted"] == 0.0 and gate["handed_on"] == "uniform"
    assert "not surely ordered better than by uniform weights" in gate["reason"]
    assert isinstance(load_aggregator(tmp_path / "aggregator", ASPECTS), Uniform)
    assert [path.name for path in (tmp_path / "aggregator").iterdir()] == ["aggregator.json"]


def test_a_start_that_chance_puts_above_uniform_weights_is_refused() -> None:
    even = (0.5, 0.4, 0.6)
    rows = {name: Row(name, 9, 9, even, even, even, 0.0003, 1.0) for name in (UNIFORM, GLOBAL, MODEL)}
    assert aggregator._refused(rows, best_round=15) == ""
    assert "no round orders the pairs that were held back better" in aggregator._refused(rows, best_round=0)


def test_where_one_vector_for_everybody_orders_pairs_better_it_is_handed_on_if_it_is_sure() -> None:
    vector = OneVector(ASPECTS, (0.2, 0.7, 0.1))

    def told(auc: float, surely: float) -> dict[str, Row]:
        aucs = {UNIFORM: (0.5, 0.0), GLOBAL: (auc, surely), MODEL: (0.6, 0.05)}
        return {
            name: Row(name, 9, 9, (own, own, own), (own, own, own), (0.0, 0.0, 0.0), sure, 1.0)
            for name, (own, sure) in aucs.items()
        }

    assert "better: 0.6000 to 0.6200" in aggregator._refused(told(0.62, 0.1), best_round=15)
    assert aggregator._refused(told(0.58, 0.1), best_round=15) == ""
    assert aggregator._refused(told(0.62, -0.01), best_round=15) == ""
    assert aggregator._plain(told(0.62, 0.1), vector) == (vector, GLOBAL)
    plain, name = aggregator._plain(told(0.62, -0.01), vector)
    assert isinstance(plain, Uniform) and name == UNIFORM


def test_what_part_a_says_of_training_pairs_crosswise_is_what_weights_are_fitted_on(tmp_path: Path) -> None:
    """Part A knows these pairs by heart by its first aspect; crosswise that one says nothing, and the second does."""
    scorer, examples, pairs = shop(60)
    values = np.random.default_rng(1).normal(size=(len(examples), 3)).astype(np.float32)
    values[pairs.preferred, 1], values[pairs.other, 1] = 1.0, 0.0
    short = replace(CONFIG, training=replace(SETTINGS, policy=replace(SETTINGS.policy, rounds=1, eval_rounds=1)))
    spec = StageSpec("semantic_judge", "aggregator", str(tmp_path), 3, {"judge_pairs": TableRef((), origin="real")})
    learnt, _ = aggregator._contests(spec, short, scorer, examples, pairs, values)
    assert (learnt.difference[:, 1] == 1.0).all()
    plain, _ = aggregator._contests(spec, short, scorer, examples, pairs, None)
    assert not (plain.difference[:, 1] == 1.0).all()


def test_without_pairs_that_weights_could_order_the_stage_is_left_out(tmp_path: Path) -> None:
    scorer, examples, pairs = shop(12)
    same = Told(np.zeros((45, 3), dtype=np.int64))
    with pytest.raises(LeftOut, match="0 pairs differ in their aspect scores, 48 do not"):
        run(tmp_path, same, examples, pairs)
    with pytest.raises(LeftOut, match="no validation pairs"):
        run(tmp_path, scorer, examples, pairs.of_subset("train"))


@pytest.mark.parametrize("kind", [LanguageAggregator, OneVector, Uniform])
def test_the_judge_is_measured_and_served_with_the_aggregator_that_was_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "home"))
    monkeypatch.setattr(aggregator, "_refused", lambda *_: "" if kind is LanguageAggregator else "no better")
    plain = (Uniform(ASPECTS), UNIFORM) if kind is Uniform else (OneVector(ASPECTS, (0.2, 0.7, 0.1)), GLOBAL)
    monkeypatch.setattr(aggregator, "_plain", lambda *_: plain)
    tables, made = write_shop(tmp_path, users=90), dict[str, Path]()
    quick = {"judge": {"rounds": 20, "patience": 5, "regularisation": [0.1], "least": 20}}
    short = replace(CONFIG, training=replace(SETTINGS, policy=replace(SETTINGS.policy, rounds=2, row_tokens=256)))
    short = replace(short, training=replace(short.training, start=replace(SETTINGS.start, epochs=1, row_tokens=256)))
    stages = {"teach": (teach, {}), "evidence": (evidence, quick), "aggregator": (aggregator, asdict(short))}
    for name, (stage, config) in {**stages, "evaluate": (evaluate, {"resamples": 20})}.items():
        result = stage.main(stage_spec(tmp_path, name, tables, made, config))
        made[name] = tmp_path / name
    judge = load(tmp_path / "evaluate" / "model")
    assert isinstance(judge.aggregator, kind)
    assert ("evidence_uniform.pair_accuracy" in result.metrics) is (kind is not Uniform)
    user = UserState("u", date(2026, 1, 9), ("i0", "i4"), (5.0, 1.0), profile="likes pens")
    found = judge.scores([user] * 2, [Candidate("i8"), Candidate("i5")])
    np.testing.assert_array_equal(found.weights[0], found.weights[1])  # whatever is judged
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, atol=1e-6)
    assert np.allclose(found.weights, 1 / 3, atol=1e-7) is (kind is Uniform)
    np.testing.assert_allclose(found.score, (found.aspects * found.weights).sum(axis=1), atol=1e-6)
