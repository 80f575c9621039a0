"""The stages one after the other on a small shop, and the judge that they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from common.pipelines import read_pipeline
from tests.unit.training import judge_kit
from tests.unit.training.judge_kit import stage_spec, write_shop
from training.core.errors import DataError, LeftOut
from training.core.stage import StageResult
from training.semantic_judge import encoder
from training.semantic_judge.aspects import expected
from training.semantic_judge.evidence_judge import EvidenceJudge
from training.semantic_judge.example_tables import PAIRS
from training.semantic_judge.examples import Candidate, UserState
from training.semantic_judge.routing import Routed, doubt
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.serve import Judge, Learnt, load
from training.semantic_judge.stages import evaluate, evidence, scorer_sft, teach
from training.semantic_judge.taught import LABEL_SCHEMA, Taught

pytestmark = pytest.mark.unit
TINY = {
    "prompts": {"titles": False},
    "examples": 60,
    "valid_examples": 30,
    "backbone": {
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "kv_heads": 2,
        "head_size": 16,
        "intermediate_size": 64,
        "max_positions": 1024,
    },
    "loop": {"epochs": 1, "rows": 2, "row_tokens": 512},
}
QUICK = {"judge": {"rounds": 20, "patience": 5, "regularisation": [0.1], "least": 20}}


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "home"))


def run(folder: Path, *, context: bool = False, **changes: Any) -> dict[str, StageResult]:
    """All stages; `changes`: more of the config of `teach`."""
    tables = write_shop(folder, users=90, context=context)
    found = {"teach": teach.main(stage_spec(folder, "teach", tables, config=changes))}
    taught = {"teach": folder / "teach"}
    found["evidence"] = evidence.main(stage_spec(folder, "evidence", tables, taught, QUICK))
    both = {**taught, "evidence": folder / "evidence"}
    found["evaluate"] = evaluate.main(stage_spec(folder, "evaluate", tables, both, {"resamples": 50}))
    return found


def test_the_judge_learns_what_users_like_and_stands_above_chance(tmp_path: Path) -> None:
    metrics = run(tmp_path)["evaluate"].metrics
    assert metrics["majority.pair_accuracy"] == 0.5
    assert metrics["judge.pair_accuracy.lo"] > 0.6
    assert metrics["pairs_direct.pair_accuracy"] > 0.8
    assert metrics["judge.point_accuracy.profile"] > metrics["majority.point_accuracy.profile"]
    assert {"popularity", "item_rating", "item_mean", "nearness", "text_liked"} <= {
        name.split(".")[0] for name in metrics
    }


@pytest.mark.parametrize("context", [False, True])
def test_labels_are_a_row_for_each_example_with_the_aspects_that_there_are(tmp_path: Path, context: bool) -> None:
    found = run(tmp_path, context=context)
    labels = pq.read_table(tmp_path / "teach" / found["teach"].tables["judge_labels"][0])
    assert labels.schema.equals(LABEL_SCHEMA)
    assert (
        len(labels)
        == found["teach"].metrics["submitted"]
        == len(pq.read_table(tmp_path / "judge_training_set.parquet"))
    )
    assert (labels["l_context"].null_count == len(labels)) is not context
    assert set(labels["source"].to_pylist()) == {"teacher"} and labels["teacher"].unique().to_pylist()
    judge = load(tmp_path / "evaluate" / "model")
    assert len(judge.aspects) == (4 if context else 3)


def test_only_some_are_asked_and_members_of_pairs_come_first(tmp_path: Path) -> None:
    pairs = len(pq.read_table(write_shop(tmp_path, users=90)[PAIRS].files[0]))
    found = run(tmp_path, examples=2 * pairs)
    assert found["teach"].metrics["submitted"] == 2 * pairs
    assert found["evaluate"].metrics["test_pairs"] > 0


def test_a_packaged_judge_answers_its_own_example_and_what_it_was_measured_on(tmp_path: Path) -> None:
    run(tmp_path, context=True)
    folder = tmp_path / "evaluate" / "model"
    judge = load(folder)
    answered = judge.predict(pq.read_table(folder / "example.parquet").to_pandas(), {})
    outputs = [one["name"] for one in json.loads((folder / "signature.json").read_text())["outputs"]]
    assert list(answered.columns) == outputs and np.isfinite(answered.to_numpy()).all()
    user = UserState("u", date(2026, 1, 9), ("i0", "i4", "i1"), (5.0, 5.0, 1.0))
    found = judge.scores([user] * 2, [Candidate("i8"), Candidate("i5")])
    np.testing.assert_allclose(found.weights, [[1 / 3, 1 / 3, 1 / 3, 0]] * 2)
    np.testing.assert_allclose(found.score, found.aspects[:, :3].mean(axis=1), atol=1e-6)
    assert np.isnan(found.aspects[:, 3]).all()
    seeking = judge.scores([replace(user, context="pen cheap")] * 2, [Candidate("i8"), Candidate("i5")])
    np.testing.assert_array_equal(seeking.weights, 0.25)
    np.testing.assert_allclose(seeking.score, seeking.aspects.mean(axis=1), atol=1e-6)
    frame = pd.DataFrame(
        {"as_of": ["2026-01-09"], "history": [["i0", "i4", "i1"]], "ratings": [[5.0, 5.0, 1.0]], "item_id": ["i8"]}
    )
    np.testing.assert_allclose(judge.predict(frame, {})["score"], found.score[:1], atol=1e-6)
    with pytest.raises(DataError, match="not in the judge's catalogue"):
        judge.scores([user], [Candidate("no item")])
    with pytest.raises(DataError):
        Judge.load(tmp_path)


def test_values_hold_every_pair_for_every_row_in_the_slice_of_its_source(tmp_path: Path) -> None:
    found = run(tmp_path)["evaluate"]
    values = pq.read_table(tmp_path / "evaluate" / found.tables["eval_values"][0])
    own = values.filter(pc.equal(values["name"], "pair_accuracy"))
    counts = own.group_by("model").aggregate([("value", "count")]).to_pylist()
    assert {row["value_count"] for row in counts} == {int(found.metrics["test_pairs"])}
    assert {tuple(names) for names in own["slices"].to_pylist()} == {("rating",)}
    keys = values.select(["model", "name", "unit", "sample"]).to_pylist()
    assert len({tuple(row.values()) for row in keys}) == len(keys)
    lines = pq.read_table(tmp_path / "evaluate" / found.tables["model_metrics"][0])
    assert set(lines["origin"].to_pylist()) == {"real"}
    assert 0 <= found.metrics["abstention.coverage"] <= 1


def test_pairs_of_a_simulated_market_are_called_simulated(tmp_path: Path) -> None:
    tables = write_shop(tmp_path, users=90)
    rows = pq.read_table(tables[PAIRS].files[0])
    half = [{**row, "source": "exposure" if place % 2 else "rating"} for place, row in enumerate(rows.to_pylist())]
    run(tmp_path)
    pq.write_table(rows.from_pylist(half, schema=rows.schema), tables[PAIRS].files[0])
    folders = {name: tmp_path / name for name in ("teach", "evidence")}
    found = evaluate.main(stage_spec(tmp_path, "evaluate", tables, folders, {"resamples": 20}))
    lines = pq.read_table(tmp_path / "evaluate" / found.tables["model_metrics"][0]).to_pylist()
    pair_lines = [line for line in lines if line["metric"] == "pair_accuracy"]
    assert {(line["slice"], line["origin"]) for line in pair_lines} == {
        ("all", "simulated"),
        ("exposure", "simulated"),
        ("rating", "real"),
    }


def test_language_scorers_stand_beside_the_judge_of_evidence_on_the_same_pairs(tmp_path: Path) -> None:
    """Trained on what `teach` has left, packed as the pipeline packs it."""
    run(tmp_path)
    tables = write_shop(tmp_path, users=90)
    folders = {name: tmp_path / name for name in ("teach", "evidence")}
    tuned = scorer_sft.main(stage_spec(tmp_path, "scorer_sft", tables, folders, TINY))
    assert tuned.metrics["examples"] > 0 and tuned.metrics["steps"] > 0
    pairs = pq.read_table(tables[PAIRS].files[0])
    late = [
        {**row, "split_time": "test" if row["split_time"] == "valid" else row["split_time"]}
        for row in pairs.to_pylist()
    ]
    pq.write_table(pairs.from_pylist(late, schema=pairs.schema), tables[PAIRS].files[0])  # members of earlier days
    both = {**folders, "scorer_sft": tmp_path / "scorer_sft"}
    config = {"resamples": 20, "scorers": {"words": "scorer_sft"}, "routed": 0.3}
    found = evaluate.main(stage_spec(tmp_path, "evaluate", tables, both, config))
    metrics = found.metrics
    assert 0 < metrics["routed"] < metrics["judged"]
    compared = pq.read_table(tmp_path / "evaluate" / found.tables["model_metrics"][0]).to_pylist()
    (share,) = [row for row in compared if row["metric"] == "routed"]
    assert (share["model"], share["n"]) == ("routed", metrics["judged"])
    assert share["value"] == metrics["routed"] / metrics["judged"]
    for name in ("judge", "words", "routed"):
        assert 0 <= metrics[f"{name}.pair_accuracy"] <= 1
        assert 0 <= metrics[f"{name}.point_accuracy.profile.members"] <= 1
    assert "majority.point_accuracy.profile.members" in metrics
    values = pq.read_table(tmp_path / "evaluate" / found.tables["eval_values"][0])
    counts = values.filter(pc.equal(values["name"], "pair_accuracy")).group_by("model").aggregate([("value", "count")])
    assert {row["value_count"] for row in counts.to_pylist()} == {int(metrics["test_pairs"])}
    keys = values.select(["model", "name", "unit", "sample"]).to_pylist()
    assert len({tuple(row.values()) for row in keys}) == len(keys)
    of = {name: {(row["name"], row["sample"]) for row in keys if row["model"] == name} for name in ("judge", "words")}
    assert of["words"] <= of["judge"], "what others are measured on the judge that is registered is measured on"

    taught = Taught.load(stage_spec(tmp_path, "evaluate", tables, both))
    cases = taught.examples.cases.chosen(taught.examples.rows_of("test"))
    first = EvidenceJudge.load(tmp_path / "evidence" / "judge", taught.evidence)
    second = LanguageScorer.load(tmp_path / "scorer_sft" / "model", taught.evidence)
    doubted = doubt(first.chances(cases))
    for serves in ("words", "routed"):
        again = evaluate.main(stage_spec(tmp_path, serves, tables, both, {**config, "serves": serves}))
        assert again.metrics["judge.pair_accuracy"] == metrics[f"{serves}.pair_accuracy"]
        assert again.metrics["evidence.pair_accuracy"] == metrics["judge.pair_accuracy"]
        served = Judge.load(tmp_path / serves / "model")
        threshold = served.scorer.threshold if isinstance(served.scorer, Routed) else 0.0
        own, others = expected(second.chances(cases), served.aspects), expected(first.chances(cases), served.aspects)
        said = np.where((doubted >= threshold)[:, None], own, others)
        assert np.allclose(served.scores_of(cases).aspects, said, atol=1e-5)
        assert serves == "words" or 0 < (doubted >= threshold).mean() < 1
        # Over the catalogue of another day it says the same.
        items = taught.evidence.catalogue.items
        user = UserState("u", date(2026, 1, 1), (items[0].item_id,), (5.0,))
        asked = [user] * len(items), [Candidate(item.item_id, 4.0, 3.0) for item in items]
        later = served.over(items[::-1])
        assert np.allclose(later.scores(*asked).score, served.scores(*asked).score, atol=1e-5)
    with pytest.raises(DataError, match="no row sentences to serve"):
        evaluate.main(stage_spec(tmp_path, "evaluate", tables, both, {**config, "serves": "sentences"}))


def test_without_test_pairs_the_evaluation_is_left_out(tmp_path: Path) -> None:
    run(tmp_path)
    tables = write_shop(tmp_path, users=90)
    rows = pq.read_table(tables[PAIRS].files[0])
    pq.write_table(rows.filter(pc.not_equal(rows["split_time"], "test")), tables[PAIRS].files[0])
    folders = {name: tmp_path / name for name in ("teach", "evidence")}
    with pytest.raises(LeftOut):
        evaluate.main(stage_spec(tmp_path, "evaluate", tables, folders))


def test_other_examples_than_were_taught_are_refused(tmp_path: Path) -> None:
    run(tmp_path)
    tables = write_shop(tmp_path, users=30)
    with pytest.raises(DataError, match="not those that were taught"):
        evidence.main(stage_spec(tmp_path, "evidence", tables, {"teach": tmp_path / "teach"}, QUICK))


def test_an_endpoint_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is named"):
        run(tmp_path, teacher="endpoint")


def test_every_preset_is_declared_for_every_stage() -> None:
    declared = read_pipeline("semantic_judge")
    names = ["teach", "evidence", "scorer_sft", "scorer_sft_titles", "scorer_grpo", "aggregator", "evaluate"]
    assert [stage.name for stage in declared.stages] == names
    assert {stage.name for stage in declared.stages if "demo" not in stage.config} == {"scorer_sft_titles"}
    assert all(set(stage.config) >= {"bench", "production"} for stage in declared.stages)
    assert declared.dag == "align_semantic_judge"


def test_a_packaged_judge_says_what_it_has_learnt_of(tmp_path: Path) -> None:
    """The twelfth day is the last of each user; four days before the first example something was taken."""
    run(tmp_path)
    assert load(tmp_path / "evaluate" / "model").learnt == Learnt("2026-01-12", 11)
