from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from infra.report.queries import Marts, evaluations, model_metrics, rungs

EVALUATIONS = [
    ("run_ff", "2026-01-01", "1"),
    ("run_ee", "2026-01-02", "9"),
    ("run_aa", "2026-01-02", "10"),  # the later one of its day, whatever the names of the runs
    ("run_zz", "2026-01-02", None),  # never registered
]


@pytest.fixture
def marts(tmp_path: Path) -> Marts:
    with duckdb.connect(str(tmp_path / "marts.duckdb")) as connection:
        connection.execute(
            """create table fct_model_metrics (run_id varchar, logged_date date, version varchar, system varchar,
               stage varchar, split varchar, slice varchar, metric varchar, model varchar, value double, n bigint)"""
        )
        for place, (run, day, version) in enumerate(EVALUATIONS):
            row = [run, day, version, "s", "evaluate", "time", "all", "recall@10"]
            for model, value in (("popularity", 0.05), ("sft", 0.1 * place)):
                connection.execute(
                    "insert into fct_model_metrics values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 60)", [*row, model, value]
                )
    duckdb.connect(str(tmp_path / "lake.duckdb")).close()
    return Marts(tmp_path / "marts.duckdb", tmp_path / "lake.duckdb")


def test_of_two_evaluations_of_one_day_the_one_registered_last_is_shown(marts: Marts) -> None:
    assert [(row["run_id"], row["model"]) for row in model_metrics(marts)] == [
        ("run_aa", "sft"),
        ("run_aa", "popularity"),
    ]
    marts.close()


def test_the_history_of_a_metric_is_newest_first_and_each_evaluation_stands_once(marts: Marts) -> None:
    found = evaluations(marts, "recall@10")["s", "time"]
    assert [one.run_id for one in found] == ["run_aa", "run_ee", "run_zz", "run_ff"]
    assert [sorted(one.by_model) for one in found] == [["popularity", "sft"]] * 4
    assert [one.by_model["sft"]["value"] for one in found] == pytest.approx([0.2, 0.1, 0.3, 0.0])
    marts.close()


def test_rungs_come_in_their_order_with_their_figures_and_the_reason_of_one_that_was_left_out() -> None:
    told = {
        "sp_easy": {"place": 1.0, "stands": 1.0},
        "rf_easy": {"stands": 0.0, "place": 2.0},
        "rf_hard": {"stands": 1.0, "place": 3.0, "unmoved": 1.0},
    }
    why = {"sp_easy": None, "rf_easy": "3 preferences", "rf_hard": None}
    outcomes = {
        "sp_easy": "stands",
        "rf_easy": "left out: 3 preferences",
        "rf_hard": "unchanged: no step ranked better than the start",
    }
    rows = [
        {"system": "s", "split": "training", "model": rung, "metric": name, "value": value, "origin": "real"}
        | {"reason": why[rung] if name == "stands" else None}
        for rung in sorted(told)
        for name, value in told[rung].items()
    ]
    rows.append({"system": "s", "split": "time", "model": "sft", "metric": "recall@10", "value": 0.1})
    facts = {"system": "s", "origin": "real"}
    expected = [
        {**facts, "rung": rung, "reason": why[rung], "outcome": outcomes[rung], **figures}
        for rung, figures in told.items()
    ]
    assert rungs(rows) == expected


def test_an_evaluation_without_a_comparison_has_no_rungs() -> None:
    facts = {"system": "s", "split": "training", "model": "evaluate", "origin": "real", "reason": None}
    assert rungs([{**facts, "metric": "seconds", "value": 2.5}]) == []
