"""The chain of stages of the demo on small shops: what can be made comes, what cannot is left out with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from common.models import ModelVersion
from tests.recommender_kit import write_histories
from tests.small_shop_kit import Event, titled, walks, write_shop
from tests.unit.training.scid_kit import embed
from training import jobs
from training.core.stage import StageSpec, TableRef, run_stage
from training.core.steps import Steps
from training.generative_rec.scid import inputs
from training.generative_rec.stages import recommend
from training.jobs import Job, stage_specs

SHORT: dict[str, dict[str, Any]] = {
    "collaborative": {"steps": 25},
    "scid_tokenizer": {"training": {"steps": 50}},
    "sft": {"loop": {"epochs": 1}},
    "evaluate": {"resamples": 50},
}
CHAIN = ["collaborative", "scid_tokenizer", "sft", "sp_easy", "sp_medium", "sp_hard", "rf_easy", "rf_hard", "fusion"]


@pytest.fixture(autouse=True)
def _cheap_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "embed_texts", embed)


def run_chain(folder: Path, events: list[Event], titles: dict[str, str | None]) -> dict[str, StageSpec]:
    """All stages of the demo, done; by name."""
    samples = write_shop(folder / "samples", events, titles)
    specs = stage_specs(Job("generative_rec", "demo", SHORT), samples, folder, seed=17)
    jobs.run(specs, folder)
    return {spec.stage: spec for spec in specs}


def result(spec: StageSpec) -> dict[str, Any]:
    return dict(json.loads((spec.out_dir / "result.json").read_text()))


def told(chain: dict[str, StageSpec]) -> dict[str, str]:
    """What was left out, and why, as the gate files say it; of the evaluation, what it did without."""
    files = {name: spec.out_dir / "gate.json" for name, spec in chain.items()}
    records = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    return {name: record["reason"] or record["note"] for name, record in records.items()}


def test_a_shop_of_60_items_gets_codes_of_its_size_and_a_model(tmp_path: Path) -> None:
    chain = run_chain(tmp_path, walks(users=220, items=60), titled(60))
    assert [name for name, spec in chain.items() if result(spec)["left_out"]] == ["fusion"]  # there is no ranker yet
    metrics = result(chain["scid_tokenizer"])["metrics"]
    assert min(metrics[f"{side}.balance.level_{level}"] for side in ("item", "user") for level in (1, 2, 3)) > 0.4
    assert metrics["item.usage.level_1"] == metrics["user.usage.level_1"] == 1.0
    codes = pq.read_table(chain["scid_tokenizer"].out_dir / "codes.parquet")["codes"].to_pylist()
    assert max(max(code[:3]) for code in codes) < 8
    values = pq.read_table(chain["evaluate"].out_dir / "tables/eval_values/part-0.parquet")
    assert values["model"].unique().to_pylist() == [
        "popularity",
        "personal",
        "forward",
        "backward",
        "both",
        "sft",
        "sp_hard",
        "rf_hard",
        "fused",
    ]
    assert (chain["evaluate"].out_dir / "model").is_dir()


def in_turns(items: int) -> list[Event]:
    """40 users who take the items in turns."""
    return [(f"u{user}", f"i{(user + step) % items:03d}", user % 7 + step) for user in range(40) for step in range(5)]


@pytest.mark.parametrize("items", [1, 2])
def test_a_shop_of_one_item_is_refused_before_any_training_and_has_baselines_and_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    monkeypatch.setattr(Steps, "run", lambda *_: pytest.fail("training began"))
    chain = run_chain(tmp_path, in_turns(items), titled(items))
    reasons, evaluated = told(chain), chain.pop("evaluate")
    assert list(chain) == CHAIN and all(result(spec)["left_out"] for spec in chain.values())
    assert f"{items} of at least 20 items in the catalogue" in reasons["collaborative"]
    assert reasons["sft"] == "it needs scid_tokenizer, which was left out"
    assert result(evaluated)["metrics"]["popularity.recall@10"] == 1.0
    assert result(evaluated)["metrics"]["models"] == 0 and not (evaluated.out_dir / "model").exists()
    rows = nightly(evaluated, tmp_path, {"u1": ["i000"], "new": []})
    assert [(row["user_id"], row["rank"]) for row in rows] == [
        (user, rank + 1) for user in ("new", "u1") for rank in range(items)
    ]
    assert {row["role"] for row in rows} == {"baseline"}


def nightly(evaluated: StageSpec, folder: Path, histories: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The lists of the packed baseline, by user and rank."""
    packed = evaluated.out_dir / "baseline"
    name = json.loads((packed / "baseline.json").read_text())["name"]
    tables = {"items": evaluated.tables["items"]}
    tables[recommend.HISTORIES] = TableRef((str(write_histories(folder / "histories.parquet", histories)),))
    models = {"generative_rec": (ModelVersion(name, "baseline", str(packed)),)}
    spec = StageSpec("generative_rec", "recommend", str(folder / "night"), 1, tables, models=models)
    run_stage(spec, recommend.main)
    rows = pq.read_table(spec.out_dir / "tables/recommendations/part-0.parquet").to_pylist()
    assert all(row["log_prob"] <= 0 for row in rows)
    return sorted(rows, key=lambda row: (row["user_id"], row["rank"]))


