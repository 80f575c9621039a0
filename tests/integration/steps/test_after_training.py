"""From a finished evaluation to a champion, its tables and the page: every step for real, and every step twice."""

from __future__ import annotations

import json
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml

from dags.steps import decide, gate_report, report
from dags.steps._runs import open_run
from infra.contracts import arrow_schema, load_contract
from registry import decisions, runs
from registry.__main__ import main as command
from registry.promotions import GateNotPassed
from tests.lake_kit import put
from tests.registry_kit import GATE, MODEL, finish_stage

GOOD, BETTER, BAD = 20, 40, 0


def test_a_model_that_passes_its_gate_becomes_champion_by_flag(steps: Any) -> None:
    steps.train(GOOD)
    assert steps.register() == {"model": MODEL, "version": "1", "passed": True}
    asked = steps.promote()
    assert (asked["title"], asked["version"]) == ("toy version 1 (gate passed)", "1")
    assert "Gate passed: toy version 1" in asked["text"]
    (made,) = steps.decisions()
    assert (made.decision, made.from_version, made.to_version, made.who) == ("promote", None, "1", "flag")
    assert (made.override, made.reason) == (False, "approve_by_flag is set in the profile")
    assert steps.aliases() == {"champion": "1"}


def test_a_failed_gate_is_a_green_registration_and_its_approval_is_kept_as_a_rejection(steps: Any) -> None:
    steps.train(BAD)
    assert steps.register()["passed"] is False
    assert steps.promote()["title"] == "toy version 1 (GATE FAILED)"
    (made,) = steps.decisions()
    assert (made.decision, made.to_version) == ("reject", "1")
    assert made.reason.startswith("approved, but refused: ") and "ndcg@10 vs best_baseline" in made.reason
    assert steps.aliases() == {}


def test_a_person_may_override_a_failed_gate_and_says_why(steps: Any) -> None:
    steps.train(BAD)
    steps.register()
    steps.promote(who="ada", override=True, reason="a demonstration")
    (made,) = steps.decisions()
    assert (made.decision, made.override, made.reason, made.who) == ("promote", True, "a demonstration", "ada")


def test_a_rejection_without_words_says_so(steps: Any) -> None:
    steps.train(GOOD)
    steps.register()
    steps.promote("Reject", who="ada", reason=" ")
    (made,) = steps.decisions()
    assert (made.decision, made.reason) == ("reject", "rejected without a reason")


def test_a_worse_model_leaves_the_champion_and_a_better_one_follows_it(steps: Any) -> None:
    for hits in (GOOD, BAD, BETTER):
        steps.train(hits)
        steps.register()
        steps.promote()
    assert [(made.decision, made.from_version, made.to_version) for made in steps.decisions()] == [
        ("promote", None, "1"),
        ("reject", "1", "2"),
        ("promote", "1", "3"),
    ]
    assert steps.aliases() == {"champion": "3"}


@pytest.mark.parametrize(
    "change", [{"metrics": {"models": 0.0}}, {"metrics": {}, "tables": {}, "left_out": "no hints"}]
)
def test_a_run_whose_stages_were_left_out_registers_nothing_and_has_nothing_to_decide(
    steps: Any, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    steps.train(GOOD)
    run = open_run(steps.profile, steps.pipeline, "run 1", steps.day)
    file = run.stage("evaluate") / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, **change}))
    assert steps.register() == {"model": MODEL, "version": None, "passed": None}
    assert "stages were left out" in capsys.readouterr().out
    asked = steps.promote()
    assert asked == {"title": MODEL, "version": None, "text": "No version of toy is registered."}
    assert steps.decisions() == [] and steps.versions() == []


