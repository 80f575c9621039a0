"""Evaluation end to end on a tiny catalogue: the tables agree with each other, the packaged model with the table."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from common.formulas import parse_formula
from tests.unit.training.sample_kit import write_rows
from training.core.backbone import BackboneConfig, build_backbone, save_backbone
from training.core.errors import DataError
from training.core.metrics import METRICS
from training.core.stage import StageSpec, TableRef, run_stage
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import codebook_sizes
from training.generative_rec.serve import Recommender, load
from training.generative_rec.stages import evaluate
from training.next_item import recommender as base
from training.next_item.samples import NextItem
from training.ranker.serve import SignalRow, package_baseline
from training.ranker.shop import Shop

CODES = {f"i{n}": [n // 4, n % 4] for n in range(11)} | {"i11": [2, 3, 0], "i12": [2, 3, 1]}
ROOT = Path(__file__).resolve().parents[5]
SMALL: dict[str, Any] = {
    "values": ["recall@3", "mrr"],
    "depth": 5,
    "resamples": 50,
}
COUNTED = ("popularity", "personal", "forward", "backward", "both")
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
    words = dict.fromkeys(("title", "brand", "description", "features"), [None] * len(CODES))
    items = {"item_id": list(CODES), "source": ["shop"] * len(CODES), "category": kinds, **words}
    schema = pa.schema([*((name, pa.string()) for name in items), ("price", pa.float64())])
    pq.write_table(pa.table({**items, "price": [None] * len(CODES)}, schema=schema), tmp_path / "items.parquet")
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


def _values(spec: StageSpec, split: str = "time", name: str = "recall@3") -> dict[str, list[dict[str, Any]]]:
    """The rows of one quantity by model."""
    by_model = defaultdict[str, list[dict[str, Any]]](list)
    for row in _table(spec, "eval_values", split):
        if row["name"] == name:
            by_model[row["model"]].append(row)
    return by_model


def test_every_model_is_measured_on_the_same_samples_and_the_tables_agree(spec: StageSpec) -> None:
    result = evaluate.main(spec)
    by_model = _values(spec)
    keys = {model: [(row["unit"], row["sample"]) for row in rows] for model, rows in by_model.items()}
    assert list(keys) == [*COUNTED, "sft", "fused"]
    assert all(found == keys["sft"] and len(found) == 31 == len(set(found)) for found in keys.values())
    assert {row["name"] for row in _table(spec, "eval_values")} == set(SMALL["values"])
    assert {row["split"] for row in _table(spec, "eval_values")} == {"time"}
    for model, rows in by_model.items():
        assert result.metrics[f"{model}.recall@3"] == pytest.approx(np.mean([row["value"] for row in rows]))
        assert result.metrics[f"{model}.recall@3.lo"] <= result.metrics[f"{model}.recall@3"]
        assert result.metrics[f"{model}.recall@3"] <= result.metrics[f"{model}.recall@3.hi"]


def test_the_evaluation_leaves_every_value_that_its_gate_asks_about() -> None:
    """The gate file names the quantities, the evaluation of its system writes them."""
    gate = yaml.safe_load((ROOT / "mlflow" / "gates" / "generative_rec.yaml").read_text())
    asked = {name for formula in gate["metrics"].values() for name in parse_formula(formula, "here").needs}
    assert asked <= set(evaluate.Config().values)
    stages = yaml.safe_load((ROOT / "training" / "generative_rec" / "pipeline.yaml").read_text())["stages"]
    (stage,) = [stage for stage in stages if "eval_values" in stage["writes"]["tables"]]
    assert not [preset for preset, config in stage["config"].items() if "values" in config]


def test_an_unknown_value_is_refused_with_those_that_are_known(spec: StageSpec) -> None:
    with pytest.raises(DataError, match=r"(?s)'recall@7' is no metric of a sample.*recall@10"):
        evaluate.main(dataclasses.replace(spec, config={**spec.config, "values": ["recall@7"]}))


class _Silent(base.Recommender):
    """Answers every other question; the others get an empty list."""

    catalogue = tuple(CODES)

    def answer(self, asked: Sequence[base.ListRequest], k: int, within: Collection[str] | None) -> list[base.Ranking]:
        return [[(f"i{n}", -float(n)) for n in range(k)] if place % 2 else [] for place, _ in enumerate(asked)]


def test_a_sample_without_a_list_was_not_scored_and_stays_in_every_denominator(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "rows", lambda _: {"popularity": _Silent()})
    evaluate.main(dataclasses.replace(spec, config={**spec.config, "splits": ["time"]}))
    rows = _values(spec)["popularity"]
    silent = sum(row["value"] is None for row in rows)
    assert len(rows) == 31 and 10 < silent < 20
    (line,) = [row for row in _table(spec, "model_metrics") if row["model"] == "popularity" and _is_headline(row)]
    assert (line["n"], line["scored"]) == (31, 31 - silent)
    assert line["value"] == pytest.approx(sum(row["value"] or 0.0 for row in rows) / 31)


def test_what_a_user_did_twice_with_an_item_on_a_day_is_one_sample(spec: StageSpec, tmp_path: Path) -> None:
    day = datetime(2018, 1, 3, tzinfo=UTC)
    twice = [("u0", day.date(), day + timedelta(hours=n), "i2", ["i1"], "test") for n in range(2)]
    first = ("u0", date(2018, 1, 1), datetime(2018, 1, 1, tzinfo=UTC), "i1", [], "train")
    table = TableRef((str(write_rows(tmp_path / "twice.parquet", [first, *twice])),))
    config = {**spec.config, "splits": ["time"]}
    evaluate.main(dataclasses.replace(spec, tables={**spec.tables, evaluate.TABLE: table}, config=config))
    assert [(row["unit"], row["sample"]) for row in _values(spec)["popularity"]] == [("u0", "2018-01-03 i2")]


def test_the_model_folder_describes_itself_and_answers_its_own_example(spec: StageSpec) -> None:
    evaluate.main(spec)
    folder = Path(spec.out) / "model"
    signature = json.loads((folder / "signature.json").read_text())
    example = pq.read_table(folder / "example.parquet").to_pandas()
    assert list(example) == [column["name"] for column in signature["inputs"] if column["required"]]
    answer = load(folder).predict(example, {"k": 3})
    assert list(answer) == [column["name"] for column in signature["outputs"]]
    assert [len(items) for items in answer["items"]] == [3, 3] == [len(scores) for scores in answer["scores"]]
    assert all(scores == sorted(scores, reverse=True) for scores in answer["scores"])


def test_the_leave_one_out_view_stands_beside_with_the_last_sample_of_each_user_and_rows_fitted_for_it(
    spec: StageSpec,
) -> None:
    result = evaluate.main(spec)
    found = _values(spec, "leave_one_out")
    assert {model: len(rows) for model, rows in found.items()} == dict.fromkeys(COUNTED, 31)
    newest = max(row["sample"].split()[0] for row in found["forward"])
    assert newest == str(date(2018, 1, 1) + timedelta(days=29 + 30 * 5))
    assert len({row["unit"] for row in found["forward"]}) == 31
    means = {row["model"]: row["value"] for row in _table(spec, "model_metrics", "leave_one_out") if _is_headline(row)}
    assert means == {m: result.metrics[f"leave_one_out.{m}.recall@3"] for m in COUNTED}


def _is_headline(row: dict[str, Any]) -> bool:
    return bool(row["metric"] == "recall@3" and row["slice"] == "all")


def test_a_model_of_the_time_split_has_no_leave_one_out_row_and_one_trained_for_it_has(spec: StageSpec) -> None:
    evaluate.main(spec)
    assert "sft" not in _values(spec, "leave_one_out")
    trained = Path(spec.artifacts["sft"])
    shutil.copytree(trained / "model", trained / "model_leave_one_out")
    again = dataclasses.replace(spec, out=f"{spec.out}-2")
    evaluate.main(again)
    assert "sft" in _values(again, "leave_one_out")


def test_slices_part_the_samples_and_each_row_says_where_it_is_from(spec: StageSpec) -> None:
    evaluate.main(spec)
    rows = _table(spec, "model_metrics")
    assert {row["origin"] for row in rows} == {"simulated"}
    counted = {row["slice"]: row["n"] for row in rows if row["model"] == "sft" and row["metric"] == METRICS[0]}
    named = Counter(name for row in _values(spec)["sft"] for name in row["slices"])
    assert {**named, "all": 31} == counted
    assert counted["all"] == 31
    assert sum(n for name, n in counted.items() if name.startswith("history=")) == 31
    assert counted["item=cold"] + counted["item=warm"] == 31
    assert counted["history=0"] == 1


def test_the_packaged_folder_serves_the_very_lists_that_were_measured(spec: StageSpec) -> None:
    evaluate.main(spec)
    model = Recommender.load(Path(spec.out) / "model")
    _serves_what_was_measured(spec, model, "sft")


def _serves_what_was_measured(spec: StageSpec, model: base.Recommender, name: str) -> None:
    """The truths stand in the lists of `model` where the row `name` of the table has them."""
    tests = pq.read_table(spec.tables[evaluate.TABLE].files[0]).to_pylist()
    history = {(row["user_id"], row["item_id"]): row["history_item_ids"] for row in tests}
    measured = [(row["unit"], row["sample"].split()[1], row["value"]) for row in _values(spec, name="mrr")[name]]
    served = model.recommend([history[user, item] for user, item, _ in measured], 5)
    for (_, item, value), line in zip(measured, served, strict=True):
        ids = [found for found, _ in line]
        assert value == pytest.approx(1 / (ids.index(item) + 1) if item in ids else 0.0)


def test_serving_returns_items_of_the_catalogue_best_first_and_reads_over_unknown_history(spec: StageSpec) -> None:
    evaluate.main(spec)
    model = Recommender.load(Path(spec.out) / "model")
    plain, with_gone, empty = model.recommend([["i1", "i2"], ["i1", "gone", "i2"], []], 13)
    assert plain == with_gone
    for line in (plain, empty):
        assert {item for item, _ in line} == set(CODES)
        assert [score for _, score in line] == sorted((score for _, score in line), reverse=True)


def test_the_best_baseline_is_packed_and_serves_the_very_lists_that_were_measured(spec: StageSpec) -> None:
    metrics = evaluate.main(spec).metrics
    folder = Path(spec.out) / "baseline"
    name = json.loads((folder / "baseline.json").read_text())["name"]
    assert metrics[f"{name}.ndcg@10"] == max(metrics[f"{row}.ndcg@10"] for row in COUNTED)
    _serves_what_was_measured(spec, load(folder), name)


@pytest.mark.parametrize("name", COUNTED)
def test_a_stand_in_is_the_row_that_it_names_and_keeps_within_a_catalogue(
    spec: StageSpec, tmp_path: Path, name: str
) -> None:
    evaluate.main(spec)
    package_baseline(spec.out_dir / "signals_time", name, tmp_path / "stand_in")
    model = load(tmp_path / "stand_in")
    assert isinstance(model, SignalRow)
    part = model.recommend([["i1", "i2"], [], ["gone"]], 4, within=["i3", "i4", "i5", "new"])
    assert [{item for item, _ in line} for line in part] == [{"i3", "i4", "i5"}] * 3


def test_each_row_stands_against_the_one_above_and_lists_say_how_many_kinds_they_have(spec: StageSpec) -> None:
    metrics = evaluate.main(spec).metrics
    names = (*COUNTED, "sft", "fused")
    steps = {f"{higher}.minus.{lower}.ndcg@10" for lower, higher in pairwise(names)}
    assert steps <= metrics.keys()
    line = [
        row for row in _table(spec, "model_metrics") if (row["model"], row["metric"]) == ("popularity", "categories@10")
    ]
    assert [row["value"] for row in line] == [metrics["popularity.categories@10"]] and 1 <= line[0]["value"] <= 3


def test_what_a_row_has_chosen_on_validation_is_said_with_the_figure_that_chose_it(spec: StageSpec) -> None:
    result = evaluate.main(spec)
    lines = {row["model"]: row for row in _table(spec, "model_metrics") if row["metric"] == "choice"}
    assert list(lines) == list(COUNTED) and {row["slice"] for row in lines.values()} == {"all"}
    assert lines["forward"]["reason"] in {f"reach {reach}" for reach in (1, 3, 5, 10)}
    assert lines["forward"]["value"] == result.metrics["forward.choice"]


def test_an_item_of_the_past_of_a_first_sample_is_warm(spec: StageSpec, tmp_path: Path) -> None:
    day = datetime(2018, 1, 1, tzinfo=UTC)
    rows = [
        ("u0", date(2018, 1, 1), day, "i1", ["i2"], "train"),
        ("u0", date(2018, 1, 2), day, "i3", ["i2", "i1"], "valid"),
        ("u0", date(2018, 1, 3), day, "i2", ["i2", "i1", "i3"], "test"),
        ("u1", date(2018, 1, 3), day, "i4", [], "test"),
    ]
    table = TableRef((str(write_rows(tmp_path / "warm.parquet", rows)),))
    config = {**spec.config, "splits": ["time"]}
    evaluate.main(dataclasses.replace(spec, tables={**spec.tables, evaluate.TABLE: table}, config=config))
    found = {row["sample"].split()[1]: row["slices"] for row in _values(spec)["popularity"]}
    assert "item=warm" in found["i2"] and "item=cold" in found["i4"]


def test_a_stage_that_was_left_out_has_the_figures_of_its_start(
    spec: StageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "sft", tmp_path / "rf_hard")
    record = {"accepted": False, "reason": "0 preferences", "ndcg_before": 0.2, "ndcg_after": 0.2, "preferences": 0.0}
    (tmp_path / "rf_hard" / "gate.json").write_text(json.dumps(record))
    artifacts = {**spec.artifacts, "rf_hard": str(tmp_path / "rf_hard"), "sp": str(tmp_path / "never_run")}
    models = {"models": {"sft": "semantic_ids", "rf_hard": "semantic_ids"}, "splits": ["time"]}
    asked = list[str]()
    measure = evaluate.measured

    def counting(name: str, *rest: Any) -> Any:
        asked.append(name)
        return measure(name, *rest)

    monkeypatch.setattr(evaluate, "measured", counting)
    chain = dataclasses.replace(spec, artifacts=artifacts, config={**spec.config, **models})
    result = evaluate.main(chain)
    assert asked == [*COUNTED, "sft"]  # what is served is the last model, as nothing was fused
    figures = {(row["model"], row["metric"], row["slice"]): row["value"] for row in _table(chain, "model_metrics")}
    of_sft = {key[1:]: value for key, value in figures.items() if key[0] == "sft"}
    assert of_sft == {key[1:]: value for key, value in figures.items() if key[0] == "rf_hard"} != {}
    assert "rf_hard.accepted" not in result.metrics


def test_without_a_ranker_the_signals_that_are_counted_stand_in_and_the_gate_file_says_so(spec: StageSpec) -> None:
    evaluate.main(spec)
    told = json.loads((spec.out_dir / "gate.json").read_text())
    assert told["accepted"] and told["note"].startswith("without ranker: none has been trained for the ")


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
    catalogue = tuple(CODES)

    def answer(self, asked: Sequence[base.ListRequest], k: int, within: Collection[str] | None) -> list[base.Ranking]:
        return [[("invented", 0.0)] for _ in asked]


def test_an_item_outside_of_the_catalogue_is_a_bug_that_stops_the_stage(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "rows", lambda _: {"popularity": _Inventor()})
    with pytest.raises(AssertionError, match="popularity recommended"):
        evaluate.main(spec)


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shop, "fitted", lambda *_: pytest.fail("a signal was fitted"))


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