def once() -> list[Event]:
    return [(f"u{user}", f"i{user % 60:03d}", user % 50) for user in range(200)]


def on_days(*users_by_day: int) -> list[Event]:
    """So many users a day, all of whom come on the days before too."""
    return [
        (user, item, day)
        for day, users in enumerate(users_by_day)
        for user, item, _ in walks(users, 60, length=3 + day)
    ]


@pytest.mark.parametrize(
    ("events", "why", "measured"),
    [
        (lambda: walks(users=5, items=60), "of at least 20 users in the training part", True),
        (once, "nothing to train the collaborative encoder on", True),
        (lambda: on_days(60), "0 validation samples", False),
        (lambda: on_days(60, 20), "0 validation samples", True),
    ],
    ids=["five users", "users with one event each", "all on one day", "on two days"],
)
def test_what_there_is_too_little_data_for_is_left_out_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Callable[[], list[Event]], why: str, measured: bool
) -> None:
    monkeypatch.setattr(Steps, "run", lambda *_: pytest.fail("training began"))
    chain = run_chain(tmp_path, events(), titled(60))
    assert why in told(chain)["collaborative"]
    assert ("without the time split" in told(chain).get("evaluate", "")) != measured
    assert ("popularity.ndcg@10" in result(chain["evaluate"])["metrics"]) == measured
    rows = nightly(chain["evaluate"], tmp_path, {"u001": ["i000"], "new": []})
    assert {row["user_id"] for row in rows} == {"u001", "new"}


def test_items_that_left_the_catalogue_are_not_learnt_and_not_asked_for(tmp_path: Path) -> None:
    kept = dict(list(titled(30).items())[3:])
    chain = run_chain(tmp_path, walks(users=60, items=30), kept)
    assert [name for name, spec in chain.items() if result(spec)["left_out"]] == ["fusion"]  # there is no ranker yet
    codes = pq.read_table(chain["scid_tokenizer"].out_dir / "codes.parquet")["item_id"].to_pylist()
    samples = pq.read_table(chain["evaluate"].out_dir / "tables/eval_values/part-0.parquet")["sample"].to_pylist()
    assert set(codes) == set(kept) and {sample.split()[1] for sample in samples} <= set(kept)
    rows = nightly(chain["evaluate"], tmp_path, {"u1": ["i000", "i001"], "u2": ["i004"]})
    assert {row["item_id"] for row in rows} <= set(kept) and len(rows) == 40


def test_titles_that_are_all_missing_cost_the_text_tasks_and_no_more(tmp_path: Path) -> None:
    chain = run_chain(tmp_path, walks(users=40, items=30), dict.fromkeys(titled(30)))
    metrics = result(chain["sft"])["metrics"]
    assert metrics["rows.item_to_text"] == 0 and metrics["rows.sequential"] > 0 and metrics["items_without_title"] == 30


def test_a_left_out_stage_is_done_and_is_run_again_on_other_data(tmp_path: Path) -> None:
    first = run_chain(tmp_path, in_turns(1), titled(1))["collaborative"]
    assert not run_stage(first, lambda _: pytest.fail("it was run again"))
    more = write_shop(tmp_path / "more", walks(30, 30), titled(30))
    again = replace(first, tables={name: TableRef((str(more / f"{name}.parquet"),)) for name in first.tables})
    assert run_stage(again, lambda _: recommend.StageResult({}))
    assert not again.left_out("collaborative") and "left_out" in result(again)
