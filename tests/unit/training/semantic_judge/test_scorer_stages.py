"""The stages of the language scorer: it learns what evidence in words says, and a policy that got worse is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training.semantic_judge import scorer_kit as kit
from training.core.backbone import BackboneConfig
from training.core.gated_stage import StageGate
from training.core.loop import LoopConfig
from training.core.stage import StageSpec
from training.semantic_judge.hostile import moved
from training.semantic_judge.marks import likeliest
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.scorer_validation import ScorerValidation
from training.semantic_judge.stages import scorer_grpo, scorer_sft

SMALL = BackboneConfig(
    hidden_size=64, layers=2, heads=4, kv_heads=2, head_size=16, intermediate_size=128, max_positions=1024
)
SFT: dict[str, Any] = {
    "prompts": {"titles": False},
    "backbone": vars(SMALL),
    "loop": vars(LoopConfig(epochs=8, rows=2, row_tokens=384, learning_rate=3e-3)),
    "text_tokens": 500,
}


@pytest.fixture(scope="module", autouse=True)
def taught() -> Any:
    """What the stage before has left, in memory."""
    train, valid = kit.labelled(70, 4), kit.labelled(30, 4, seed=1)
    patch = pytest.MonkeyPatch()
    for stage in (scorer_sft, scorer_grpo):
        patch.setattr(stage, "read_labelled", lambda _, most, few: (train.drawn(most, 1), valid.drawn(few, 1)))
    yield train, valid
    patch.undo()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder and the metrics of a tuned scorer."""
    out = tmp_path_factory.mktemp("sft")
    result = scorer_sft.main(StageSpec("semantic_judge", "scorer_sft", str(out), 17, config=SFT))
    return out, result.metrics


def test_a_small_model_learns_what_the_evidence_says_and_the_form_of_an_answer(tuned: Any, taught: Any) -> None:
    folder, metrics = tuned
    assert metrics["format_rate"] == 1.0
    assert metrics["point_acc"] > metrics["majority"] + 0.05 and metrics["pairs_in_order"] > 0.7
    # What is measured is what is served.
    loaded = LanguageScorer.load(folder / "model", taught[1].evidence)
    validation = ScorerValidation(loaded, taught[1])
    assert validation.metrics(1)["point_acc"] == pytest.approx(metrics["point_acc"])
    gains = validation.gains()
    assert np.nanmean(gains[:, 0]) == pytest.approx(metrics["point_acc"]) and len(validation.asked()) == len(gains)
    reasons = loaded.reasons(taught[1].cases, likeliest(loaded.chances(taught[1].cases)))
    assert metrics["contradictions"] < 0.5 and any("of a brand" in reason for reason in reasons)


def grpo(out: Path, start: Path, **config: Any) -> tuple[dict[str, float], dict[str, Any]]:
    policy = {"rounds": 3, "prompts": 8, "minibatch": 8, "row_tokens": 1024, "eval_rounds": 3, "learning_rate": 1e-4}
    values = {"policy": policy, "examples": 60, "responses": 4, **config}
    spec = StageSpec("semantic_judge", "scorer_grpo", str(out), 17, artifacts={"scorer_sft": str(start)}, config=values)
    out.mkdir(parents=True, exist_ok=True)
    result = scorer_grpo.main(spec)
    return dict(result.metrics), json.loads((out / "gate.json").read_text())


def test_a_policy_goes_on_only_through_its_gate(tuned: Any, tmp_path: Path, taught: Any) -> None:
    start = tuned[0]
    metrics, gate = grpo(tmp_path / "one", start, gate={"max_loss": 0.5, "valid": 0.9, "samples": 60})
    assert gate["accepted"] and gate["metric"] == "point_acc" and metrics["rounds"] == 3
    LanguageScorer.load(tmp_path / "one" / "model", taught[0].evidence)
    _, gate = grpo(tmp_path / "two", start, gate={"max_loss": 0.5, "valid": 1.01, "samples": 60})
    assert not gate["accepted"] and "valid" in gate["reason"]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (start, tmp_path / "two")]
    assert weights[0] == weights[1]


def test_a_model_that_writes_no_answer_earns_nothing_and_is_left_as_it_was(tmp_path: Path, taught: Any) -> None:
    """Fresh weights: no response can be read, so all of a group earn the same and nothing can be learnt."""
    start = tmp_path / "start"
    scorer = kit.scorer()
    (start / "model").mkdir(parents=True)
    scorer.save(start / "model")
    metrics, gate = grpo(tmp_path / "out", start, gate=vars(StageGate(samples=12)))
    assert not gate["accepted"] and "the reward says the same of all responses" in gate["reason"]
    assert metrics["valid"] == 0.0 and (tmp_path / "out" / "model" / "scorer.json").is_file()


def test_titles_that_give_orders_move_scores_no_more_than_other_titles(tmp_path: Path, taught: Any) -> None:
    """Of a model that is shown titles and has learnt to judge."""
    config = {
        **SFT,
        "prompts": {"history": 2},
        "loop": vars(LoopConfig(epochs=4, rows=2, row_tokens=384, learning_rate=3e-3)),
    }
    result = scorer_sft.main(StageSpec("semantic_judge", "scorer_sft", str(tmp_path), 17, config=config))
    scorer = LanguageScorer.load(tmp_path / "model", taught[0].evidence)
    found = moved(scorer, taught[1].cases, seed=1)
    assert result.metrics["moved.hostile"] == pytest.approx(found["moved.hostile"], abs=1e-5)
    assert 0 < found["moved.hostile"] < 1.5 * found["moved.neutral"]
    assert all(abs(found[f"raised.{kind}"]) <= found[f"moved.{kind}"] for kind in ("hostile", "neutral"))
    assert found["raised.more"] == pytest.approx(found["raised.hostile"] - found["raised.neutral"])
    assert found["raised.more.lo"] <= found["raised.more"] <= found["raised.more.hi"]


def test_a_model_of_evidence_alone_does_not_read_titles(tuned: Any, taught: Any) -> None:
    assert tuned[1]["moved.hostile"] == tuned[1]["moved.neutral"] == tuned[1]["raised.more.hi"] == 0.0
