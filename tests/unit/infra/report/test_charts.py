"""Charts as inline SVG: what they say can be read in their text."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

from infra.report import charts

START = datetime(2026, 1, 1, tzinfo=UTC)


def texts(svg: str) -> list[str]:
    return [found.strip() for found in re.findall(r"<text[^>]*>([^<]+)</text>", svg)]


def row(model: str, value: float, lo: float | None, hi: float | None) -> dict[str, Any]:
    return {"model": model, "value": value, "lo": lo, "hi": hi}


def test_the_models_stand_best_on_top_with_their_figures_and_the_metric_is_named() -> None:
    svg = charts.intervals([row("sft", 0.05, 0.04, 0.06), row("covisit", 0.07, None, None)], "macro_f1")
    ElementTree.fromstring(svg)
    assert svg.startswith("<svg") and 'aria-label="macro_f1 by model"' in svg
    said = texts(svg)
    assert {"sft", "covisit", "0.0500", "0.0700", "macro_f1"} <= set(said)
    heights = {name: _height(svg, name) for name in ("sft", "covisit")}
    assert heights["covisit"] < heights["sft"]  # SVG counts from the top


def test_a_figure_without_an_interval_has_a_point_and_no_bar() -> None:
    with_bar, without = (charts.intervals([row("a", 0.5, lo, hi)], "m") for lo, hi in ((0.4, 0.6), (None, None)))
    assert with_bar.count("stroke-linecap: round") == without.count("stroke-linecap: round") + 1


def test_rows_per_day_have_a_bar_for_each_day_and_the_quarantined_below() -> None:
    days = [(date(2026, 1, 1) + timedelta(days=n), 10, n) for n in range(3)]
    svg = charts.rows_per_day(days)
    ElementTree.fromstring(svg)
    # Bars share an outline: up, across and down again for each day.
    for colour in (charts._ACCENT, charts._BAD):
        (path,) = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: {colour}', svg)
        heights = [round(float(y), 3) for y in re.findall(r"[ML] \S+ (\S+)", path)]
        tops = {height for height in heights if height != heights[0]}
        assert len(tops) == (1 if colour == charts._ACCENT else 2)  # three equal days; none, one and two refused rows


def test_a_task_that_failed_is_red_and_each_says_how_long_it_worked() -> None:
    tasks = [
        {"dag_id": "d", "task_id": name, "queued_at": START, "started_at": START + timedelta(seconds=2)}
        | {"run_seconds": seconds, "state": state}
        for name, seconds, state in (("good", 7.0, "success"), ("bad", 3.0, "failed"), ("lost", None, "failed"))
    ]
    svg = charts.landing(tasks)
    ElementTree.fromstring(svg)
    assert {"d.good", "d.bad", "d.lost", "7 s", "3 s", "0 s"} <= set(texts(svg))
    assert svg.count(f"fill: {charts._GOOD}") == 1 and svg.count(f"fill: {charts._BAD}") == 2


def _height(svg: str, name: str) -> float:
    (found,) = re.findall(rf"<text[^>]*?(?:translate\(|x=)[^>]*?>\s*{name}\s*</text>", svg)
    numbers = re.search(r"translate\([\d.]+ ([\d.]+)\)", found) or re.search(r' y="([\d.]+)"', found)
    assert numbers
    return float(numbers[1])
