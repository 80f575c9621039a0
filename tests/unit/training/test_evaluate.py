"""Evaluation end to end on a tiny catalogue: the tables agree with each other, the packaged model with the table."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.core.backbone import BackboneConfig, build_backbone, save_backbone
from training.core.errors import DataError
from training.core.metrics import METRICS, recall_at
from training.core.stage import StageSpec, TableRef, run_stage
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec import evaluate
from training.generative_rec.baselines import base
from training.generative_rec.baselines.covisit import COUNTINGS
from training.generative_rec.item_codes import codebook_sizes
from training.generative_rec.samples import NextItem
from training.generative_rec.serve import Recommender

from .sample_kit import write_rows

CODES = {f"i{n}": [n // 4, n % 4] for n in range(11)} | {"i11": [2, 3, 0], "i12": [2, 3, 1]}
SMALL = {"sasrec": {"width": 8, "layers": 1, "heads": 1, "epochs": 1}, "depth": 5, "resamples": 50}
TINY = BackboneConfig(
    hidden_size=16, layers=2, heads=2, kv_heads=1, head_size=8, intermediate_size=24, max_positions=64
)


def _samples(folder: Path) -> Path:
    rng, day, rows = np.random.default_rng(0), date(2018, 1, 1), []
    for user in range(30):
        items = [f"i{n}" for n in rng.integers(0, 12, size=6)]
        for place, item in enumerate(items):
            on = day + timedelta(days=user + 30 * place)
            part = "train" if place < 4 else "valid" if place == 4 else "test"
            rows.append((f"u{user}", on, datetime(on.year, on.month, on.day, tzinfo=UTC), item, items[:place], part))
    rows.append(("u99", day, datetime(2018, 1, 1, tzinfo=UTC), "i12", [], "test"))
    return write_rows(folder / "samples.parquet", rows)


@pytest.fixture
def spec(tmp_path: Path) -> StageSpec:
    codes, sft = tmp_path / "semantic_ids", tmp_path / "sft"
    codes.mkdir()
    lists = pa.array(list(CODES.values()), pa.list_(pa.int32()))
    pq.write_table(pa.table({"item_id": list(CODES), "codes": lists}), codes / "codes.parquet")
    sizes = codebook_sizes({item: tuple(code) for item, code in CODES.items()})
    vocabulary = Vocabulary.create(train_text_tokenizer(["pen"], 270), {"item": sizes})
    (sft / "model").mkdir(parents=True)
    save_backbone(build_backbone(TINY, vocabulary, seed=7), vocabulary, sft / "model")
    kinds = [f"Shop > kind {n % 3}" if n < 12 else None for n in range(len(CODES))]
    pq.write_table(pa.table({"item_id": list(CODES), "category": kinds}), tmp_path / "items.parquet")
    tables = {
        "next_item_training_set": TableRef((str(_samples(tmp_path)),), origin="simulated"),
        "items": TableRef((str(tmp_path / "items.parquet"),)),
    }
    artifacts = {"semantic_ids": str(codes), "sft": str(sft)}
    place = str(tmp_path / "out")
    return StageSpec("generative_rec", "evaluate", place, 5, tables=tables, artifacts=artifacts, config=SMALL)


def _table(spec: StageSpec, name: str, split: str = "time") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(spec.out) / f"tables/{name}/part-0.parquet").to_pylist()
    return [row for row in rows if row["split"] == split]


def test_every_model_is_measured_on_the_same_samples_and_the_tables_agree(spec: StageSpec) -> None:
    result = evaluate.main(spec)
    by_model = defaultdict(list)
    for row in _table(spec, "eval_ranks"):
        by_model[row["model"]].append(row)
    keys = {model: [(r["user_id"], r["as_of"], r["item_id"]) for r in rows] for model, rows in by_model.items()}
    assert list(keys) == ["popularity", "frequency", "covisit", "sasrec", "sft"]
    assert all(found == keys["sft"] and len(found) == 31 for found in keys.values())
    for model, rows in by_model.items():
        ranks = np.array([row["rank"] or math.inf for row in rows])
        assert result.metrics[f"{model}.recall@3"] == pytest.approx(recall_at(ranks, 3).mean())
        assert result.metrics[f"{model}.recall@3.lo"] <= result.metrics[f"{model}.recall@3"]
        assert result.metrics[f"{model}.recall@3"] <= result.metrics[f"{model}.recall@3.hi"]


def test_the_leave_one_out_view_stands_beside_with_the_last_sample_of_each_user_and_rows_fitted_for_it(
    spec: StageSpec,
) -> None:
    result = evaluate.main(spec)
    ranks = _table(spec, "eval_ranks", "leave_one_out")
    assert Counter(row["model"] for row in ranks) == {"popularity": 31, "frequency": 31, "covisit": 31}
    newest = max(datetime(row["as_of"].year, row["as_of"].month, row["as_of"].day) for row in ranks)
    assert newest == datetime(2018, 1, 1) + timedelta(days=29 + 30 * 5)
    assert len({row["user_id"] for row in ranks if row["model"] == "covisit"}) == 31
    means = {row["model"]: row["value"] for row in _table(spec, "model_metrics", "leave_one_out") if _is_headline(row)}
    assert means == {m: result.metrics[f"leave_one_out.{m}.recall@3"] for m in ("popularity", "frequency", "covisit")}


def _is_headline(row: dict[str, Any]) -> bool:
    return bool(row["metric"] == "recall@3" and row["slice"] == "all")


def test_a_model_of_the_time_split_has_no_leave_one_out_row_and_one_trained_for_it_has(spec: StageSpec) -> None:
    evaluate.main(spec)
    assert "sft" not in {row["model"] for row in _table(spec, "eval_ranks", "leave_one_out")}
    trained = Path(spec.artifacts["sft"])
    shutil.copytree(trained / "model", trained / "model_leave_one_out")
    again = dataclasses.replace(spec, out=f"{spec.out}-2")
    evaluate.main(again)
    assert "sft" in {row["model"] for row in _table(again, "eval_ranks", "leave_one_out")}


def test_slices_part_the_samples_and_each_row_says_where_it_is_from(spec: StageSpec) -> None:
    evaluate.main(spec)
    rows = _table(spec, "model_metrics")
    assert {row["origin"] for row in rows} == {"simulated"}
    counted = {row["slice"]: row["n"] for row in rows if row["model"] == "sft" and row["metric"] == METRICS[0]}
    named = Counter(name for row in _table(spec, "eval_ranks") if row["model"] == "sft" for name in row["slices"])
    assert named == counted
    assert counted["all"] == 31
    assert sum(n for name, n in counted.items() if name.startswith("history=")) == 31
    assert counted["item=cold"] + counted["item=warm"] == 31
    assert counted["history=0"] == 1


def test_the_packaged_folder_serves_the_very_lists_that_were_measured(spec: StageSpec) -> None:
    evaluate.main(spec)
    model = Recommender.load(Path(spec.out) / "model")
    tests = pq.read_table(spec.tables[evaluate.TABLE].files[0]).to_pylist()
    history = {(row["user_id"], row["item_id"]): row["history_item_ids"] for row in tests}
    measured = [row for row in _table(spec, "eval_ranks") if row["model"] == "sft"]
    served = model.recommend([history[row["user_id"], row["item_id"]] for row in measured], 5)
    for row, line in zip(measured, served, strict=True):
        ids = [item for item, _ in line]
        assert (ids.index(row["item_id"]) + 1 if row["item_id"] in ids else None) == row["rank"]


def test_serving_returns_items_of_the_catalogue_best_first_and_reads_over_unknown_history(spec: StageSpec) -> None:
    evaluate.main(spec)
    model = Recommender.load(Path(spec.out) / "model")
    plain, with_gone, empty = model.recommend([["i1", "i2"], ["i1", "gone", "i2"], []], 13)
    assert plain == with_gone
    for line in (plain, empty):
        assert {item for item, _ in line} == set(CODES)
        assert [score for _, score in line] == sorted((score for _, score in line), reverse=True)


def test_each_row_stands_against_the_one_above_and_lists_say_how_many_kinds_they_have(spec: StageSpec) -> None:
    metrics = evaluate.main(spec).metrics
    names = ("popularity", "frequency", "covisit", "sasrec", "sft")
    steps = {f"{higher}.minus.{lower}.ndcg@10" for lower, higher in pairwise(names)}
    assert steps <= metrics.keys()
    line = [row for row in _table(spec, "model_metrics") if (row["model"], row["metric"]) == ("popularity", "kinds@10")]
    assert [row["value"] for row in line] == [metrics["popularity.kinds@10"]] and 1 <= line[0]["value"] <= 3


def test_what_a_row_has_chosen_on_validation_is_said_with_the_figure_that_chose_it(spec: StageSpec) -> None:
    result = evaluate.main(spec)
    (line,) = [row for row in _table(spec, "model_metrics") if row["metric"] == "choice"]
    assert line["model"] == "covisit" and line["slice"] == "all"
    assert line["reason"] in {str(one) for one in COUNTINGS}
    assert line["value"] == result.metrics["covisit.choice"]


def test_an_item_of_the_past_of_a_first_sample_is_warm(spec: StageSpec, tmp_path: Path) -> None:
    day = datetime(2018, 1, 1, tzinfo=UTC)
    rows = [
        ("u0", date(2018, 1, 1), day, "i1", ["i2"], "train"),
        ("u0", date(2018, 1, 2), day, "i3", ["i2", "i1"], "valid"),
        ("u0", date(2018, 1, 3), day, "i2", ["i2", "i1", "i3"], "test"),
        ("u1", date(2018, 1, 3), day, "i4", [], "test"),
    ]
    table = TableRef((str(write_rows(tmp_path / "warm.parquet", rows)),))
    config = {**spec.config, "baselines": {"time": ["popularity"]}}
    evaluate.main(dataclasses.replace(spec, tables={**spec.tables, evaluate.TABLE: table}, config=config))
    found = {row["item_id"]: row["slices"] for row in _table(spec, "eval_ranks") if row["model"] == "popularity"}
    assert "item=warm" in found["i2"] and "item=cold" in found["i4"]


def test_a_rung_that_was_left_out_has_the_figures_of_its_start_and_its_record_is_told(
    spec: StageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "sft", tmp_path / "rf_hard")
    record = {"stands": False, "reason": "0 preferences", "ndcg_before": 0.2, "ndcg_after": 0.2, "preferences": 0.0}
    (tmp_path / "rf_hard" / "gate.json").write_text(json.dumps(record))
    artifacts = {**spec.artifacts, "rf_hard": str(tmp_path / "rf_hard"), "sp": str(tmp_path / "never_run")}
    models = {"models": {"sft": "semantic_ids", "rf_hard": "semantic_ids"}, "baselines": {"time": ["popularity"]}}
    asked = list[str]()
    measure = evaluate._measure

    def counting(name: str, *rest: Any) -> Any:
        asked.append(name)
        return measure(name, *rest)

    monkeypatch.setattr(evaluate, "_measure", counting)
    ladder = dataclasses.replace(spec, artifacts=artifacts, config={**spec.config, **models})
    result = evaluate.main(ladder)
    assert asked == ["popularity", "sft"]
    figures = {(row["model"], row["metric"], row["slice"]): row["value"] for row in _table(ladder, "model_metrics")}
    of_sft = {key[1:]: value for key, value in figures.items() if key[0] == "sft"}
    assert of_sft == {key[1:]: value for key, value in figures.items() if key[0] == "rf_hard"} != {}
    told = {(row["model"], row["metric"]): row["value"] for row in _table(ladder, "model_metrics", "training")}
    expected = {"place": 1.0, "stands": 0.0, "ndcg_before": 0.2, "ndcg_after": 0.2, "preferences": 0.0}
    assert told == {("rf_hard", name): value for name, value in expected.items()}
    why = {row["metric"]: row["reason"] for row in _table(ladder, "model_metrics", "training") if row["reason"]}
    assert why == {"stands": "0 preferences"}
    assert result.metrics["rf_hard.stands"] == 0.0


def test_own_items_are_left_out_for_all_rows_alike(spec: StageSpec) -> None:
    evaluate.main(spec)
    model = Recommender.load(Path(spec.out) / "model")
    line = model.recommend([["i1", "i2", "i2"]], 11, rank_own=False)[0]
    assert {item for item, _ in line} == set(CODES) - {"i1", "i2"}


def test_a_sample_limit_takes_whole_users_the_same_for_a_seed() -> None:
    rows = [NextItem(f"u{n // 3}", date(2018, 1, 1), f"i{n % 3}", (), "test") for n in range(30)]
    chosen = evaluate.chosen_samples(rows, 9, seed=1)
    assert chosen == evaluate.chosen_samples(rows, 9, seed=1)
    assert len(chosen) == 9 and len({row.user_id for row in chosen}) == 3


def test_a_finished_evaluation_is_not_run_again(spec: StageSpec) -> None:
    assert run_stage(spec, evaluate.main)
    assert not run_stage(spec, evaluate.main)


class _Inventor(base.Recommender):
    def answer(self, asked: Sequence[base.Query], k: int) -> list[base.Ranking]:
        return [[("invented", 0.0)] for _ in asked]


def test_an_item_outside_of_the_catalogue_is_a_bug_that_stops_the_stage(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "rows", lambda _: {"popularity": lambda known: _Inventor()})
    with pytest.raises(AssertionError, match="popularity recommended"):
        evaluate.main(spec)


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "rows", lambda _: pytest.fail("a baseline was made"))


@pytest.mark.usefixtures("nothing_measured")
def test_codes_of_another_vocabulary_are_refused_before_anything_is_measured(spec: StageSpec) -> None:
    codes = {**CODES, "i13": [3, 0]}
    path = Path(spec.artifacts["semantic_ids"]) / "codes.parquet"
    lists = pa.array(list(codes.values()), pa.list_(pa.int32()))
    pq.write_table(pa.table({"item_id": list(codes), "codes": lists}), path)
    with pytest.raises(DataError, match="other semantic ids"):
        evaluate.main(spec)


@pytest.mark.usefixtures("nothing_measured")
def test_truncated_weights_are_refused_before_anything_is_measured(spec: StageSpec) -> None:
    weights = Path(spec.artifacts["sft"]) / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated or broken"):
        evaluate.main(spec)
