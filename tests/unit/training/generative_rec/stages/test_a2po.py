"""The stage on a toy shop with a judge and a ranker: it runs, its judged requests, and what it is left out for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.alignment_kit import ITEMS, killed_in_step, logged, named, weights, write_start
from tests.unit.training.generative_rec.test_judge_view import ROWS, with_statistics
from tests.unit.training.judge_kit import packaged_judge
from tests.unit.training.ranker_kit import with_ranker
from training.core.errors import DataError, LeftOut, Preempted
from training.core.policy.variants.two_rewards import Fusion, is_judged
from training.core.stage import StageSpec, TableRef, run_stage
from training.generative_rec.judge_view import JudgeView
from training.generative_rec.stages import a2po

POLICY = {"rounds": 4, "prompts": 16, "minibatch": 16, "rows": 4, "row_tokens": 64, "learning_rate": 0.003}
SMALL = {"beams": 6, "policy": {**POLICY, "eval_rounds": 2, "checkpoint_rounds": 2}}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StageSpec:
    folder = tmp_path_factory.mktemp("shop")
    spec = with_ranker(with_statistics(write_start(folder), folder, ROWS), folder / "ranker", ITEMS)
    return replace(spec, models={**spec.models, "semantic_judge": (packaged_judge(folder / "judge", ITEMS[:10]),)})


def ran(spec: StageSpec, name: str, **config: Any) -> dict[str, Any]:
    """What the stage reports."""
    own = named(spec, name, {**SMALL, **config})
    run_stage(own, a2po.main)
    return dict(json.loads((own.out_dir / "result.json").read_text()))


def test_the_judge_is_heard_where_it_agrees_and_no_bound_is_broken(spec: StageSpec) -> None:
    found = ran(spec, "all", judged_share=1.0)
    metrics = found["metrics"]
    assert not found["left_out"] and metrics["rounds"] == 4.0
    assert metrics["a2po.judged"] == 1.0 and metrics["a2po.bound_violations"] == 0.0
    assert 0.0 < metrics["a2po.agreement"] < 1.0 and 0.0 < metrics["a2po.lambda"] < metrics["a2po.agreement"]
    assert metrics["unknown_items"] == pytest.approx(2 / 12)
    own = named(spec, "all", {**SMALL, "judged_share": 1.0})
    assert len(logged(own, "sampler_gap")) == 1 and logged(own, "sampler_gap")[0] < 0.01
    assert (own.out_dir / "gate.json").is_file() and (own.out_dir / "model" / "model.safetensors").is_file()


def test_every_way_asks_the_judge_about_the_same_requests(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = JudgeView.scores, dict[str, list[list[int]]]()
    name = ""

    def scores(self: JudgeView, places: Sequence[int], items: Sequence[Sequence[str]]) -> Any:
        asked.setdefault(name, []).append(list(places))
        return whole(self, places, items)

    monkeypatch.setattr(JudgeView, "scores", scores)
    for name in get_args(Fusion):
        ran(spec, f"same_{name}", fusion=name, judged_share=0.4)
    name = "less"
    ran(spec, "less", judged_share=0.1)
    first = asked["a2po"]
    assert len(first) == 4 and sum(map(len, first)) > 10
    assert all(is_judged(place, 0.4, spec.seed) for places in first for place in places)
    assert all(found == first for way, found in asked.items() if way != "less")
    assert all(set(less) <= set(more) for less, more in zip(asked["less"], first, strict=True))


def test_what_the_judge_says_moves_every_way_but_the_business_alone(spec: StageSpec) -> None:
    still = weights(named(spec, "same_business", {}).out) if ran(spec, "same_business", fusion="business") else {}
    for fusion in get_args(Fusion):
        name = f"loud_{fusion}"
        ran(spec, name, fusion=fusion, judged_share=1.0, gate={"max_loss": 9.0, "valid": 0.0})
        lines = logged(named(spec, name, {}), "grad_norm")
        quiet = f"quiet_{fusion}"
        ran(spec, quiet, fusion=fusion, judged_share=0.0, gate={"max_loss": 9.0, "valid": 0.0})
        assert (lines == logged(named(spec, quiet, {}), "grad_norm")) == (fusion == "business"), fusion
    assert still


def test_a_run_that_was_interrupted_ends_as_a_straight_one(spec: StageSpec) -> None:
    ran(spec, "straight", judged_share=0.5)
    with killed_in_step(3, softly=True), pytest.raises(Preempted):
        ran(spec, "resumed", judged_share=0.5)
    found = ran(spec, "resumed", judged_share=0.5)
    straight, resumed = (named(spec, name, {}) for name in ("straight", "resumed"))
    assert found["resumed_from"] == 3 and weights(straight.out) == weights(resumed.out)
    assert logged(straight, "a2po/lambda") == logged(resumed, "a2po/lambda")


@pytest.mark.parametrize(("model", "words"), [("ranker", "no ranker"), ("semantic_judge", "no semantic judge")])
def test_without_a_ranker_or_a_judge_it_is_left_out(spec: StageSpec, model: str, words: str) -> None:
    models = {name: versions for name, versions in spec.models.items() if name != model}
    found = ran(replace(spec, models=models), f"without_{model}")
    assert words in found["left_out"]


def with_bids(spec: StageSpec, folder: Path, bids: Sequence[float]) -> StageSpec:
    columns = {"item_id": ITEMS, "bid_time": [datetime(2023, 12, 1, tzinfo=UTC)] * len(ITEMS), "bid": list(bids)}
    table = pa.table(columns).cast(
        pa.schema([("item_id", pa.string()), ("bid_time", pa.timestamp("us", "UTC")), ("bid", pa.float64())])
    )
    pq.write_table(table, folder / "bids.parquet")
    return replace(spec, tables={**spec.tables, "bids": TableRef((str(folder / "bids.parquet"),))})


def test_with_bids_what_is_paid_for_is_learnt_and_the_last_weights_stay(spec: StageSpec, tmp_path: Path) -> None:
    paid = with_bids(spec, tmp_path, [5.0 if item == "i3" else 0.001 for item in ITEMS])
    config = {"business": "ecpm", "judged_share": 0.5, "gate": {"max_loss": 9.0, "valid": 0.0}}
    found = ran(paid, "paid", **config, policy={**SMALL["policy"], "rounds": 8})
    assert found["metrics"]["best_round"] == 8.0 and found["metrics"]["a2po.bound_violations"] == 0.0
    earned = logged(named(spec, "paid", {}), "reward/ecpm")
    assert len(earned) == 8 and earned[-1] > 0.0


def test_without_bids_or_where_nobody_pays_it_is_left_out(spec: StageSpec, tmp_path: Path) -> None:
    assert "the shop has no bids" in ran(spec, "no_bids", business="ecpm")["left_out"]
    nobody = ran(with_bids(spec, tmp_path, [0.0] * len(ITEMS)), "nobody_pays", business="ecpm")
    gate = json.loads((named(spec, "nobody_pays", {}).out_dir / "gate.json").read_text())
    assert not nobody["left_out"] and not gate["accepted"]
    assert "says the same of all responses" in gate["reason"]


def test_a_share_is_from_0_to_1(spec: StageSpec) -> None:
    with pytest.raises(DataError, match=r"1\.5 is no share"):
        ran(spec, "share", judged_share=1.5)


def test_a_judge_of_later_days_is_not_asked(spec: StageSpec, tmp_path: Path) -> None:
    judge = packaged_judge(tmp_path / "later", ITEMS, "2024-01-05")
    later = replace(spec, models={**spec.models, "semantic_judge": (judge,)})
    with pytest.raises(LeftOut, match="some of them are held out"):
        a2po.main(named(later, "later", SMALL))
