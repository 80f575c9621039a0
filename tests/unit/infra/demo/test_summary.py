"""What the demo ends with: read from marts made by hand, written as JSON, printed as tables."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from infra.dbt import marts_path
from infra.demo.summary import _lists, _stage_gates, _standing, collect, show, write
from infra.demo.watch import Chain, Task
from infra.profile import Profile

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
METRIC = {"run_id": "r", "logged_date": "2026-01-02", "system": "generative_rec", "stage": "evaluate", "version": "2"}
METRICS = [
    {**METRIC, "model": model, "metric": metric, "slice": "all", "split": "time", "shown": shown}
    | {"value": value, "lo": value - 0.01, "hi": value + 0.01, "n": 60, "scored": scored, "origin": "real"}
    for model, metric, value, scored, shown in (
        ("popularity", "recall@10", 0.05, 60, 0),
        ("sft", "recall@10", 0.07, 45, 0),
        ("sft", "mrr", 0.03, 60, None),
        ("sft", "ndcg@10", 0.04, 60, 1),
    )
]
METRICS += [{**METRICS[0], "slice": "history=0"}, {**METRICS[0], "split": "training", "stage": "sft"}]
METRICS += [{**METRICS[0], "system": "judge", "metric": "macro_f1", "value": 0.6, "shown": None}]


MARTS = {
    "fct_partition_quality": "asset varchar, partition_date date, rows_in bigint, rows_out bigint, "
    "rows_quarantined bigint, is_balanced boolean, has_failures boolean, committed_at timestamptz",
    "fct_model_metrics": "run_id varchar, logged_date date, system varchar, stage varchar, version varchar, "
    "model varchar, metric varchar, slice varchar, split varchar, value double, lo double, hi double, n bigint, "
    "scored bigint, origin varchar, reason varchar, shown bigint",
    "fct_stage_gates": "system varchar, run varchar, stage varchar, finished_at timestamptz, accepted boolean, "
    "reason varchar, note varchar, metric varchar, start double, before double, after double, lower double, "
    "origin varchar, is_newest boolean",
    "fct_promotions": "decision_id bigint, model varchar, decision varchar, to_version varchar, who varchar, "
    "reason varchar",
    "fct_recommendations": "run_date date, model_version varchar, role varchar, users bigint",
}


def table(connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: list[dict[str, Any]]) -> None:
    connection.execute(f"create table {name} ({columns})")
    for row in rows:
        named = ", ".join(f'"{key}"' for key in row)
        connection.execute(f"insert into {name} ({named}) values ({', '.join('?' * len(row))})", list(row.values()))


@pytest.fixture
def summary(profile: Profile) -> dict[str, Any]:
    """Collected from marts of one evaluation, two stage gates, a rejection after a promotion, and one night's lists."""
    marts_path(profile).parent.mkdir(parents=True)
    (profile.home / "lake").mkdir(parents=True)
    duckdb.connect(str(profile.home / "lake" / "lake.duckdb")).close()
    quality = {"asset": "events", "partition_date": "2026-01-01", "rows_in": 9, "rows_out": 8, "rows_quarantined": 1}
    quality |= {"is_balanced": True, "has_failures": True, "committed_at": "2026-01-01 12:00Z"}
    gate = {"system": "generative_rec", "run": "2026-01-01-ff", "origin": "real", "is_newest": True, "accepted": True}
    judged = {"reason": "", "metric": "ndcg@10", "before": 0.1, "after": 0.2}
    decision = {"model": "m", "decision": "promote", "to_version": "1", "who": "flag", "reason": "x"}
    refused = {"decision_id": 2, "decision": "reject", "to_version": "2", "who": "ada", "reason": "no"}
    night = {"run_date": "2026-01-01", "model_version": "1", "role": "champion", "users": 12}
    rows: dict[str, list[dict[str, Any]]] = {
        "fct_partition_quality": [quality],
        "fct_model_metrics": METRICS,
        "fct_stage_gates": [gate | {"stage": "sp"} | judged, gate | {"stage": "old", "is_newest": False}],
        "fct_promotions": [decision | {"decision_id": 1}, decision | refused],
        "fct_recommendations": [night, night | {"run_date": "2025-12-31", "users": 5}],
    }
    with duckdb.connect(str(marts_path(profile))) as connection:
        for name, columns in MARTS.items():
            table(connection, name, columns, rows[name])
    return collected(profile)


def collected(profile: Profile) -> dict[str, Any]:
    chain = Chain(since=BEGAN, partition_key="2026-01-01", dags=("ingest",))
    chain.tasks["ingest"] = [Task("ingest", "land", "success", BEGAN, BEGAN, BEGAN, 1)]
    return collect(profile, chain, started=3.21, seconds=100.04)