@pytest.mark.parametrize("hits", [GOOD, BAD])
def test_a_second_run_on_the_same_data_finds_the_version_and_has_nothing_to_decide(
    steps: Any, hits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.train(hits)
    first = steps.register()
    steps.promote()
    steps.export()
    before = steps.state()
    # Another Airflow run, on a later day that brought no data.
    again = steps.register("another run", steps.day + timedelta(days=3))
    assert (again["model"], again["version"]) == (first["model"], first["version"])
    capsys.readouterr()
    asked = steps.promote()
    assert asked == {"title": MODEL, "version": None, "text": "Every version of toy has been decided on."}
    assert "There is nothing to decide." in capsys.readouterr().out
    steps.export()
    assert steps.state() == before


def test_a_step_that_is_repeated_in_its_own_run_changes_nothing(steps: Any) -> None:
    steps.train(GOOD)
    first = steps.register()
    before = steps.state()
    assert steps.register() == first
    assert steps.state() == before


def test_registration_gives_the_runs_snapshots_free_and_keeps_the_models(steps: Any) -> None:
    steps.train(GOOD)
    steps.register()
    assert steps.state()["tags"] == [("model-toy-v1",)]


def test_metrics_and_decisions_reach_the_lake_and_the_analysts_page(steps: Any) -> None:
    for hits in (GOOD, BAD):
        steps.train(hits)
        steps.register()
        steps.promote()
    out = open_run(steps.profile, steps.pipeline, f"run {steps.days}", steps.day).stage("sft")
    gates = [(row["stage"], row["accepted"], row["reason"]) for row in _exported_gates(steps, out)]
    assert gates == [("rf_hard", False, "18 preferences")]
    told = {(row["to_version"], row["decision"], row["gate_passed"]) for row in steps.rows("ops_promotions")}
    assert told == {("1", "promote", True), ("2", "reject", False)}
    metrics = steps.rows("ops_model_metrics")
    compared = [row for row in metrics if row["stage"] == "evaluate"]
    keys = ("version", "value", "lo", "n", "scored", "shown")
    assert sorted(tuple(row[key] for key in keys) for row in compared) == [
        ("1", 0.4, 0.3, 60, 60, 0),  # the headline of the toy's gate file
        ("2", 0.4, 0.3, 60, 60, 0),
    ]
    final = {row["metric"]: row["value"] for row in metrics if row["stage"] == "sft"}
    assert (final["loss"], final["sft.coverage@10"], final["seconds"]) == (1.0, 0.5, 2.5)
    assert {row["version"] for row in metrics if row["stage"] == "sft"} == {None}

    assert report.main() == 0
    with duckdb.connect(str(steps.profile.home / "dbt" / "marts.duckdb"), read_only=True) as marts:
        found = marts.execute("select to_version, decision, champion_until from fct_promotions order by decision_id")
        assert found.fetchall() == [("1", "promote", None), ("2", "reject", None)]
    page = (steps.profile.home / "report" / "index.html").read_text()
    assert "approved, but refused" in page


def _exported_gates(steps: Any, out: Path) -> list[dict[str, Any]]:
    """The table of stage gates, after a stage beside `out` was logged with one."""
    stage = finish_stage(out.parent, "rf_hard", snapshot=1)
    (stage / "gate.json").write_text(json.dumps({"accepted": False, "reason": "18 preferences"}))
    runs.log_stage(steps.profile, stage, stage)
    steps.export()
    found: list[dict[str, Any]] = steps.rows("stage_gates")
    return found


def test_the_market_is_asked_again_when_somebody_decides_by_flag_by_hand_and_on_the_page(
    steps: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gates" / f"{MODEL}.yaml").write_text(
        yaml.safe_dump({**GATE, "market": [{"metric": "clicks", "share": -0.1}]})
    )
    steps.train(GOOD)
    steps.register()
    assert (
        "| not played yet | simulated: no night has lists of version 1 beside those of what stands in"
        in steps.promote()["text"]
    )
    steps.train(BETTER)
    steps.register()
    asked = steps._run(gate_report, ["--model", MODEL])
    assert asked["title"].endswith("(gate passed)") and "no night has lists of version 2" in asked["text"]

    # The night comes while the person thinks: half of the champion's clicks are lost.
    put(steps.profile, "market_replay", played(difference=-1.0))
    capsys.readouterr()
    with pytest.raises(GateNotPassed, match="clicks in the simulated market vs champion") as refused:
        decisions.promote(steps.profile, MODEL, who="ada")
    said = str(refused.value)
    assert "mlflow/gates/toy.yaml" in said and "the lists of 2018-01-08" in said and "--override" in said
    answer = ["--answer", "Approve", "--form", '{"override": false}', "--who", "flag"]
    steps._run(decide, ["--model", MODEL, "--version", "2", *answer])
    made = steps.decisions()[-1]
    assert (made.decision, made.report.market) == ("reject", "failed")
    assert "approved, but refused: " in made.reason and "simulated" in made.reason
    steps._run(decide, ["--model", MODEL, "--version", "2", *answer[:2], *UPON_ME])
    assert "clicks in the simulated market vs champion: failed (" in capsys.readouterr().out

    steps.export()
    told = {(row["decision_id"], row["decision"], row["market"]) for row in steps.rows("ops_promotions")}
    assert told == {(1, "promote", "not played yet"), (2, "reject", "failed"), (3, "promote", "failed")}
    monkeypatch.setattr(sys, "argv", ["registry", "history", "--model", MODEL])
    assert command() == 0
    assert "failed, simulated market failed, overridden" in " ".join(capsys.readouterr().out.split())


UPON_ME = ("--form", '{"override": true, "reason": "a test"}', "--who", "ada")


def played(difference: float) -> pa.Table:
    """A night of version 1, the champion with 2 clicks a person, and version 2, certainly so much from it."""
    night = {"run_date": date(2018, 1, 8), "metric": "clicks", "people": 60, "days": 10, "random": 0.5, "oracle": 5.0}
    night |= {"parameters_hash": "abc", "seed": 7}
    change = {"against": "1", "difference": difference, "lo": difference, "hi": difference}
    rows = [
        {**night, "model_version": "1", "role": "champion", "value": 2.0},
        {**night, "model_version": "2", "role": "challenger", "value": 2.0 + difference, **change},
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(load_contract("market_replay")))
