"""What the sections of the report read from the marts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from infra.report.marts import Marts
from infra.report.sections import SECTIONS
from infra.report.sections.judge import WORDS
from infra.report.sections.models import evaluations, model_metrics, shown

EVALUATIONS = [
    ("run_ff", "2026-01-01", "1"),
    ("run_ee", "2026-01-02", "9"),
    ("run_aa", "2026-01-02", "10"),  # the later one of its day, whatever the names of the runs
    ("run_zz", "2026-01-02", None),  # never registered
]
PLACE = {"system": "s", "stage": "evaluate", "split": "time"}


@pytest.fixture
def marts(tmp_path: Path) -> Iterator[Marts]:
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
        training = ["run_sft", "2026-01-03", None, "s", "sft", "training", "all", "loss", "sft", 1.0, None]
        connection.execute(f"insert into fct_model_metrics values ({', '.join('?' * 11)})", training)
    duckdb.connect(str(tmp_path / "lake.duckdb")).close()
    found = Marts(tmp_path / "marts.duckdb", tmp_path / "lake.duckdb")
    yield found
    found.close()


def test_of_two_evaluations_of_one_day_the_one_registered_last_is_shown(marts: Marts) -> None:
    assert [(row["run_id"], row["model"]) for row in model_metrics(marts)] == [
        ("run_aa", "sft"),
        ("run_aa", "popularity"),
    ]


def test_the_history_of_a_metric_is_newest_first_and_each_evaluation_stands_once(marts: Marts) -> None:
    found = evaluations(marts, PLACE, "recall@10")
    assert [one.run_id for one in found] == ["run_aa", "run_ee", "run_zz", "run_ff"]
    assert [sorted(one.by_model) for one in found] == [["popularity", "sft"]] * 4
    assert [one.by_model["sft"]["value"] for one in found] == pytest.approx([0.2, 0.1, 0.3, 0.0])
    assert evaluations(marts, {**PLACE, "system": "other"}, "recall@10") == []


def metric(name: str, place: int | None, part: str = "all") -> dict[str, Any]:
    return {"metric": name, "shown": place, "slice": part}


def test_the_gate_file_says_what_is_shown_and_without_one_everything_is() -> None:
    told = [metric("ndcg@10", 1), metric("mrr", None), metric("recall@10", 0), metric("recall@10", 0, "new")]
    assert shown(told) == ["recall@10", "ndcg@10"]
    assert shown([metric("macro_f1", None), metric("accuracy", None)]) == ["accuracy", "macro_f1"]


def test_each_section_of_the_list_has_a_module_with_a_template_and_no_template_is_left_over() -> None:
    import infra.report.sections

    folder = Path(infra.report.sections.__file__).parent
    assert {file.name.removesuffix(".html.j2") for file in folder.glob("*.j2")} == set(SECTIONS)
    assert {file.stem for file in folder.glob("*.py")} - {"__init__"} == set(SECTIONS)


def test_a_withheld_night_is_said_in_a_sentence_and_shows_no_figure() -> None:
    from infra.report.page import environment

    check = {"run_date": "2026-01-05", "judge_version": "7", "check_name": "coverage", "measured_on": "night"}
    check |= {"value": 0.5, "lower": 0.95, "upper": None, "passed": False, "why": "too few & so", "origin": "real"}
    version = {"model_version": "4", "role": "champion", "withheld": True, "submitted": 9, "scored": 0}
    mean = {**version, "aspect": "score", "raw": None, "corrected": None, "lo": None, "hi": None, "gold_cases": 5}
    part = {**version, "slice": "all", "score": None, "drift": None, "order_agreement": None}
    night = {"run_date": "2026-01-05", "judge_version": "7", "why": "too few & so"}
    told = {"checks": [check], "words": WORDS, "profiles": [{**version, "aspects": [mean]}], "slices": [part]}
    page = (
        environment()
        .get_template("sections/judge.html.j2")
        .render({**told, "lists": [], "withheld": [night], "data": "real"})
    )
    assert "The scores of 2026-01-05 are withheld:</strong> too few &amp; so." in " ".join(page.split())
    assert page.count("withheld</span>") == 2 and "+" not in page.split("<h3>What each")[1]
    nothing = {**told, "checks": [], "profiles": [], "slices": [], "lists": [], "withheld": [], "data": "real"}
    assert "No night was judged yet" in environment().get_template("sections/judge.html.j2").render(nothing)
