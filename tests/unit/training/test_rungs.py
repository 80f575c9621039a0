"""Preference rungs and GRPO as stages: the model that goes on, the record of the gate, and a retry that ends alike."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from training.core.backbone import build_backbone, save_backbone
from training.core.stage import StageSpec, TableRef
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec import grpo, progressive
from training.generative_rec.item_codes import codebooks

from .conftest import TINY

ITEMS = [f"i{n}" for n in range(12)]
LOOP = {"epochs": 1, "rows": 2, "row_tokens": 128, "learning_rate": 0.01}
OPEN = {"max_loss": 1.0, "legal": 0.0, "samples": 20}
SELF_PLAY = {"source": "self_play", "level": "mixed", "least": 3, "choice": {"least": 2, "beams": 12}}


def samples(path: Path) -> Path:
    """30 users of four days; the third item of a user is liked, the others are disliked."""
    rows = []
    for user in range(30):
        items = [ITEMS[(user + 5 * step) % 12] for step in range(4)]
        for step, item in enumerate(items):
            day = date(2024, 1, 1) + timedelta(days=step)
            part = "train" if step < 3 else "valid"
            word = "liked" if step == 2 else "disliked"
            time = datetime(day.year, day.month, day.day, tzinfo=UTC)
            rows.append((f"u{user}", day, time, item, items[:step], part, word))
    kinds = {
        "user_id": pa.string(),
        "sample_date": pa.date32(),
        "event_time": pa.timestamp("us", "UTC"),
        "item_id": pa.string(),
        "history_item_ids": pa.list_(pa.string()),
        "split_time": pa.string(),
        "feedback": pa.string(),
    }
    columns = [
        pa.array(list(values), kind) for values, kind in zip(zip(*rows, strict=True), kinds.values(), strict=True)
    ]
    pq.write_table(pa.table(columns, names=list(kinds)), path)
    return path


@pytest.fixture
def spec(tmp_path: Path) -> StageSpec:
    codes, start = tmp_path / "ids", tmp_path / "sft"
    codes.mkdir()
    (start / "model").mkdir(parents=True)
    leaves = pa.array([[n // 4, n % 4] for n in range(12)], pa.list_(pa.int32()))
    pq.write_table(pa.table({"item_id": ITEMS, "codes": leaves}), codes / "codes.parquet")
    vocabulary = Vocabulary.create(train_text_tokenizer(["pen"], 270), codebooks(codes))
    save_backbone(build_backbone(TINY, vocabulary, seed=5), vocabulary, start / "model")
    table = TableRef((str(samples(tmp_path / "samples.parquet")),), origin="simulated")
    artifacts = {"semantic_ids": str(codes), "sft": str(start)}
    return StageSpec(
        "generative_rec",
        "rung",
        str(tmp_path / "out"),
        3,
        {"next_item_training_set": table},
        artifacts,
        {"start": "sft"},
    )


def given(spec: StageSpec, tmp_path: Path, name: str, config: dict[str, Any]) -> StageSpec:
    (tmp_path / name).mkdir()
    return replace(spec, out=str(tmp_path / name), config={**spec.config, **config})


def weights(folder: Path) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load_file(folder / "model" / "model.safetensors").items()}


def test_a_rung_that_stands_hands_on_a_trained_model_the_same_each_time(spec: StageSpec, tmp_path: Path) -> None:
    first, second = (given(spec, tmp_path, n, {**SELF_PLAY, "loop": LOOP, "gate": OPEN}) for n in ("a", "b"))
    result = progressive.main(first)
    assert result.metrics["stands"] == 1.0 and result.metrics["preferences"] > 3 and result.metrics["steps"] > 0
    progressive.main(second)
    start = weights(Path(spec.artifacts["sft"]))
    assert weights(first.out_dir) == weights(second.out_dir) != start


def test_a_rung_that_fails_its_gate_hands_on_what_it_started_from_and_says_why(spec: StageSpec, tmp_path: Path) -> None:
    strict = given(spec, tmp_path, "c", {**SELF_PLAY, "loop": LOOP, "gate": {**OPEN, "legal": 1.01}})
    assert progressive.main(strict).metrics["stands"] == 0.0
    assert "answers without the trie" in json.loads((strict.out_dir / "gate.json").read_text())["reason"]
    assert weights(strict.out_dir) == weights(Path(spec.artifacts["sft"]))


def test_a_rung_with_too_few_preferences_is_left_out_with_a_record(spec: StageSpec, tmp_path: Path) -> None:
    few = given(spec, tmp_path, "d", {"source": "real_feedback", "level": "easy", "loop": LOOP, "gate": OPEN})
    result = progressive.main(few)
    assert (result.metrics["stands"], result.metrics["preferences"]) == (0.0, 0.0)
    assert json.loads((few.out_dir / "gate.json").read_text())["reason"].startswith("0 preferences from 90 questions")
    assert weights(few.out_dir) == weights(Path(spec.artifacts["sft"]))


def test_real_feedback_learns_from_what_was_liked_against_what_was_not(spec: StageSpec, tmp_path: Path) -> None:
    words = {"source": "real_feedback", "level": "easy", "least": 10, "choice": {"least": 2}}
    result = progressive.main(given(spec, tmp_path, "e", {**words, "loop": LOOP, "gate": OPEN}))
    assert result.metrics["preferences"] == 30.0  # one liked item and two disliked ones of each user


def test_grpo_learns_to_recommend_what_was_taken(spec: StageSpec, tmp_path: Path) -> None:
    policy = {"rounds": 12, "prompts": 30, "minibatch": 30, "rows": 4, "row_tokens": 128, "learning_rate": 0.01}
    config = {"beams": 8, "policy": {**policy, "judge_rounds": 4}, "gate": {**OPEN, "max_loss": 0.0}}
    result = grpo.main(given(spec, tmp_path, "f", config))
    assert result.metrics["rounds"] == 12.0
    assert result.metrics["ndcg_after"] > result.metrics["ndcg_before"] and result.metrics["stands"] == 1.0
