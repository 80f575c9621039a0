"""What the sections of the report read from the marts."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from infra.report.marts import Marts
from infra.report.page import environment
from infra.report.sections import SECTIONS
from infra.report.sections.judge import WORDS, agreement, histograms, routed
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


NOTHING: dict[str, Any] = {
    "checks": [],
    "words": WORDS,
    **{name: [] for name in ("histograms", "profiles", "slices", "lists", "withheld", "routed", "agreement")},
    "data": "real",
}
"""What the judge's section has to say before the first night."""
CHECK: dict[str, Any] = {
    "run_date": "2026-01-05",
    "judge_version": "7",
    "check_name": "coverage",
    "measured_on": "night",
}
CHECK |= {"value": 0.5, "lower": 0.95, "upper": None, "passed": False, "why": "too few & so", "origin": "real"}


def judge_page(told: dict[str, Any]) -> str:
    page = environment().get_template("sections/judge.html.j2").render({**NOTHING, **told})
    return " ".join(page.split())


def test_a_withheld_night_is_said_in_a_sentence_and_shows_no_figure() -> None:
    version = {"model_version": "4", "role": "champion", "withheld": True, "submitted": 9, "scored": 0}
    mean = {**version, "aspect": "score", "raw": None, "corrected": None, "lo": None, "hi": None, "gold_cases": 5}
    part = {**version, "slice": "all", "score": None, "drift": None, "order_agreement": None}
    night = {"run_date": "2026-01-05", "judge_version": "7", "why": "too few & so"}
    told = {"checks": [CHECK], "profiles": [{**version, "aspects": [mean]}], "slices": [part], "withheld": [night]}
    page = judge_page(told)
    assert "The scores of 2026-01-05 are withheld:</strong> too few &amp; so." in page
    assert page.count("withheld</span>") == 2 and "+" not in page.split("<h3>What each")[1]
    assert "<svg" not in page and "language scorer" not in page and "kappa" not in page
    assert "No night was judged yet" in judge_page({})


EVIL = "<script>alert(1)</script>"


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Marts]:
    """A judge that says the same of all that the challenger lists, whose version has a name that is no name."""
    with duckdb.connect(str(tmp_path / "marts.duckdb")) as connection:
        connection.execute(
            """create table fct_judge_histogram as
                select '9' judge_version, model_version, role, bin / 5 as lower, (bin + 1) / 5 as upper,
                    if(one, if(bin = 3, 2000, 0), 100) scored, if(one, if(bin = 3, 1.0, 0.0), 0.1)::double as share
                from range(-5, 5) bins(bin), (values ('7', 'champion', false), (?, 'challenger', true))
                    versions(model_version, role, one)""",
            [EVIL],
        )
        connection.execute(
            """create table fct_model_metrics (logged_date date, run_id varchar, system varchar, stage varchar,
                version varchar, model varchar, metric varchar, value double, n bigint, origin varchar)"""
        )
        for day, stage, model, name, value in (
            ("2026-01-01", "teach", "teach", "kappa.context.teacher", 0.1),  # of the run before
            ("2026-01-02", "teach", "teach", "labelled", 90.0),
            *(("2026-01-02", "teach", "teach", f"kappa.{name}", value) for name, value in KAPPAS.items()),
            ("2026-01-01", "evaluate", "judge", "routed", 0.9),
            ("2026-01-02", "evaluate", EVIL, "routed", 0.1234),
        ):
            connection.execute(
                "insert into fct_model_metrics values (?, ?, 'semantic_judge', ?, null, ?, ?, ?, 1500, 'simulated')",
                [day, f"{stage} of {day}", stage, model, name, value],
            )
    duckdb.connect(str(tmp_path / "lake.duckdb")).close()
    found = Marts(tmp_path / "marts.duckdb", tmp_path / "lake.duckdb")
    yield found
    found.close()


KAPPAS = {
    **{"novelty.people": float("nan"), "novelty.people.weighted": float("nan"), "novelty.people.n": 3.0},
    **{"novelty.teacher": -0.25, "novelty.teacher.weighted": -0.5, "novelty.teacher.n": 40.0},
    **{"profile.teacher": 0.41, "profile.teacher.weighted": 0.625, "profile.teacher.n": 1200.0},
}


def test_the_spread_of_a_judges_scores_is_said_in_bars_and_in_words_on_one_scale(judged: Marts) -> None:
    page = judge_page({"checks": [CHECK], "histograms": histograms(judged)})
    bars = page.split("<h3>How its scores are spread</h3>")[1].split("</table>")[0]
    assert '0.6 to 0.8: 100.0 %</small></td> <td class="n">2,000</td>' in bars
    assert "-1.0 to -0.8: 10.0 %, -0.8 to -0.6: 10.0 %" in bars and '<td class="n">1,000</td>' in bars
    assert "<script" not in page and html.escape(EVIL) in bars and "http" not in re.sub(r"<svg.*?</svg>", "", page)
    even, one = (re.findall(r'<path d="([^"]*)"[^>]*fill: #2b6cb0', found["strip"]) for found in histograms(judged))
    assert len(even) == len(one) == 10
    assert heights(one)[8] == pytest.approx(10 * heights(even)[8]) and max(heights(one)[:8]) == 0


def test_a_run_that_has_routed_says_the_share_and_of_how_many(judged: Marts) -> None:
    page = judge_page({"routed": routed(judged)})
    assert "12.3 % of 1,500 cases" in page and "90.0 %" not in page and "simulated</span>" in page
    assert EVIL not in page and html.escape(EVIL) in page and "which is packaged" not in page
    assert "which is packaged" in judge_page({"routed": [{**routed(judged)[0], "model": "judge"}]})


def test_teacher_and_people_agree_as_the_newest_run_says_aspects_in_their_order(judged: Marts) -> None:
    told = agreement(judged)
    assert [(row["who"], row["aspect"], row["kappa"], row["weighted"], row["n"]) for row in told] == [
        ("teacher", "profile", 0.41, 0.625, 1200),
        ("teacher", "novelty", -0.25, -0.5, 40),
        ("people", "novelty", None, None, 3),
    ]
    page = judge_page({"agreement": told})
    numbers = '<td class="n">+0.410</td> <td class="n">+0.625</td> <td class="n">1,200</td>'
    assert f"<td>teacher and people</td> <td>profile</td> {numbers}" in page and "nan" not in page.lower()
    assert "simulated</span>" in page


def test_a_run_without_corrections_or_routing_says_nothing_of_them(marts: Marts) -> None:
    assert agreement(marts) == routed(marts) == []


def heights(paths: list[str]) -> list[float]:
    """How high each bar of a chart stands, in its own measure."""
    tops = [[float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)] for path in paths]
    return [max(ys) - min(ys) for ys in tops]
