"""A small shop's ranker and generator, fused, measured, packaged and served: the whole way on real stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from common.models import ModelVersion
from tests.recommender_kit import write_histories
from tests.small_shop_kit import titled, walks, write_shop
from tests.unit.training.scid_kit import embed
from training import jobs
from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef, run_stage
from training.generative_rec.scid import inputs
from training.generative_rec.serve import load
from training.generative_rec.stages import evaluate, fusion, recommend
from training.jobs import Job, stage_specs
from training.ranker.serve import RankerRow

LEARNER = {"rounds": 20, "patience": 10, "min_data_in_leaf": 5, "num_leaves": [7]}
TOLD = "user_recency__days_since_last_event"
RANKER = {"ranker": {"signals": {"sasrec": {"epochs": 1, "width": 8}}, "learner": LEARNER, "store_features": [TOLD]}}
SHORT: dict[str, dict[str, Any]] = {
    "collaborative": {"steps": 25},
    "scid_tokenizer": {"training": {"steps": 50}},
    "sft": {"loop": {"epochs": 1}},
    "evaluate": {"resamples": 50},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageSpec]:
    """The stages of both systems, done; by name, the ranker's evaluation as `ranked`."""
    folder = tmp_path_factory.mktemp("shop")
    samples = write_shop(folder / "samples", walks(users=220, items=60), titled(60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "embed_texts", embed)
        of_ranker = stage_specs(Job("ranker", "demo", RANKER), samples, folder / "ranker", seed=17)
        jobs.run(of_ranker, folder / "ranker")
        models = {"ranker": folder / "ranker" / "evaluate" / "model"}
        job = Job("generative_rec", "demo", SHORT)
        specs = stage_specs(job, samples, folder / "generator", seed=17, models=models)
        jobs.run(specs, folder / "generator")
    return {"ranked": of_ranker[-1], **{spec.stage: spec for spec in specs}}


def values(spec: StageSpec) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(spec.out_dir / "tables/eval_values/part-0.parquet").to_pylist()
    return rows


def test_all_rows_stand_beside_each_other(chain: dict[str, StageSpec]) -> None:
    signals = ["popularity", "personal", "forward", "backward", "both", "text", "sasrec", "ranker"]
    found = list(dict.fromkeys(row["model"] for row in values(chain["evaluate"])))
    assert found == [*signals, "sft", "sp_hard", "rf_hard", "fused"]
    assert len({(row["unit"], row["sample"]) for row in values(chain["evaluate"])}) * len(found) * 4 == len(
        values(chain["evaluate"])
    )


def test_the_signals_have_the_figures_of_the_rankers_own_evaluation(chain: dict[str, StageSpec]) -> None:
    """The same model, asked about the same samples, by another system."""
    own, other = (
        {(row["model"], row["unit"], row["sample"], row["name"]): row["value"] for row in values(chain[name])}
        for name in ("ranked", "evaluate")
    )
    assert own and {key: other[key] for key in own} == own


def test_the_packaged_folder_answers_with_the_fused_list_and_its_reasons(
    chain: dict[str, StageSpec], tmp_path: Path
) -> None:
    model = load(chain["evaluate"].out_dir / "model")
    assert isinstance(model, RankerRow) and "generator" in model.bundle.signals
    assert list(model.store_features) == [TOLD]
    inputs = json.loads((chain["evaluate"].out_dir / "model" / "signature.json").read_text())["inputs"]
    assert TOLD in [one["name"] for one in inputs]
    tables = {
        recommend.HISTORIES: TableRef((str(write_histories(tmp_path / "h.parquet", {"u001": ["i001"], "new": []})),)),
        "items": chain["evaluate"].tables["items"],
    }
    version = ModelVersion("1", "champion", str(chain["evaluate"].out_dir / "model"))
    spec = StageSpec(
        "generative_rec", "recommend", str(tmp_path / "night"), 1, tables, models={"generative_rec": (version,)}
    )
    run_stage(spec, recommend.main)
    rows = pq.read_table(spec.out_dir / "tables/recommendations/part-0.parquet").to_pylist()
    lists = model.recommend([["i001"], []], 20, users=["u001", "new"])
    for user, expected in zip(("u001", "new"), lists, strict=True):
        found = sorted((row for row in rows if row["user_id"] == user), key=lambda row: row["rank"])
        assert [row["item_id"] for row in found] == [item for item, _ in expected] and len(found) == 20
        assert [row["log_prob"] for row in found] == sorted((row["log_prob"] for row in found), reverse=True)
    told = [row for row in rows if row["reasons"]]
    assert told and all(len(row["reasons"]) == len(row["reason_scores"]) <= 3 for row in rows)
    assert all(row["reason_scores"] == sorted(row["reason_scores"], reverse=True) for row in told)
    assert all(score > 0 for row in told for score in row["reason_scores"])


def test_without_a_champion_the_best_other_row_stands_in(chain: dict[str, StageSpec]) -> None:
    folder = chain["evaluate"].out_dir / "baseline"
    named = json.loads((folder / "baseline.json").read_text())["name"]
    metrics = json.loads((chain["evaluate"].out_dir / "result.json").read_text())["metrics"]
    others = ("popularity", "personal", "forward", "backward", "both", "text", "sasrec", "ranker")
    assert metrics[f"{named}.ndcg@10"] == max(metrics[f"{row}.ndcg@10"] for row in others)
    assert len(load(folder).recommend([["i001"]], 20)[0]) == 20


def test_without_a_ranker_the_generator_is_served_alone_and_with_one_of_another_split_nothing_is(
    chain: dict[str, StageSpec], tmp_path: Path
) -> None:
    alone = replace(chain["fusion"], out=str(tmp_path / "alone"), models={})
    run_stage(alone, fusion.main)
    told = json.loads((alone.out_dir / "result.json").read_text())["left_out"]
    assert told.startswith("no ranker has been trained yet")
    other = replace(chain["fusion"], out=str(tmp_path / "other"), config={**alone.config, "split": "leave_one_out"})
    with pytest.raises(DataError, match="of the split"):
        run_stage(other, fusion.main)


def test_a_ranker_that_differs_in_what_may_be_ranked_is_refused(chain: dict[str, StageSpec], tmp_path: Path) -> None:
    spec = replace(
        chain["evaluate"], out=str(tmp_path / "other"), config={**chain["evaluate"].config, "rank_own": False}
    )
    with pytest.raises(DataError, match="whether a user's own items may be ranked"):
        run_stage(spec, evaluate.main)