def test_the_summary_is_what_the_marts_and_the_scheduler_say(summary: dict[str, Any]) -> None:
    assert (summary["seconds"], summary["seconds_to_start"]) == (100.0, 3.2)
    assert summary["reused"]  # the events were committed before this chain began
    assert summary["tables"] == {"events": {"rows": 8, "quarantined": 1, "partitions": 1, "data": "real"}}
    assert {(row["system"], row["model"], row["metric"]) for row in summary["metrics"]} == {
        ("generative_rec", "popularity", "recall@10"),
        ("generative_rec", "sft", "recall@10"),
        ("generative_rec", "sft", "mrr"),
        ("generative_rec", "sft", "ndcg@10"),
        ("judge", "popularity", "macro_f1"),
    }
    assert [(gate["stage"], gate["after"]) for gate in summary["stage_gates"]] == [("sp", 0.2)]
    assert summary["champions"] == {"m": {"version": "1", "who": "flag"}}  # a rejection leaves it
    assert {model: row["decision"] for model, row in summary["decisions"].items()} == {"m": "reject"}
    assert [(one["role"], one["users"]) for one in summary["lists"]] == [("champion", 12)]  # of the newest day alone
    assert [(task["dag"], task["task"], task["state"]) for task in summary["tasks"]] == [("ingest", "land", "success")]


def test_all_tables_of_a_simulated_shop_are_called_so(summary: dict[str, Any], profile: Profile) -> None:
    simulated = collected(profile.model_copy(update={"landing_origin": "simulated"}))
    assert [table["data"] for table in (*summary["tables"].values(), *simulated["tables"].values())] == [
        "real",
        "simulated",
    ]


def test_it_is_written_and_shown_by_the_metrics_of_the_gate_file(summary: dict[str, Any], tmp_path: Path) -> None:
    path = write(summary, tmp_path / "demo")
    assert json.loads(path.read_text())["champions"]["m"]["version"] == "1"
    shown = io.StringIO()
    show(summary, path, Console(file=shown, width=160))
    said = shown.getvalue()
    header = next(line for line in said.splitlines() if "recall@10" in line)
    assert "ndcg@10" in header and "mrr" not in header  # what the gate does not show is in the JSON alone
    assert said.index("sft ") < said.index("popularity ")  # best by the headline first
    assert "45 of 60 scored" in said and said.count("scored") == 1
    assert "macro_f1" in said and "judge, global time split" in said
    assert "champion: m version 1 (promoted by flag)" in said
    assert "reused: every landed row was committed before" in said and "lists: 12 users" in said


def test_a_shop_that_publishes_no_lists_is_not_told_that_they_are_missing(
    summary: dict[str, Any], tmp_path: Path
) -> None:
    for task, told in (("land", False), ("recommend", True)):
        shown = io.StringIO()
        show({**summary, "lists": [], "tasks": [{**summary["tasks"][0], "task": task}]}, tmp_path, Console(file=shown))
        assert ("lists: none yet" in shown.getvalue()) == told


def test_a_stage_that_was_left_out_says_why() -> None:
    figures: dict[str, Any] = {"origin": "real", "metric": "ndcg@10", "before": 0.0318, "after": 0.0311, "note": ""}
    nothing = {"origin": "real", "metric": None, "before": None, "after": None, "note": None}
    why = "NDCG@10 0.0318 to 0.0311, at worst -7.1% (95%), more than 5% allowed"
    shown = io.StringIO()
    gates = [
        {**figures, "stage": "sp_easy", "accepted": True, "reason": "", "note": "436 preferences"},
        {**figures, "stage": "rf_hard", "accepted": False, "reason": why},
        {**nothing, "stage": "sft", "accepted": False, "reason": "the shop is too small"},
    ]
    Console(file=shown, width=200).print(_stage_gates(gates))
    easy, hard = [line for line in shown.getvalue().splitlines() if "0.0311" in line]
    assert "accepted" in easy and "left out" not in easy
    assert f"left out: {why}" in hard
    assert "left out: the shop is too small" in shown.getvalue() and "436 preferences" in shown.getvalue()


def test_the_end_names_who_made_the_lists_or_says_that_there_are_none() -> None:
    made = [
        {"by": "3", "role": "champion", "users": 1200, "day": "2024-03-01"},
        {"by": "covisit", "role": "baseline", "users": 9, "day": "2024-03-01"},
    ]
    said = "1,200 users by version 3 (champion), 9 users by covisit (baseline)"
    assert _lists({"lists": made}) == f"lists: {said}, histories up to 2024-03-01"
    assert "no version was promoted" in _lists({"lists": []})


def test_each_model_that_was_decided_on_has_a_line() -> None:
    refused = {"model": "ranker", "decision": "reject", "who": "flag", "reason": "its gate failed"}
    champions = {"m": {"version": "2", "who": "ada"}}
    said = _standing({"decisions": {"ranker": refused, "m": {"decision": "promote"}}, "champions": champions})
    assert said == [
        "champion: m version 2 (promoted by ada)",
        "champion: none yet of ranker; last decision: reject by flag, its gate failed",
    ]
    assert _standing({"decisions": {}, "champions": {}}) == ["champion: none yet"]
