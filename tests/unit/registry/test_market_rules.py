"""Rules of the market, on rows of `market_replay` that are worked out by hand."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from common.pipelines import load_pipeline
from registry.gate_file import MARKET_METRICS, MarketRule, load_gate, models
from registry.gate_report import Check, GateReport
from registry.market import held
from spark_jobs.market.replay import METRICS

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)
CLICKS = MarketRule(metric="clicks", share=-0.1)
LEAVERS = MarketRule(metric="leavers", margin=0.02)


def row(version: str, value: float, against: str | None = None, **other: Any) -> dict[str, Any]:
    """Of version 7, the champion, or of one that was held against it: 100 people, 10 days."""
    difference = {"difference": None, "lo": None, "hi": None}
    return {
        **{"run_date": MONDAY, "metric": "clicks", "people": 100, "days": 10, "model_version": version},
        **{"value": value, "against": against, "role": "champion" if against is None else "challenger"},
        **difference,
        **other,
    }


def night(lo: float, hi: float, **other: Any) -> list[dict[str, Any]]:
    """The champion's 2 clicks a person, and the challenger's with the interval of the difference."""
    middle = (lo + hi) / 2
    change = {"difference": middle, "lo": lo, "hi": hi}
    return [row("7", 2.0, **other), row("8", 2.0 + middle, "7", **change, **other)]


def first_night(lo: float, hi: float) -> list[dict[str, Any]]:
    """The ranker stands in for a champion that there is not."""
    stand_in, challenger = night(lo, hi)
    return [{**stand_in, "model_version": "ranker", "role": "baseline"}, {**challenger, "against": "ranker"}]


def one(rule: MarketRule, rows: list[dict[str, Any]], champion: str | None = "7") -> Check:
    (found,) = held([rule], rows, "8", champion)
    assert found.in_market and "simulated" in found.name and "simulated" in found.reason
    return found


@pytest.mark.parametrize(("lo", "passes"), [(-0.2, True), (-0.21, False)])
def test_the_worse_end_may_lose_a_tenth_of_the_champions_two_clicks(lo: float, passes: bool) -> None:
    found = one(CLICKS, night(lo, 0.3))
    assert (found.passed, found.value, found.threshold) == (passes, lo, -0.2)
    assert found.verdict == ("passed" if passes else "failed")
    assert "100 people, 10 days, the lists of 2026-01-05" in found.reason and "version 7" in found.reason


def test_a_rule_on_the_mean_does_not_ask_for_the_worse_end() -> None:
    rows = night(-0.5, 0.5)
    assert one(MarketRule(metric="clicks", margin=0.0, counts="mean"), rows).passed
    assert not one(MarketRule(metric="clicks", margin=0.0), rows).passed


@pytest.mark.parametrize(("hi", "passes"), [(0.02, True), (0.03, False)])
def test_of_leavers_the_upper_end_is_the_worse_one(hi: float, passes: bool) -> None:
    found = one(LEAVERS, night(-0.04, hi, metric="leavers"))
    assert (found.passed, found.value) == (passes, hi)


def test_the_newest_night_that_played_both_counts() -> None:
    alone = row("7", 2.0, run_date=date(2026, 1, 7))
    rows = [*night(0.0, 0.1), *night(-1.0, -0.9, run_date=TUESDAY), alone]
    assert not one(CLICKS, rows).passed and "the lists of 2026-01-06" in one(CLICKS, rows).reason
    assert one(CLICKS, rows[:2]).passed


@pytest.mark.parametrize(
    ("rows", "champion", "why"),
    [
        ([], "7", "no night has lists of version 8 beside those of champion 7"),
        ([row("7", 2.0)], "7", "no night has lists of version 8"),
        (night(-1.0, -0.9), "6", "beside those of champion 6"),  # it was played against another one
        (night(-1.0, -0.9, metric="bids"), "7", "no night"),
        (night(-1.0, -0.9), "8", "it is the champion"),
        (night(-1.0, -0.9), None, "nothing stood in for a champion"),
        ([row("ranker", 2.0, role="baseline")], None, "beside those of what stands in for a champion"),
        ([], None, "beside those of what stands in for a champion"),
    ],
)
def test_what_was_not_played_stops_nothing_and_says_so(
    rows: list[dict[str, Any]], champion: str | None, why: str
) -> None:
    found = one(CLICKS, rows, champion)
    assert found.passed and found.verdict == "not played yet" and why in found.reason


@pytest.mark.parametrize(("lo", "passes"), [(-0.2, True), (-0.21, False)])
def test_before_the_first_promotion_what_stands_in_for_a_champion_is_the_other(lo: float, passes: bool) -> None:
    found = one(CLICKS, first_night(lo, 0.3), None)
    assert (found.passed, found.played, found.threshold) == (passes, True, -0.2)
    assert "ranker, which stood in for a champion" in found.reason
    assert not one(CLICKS, first_night(lo, 0.3)).played  # there is a champion now, and it was not in that night


def test_a_gate_file_may_require_that_a_version_was_played_but_never_against_nobody() -> None:
    required = MarketRule(metric="clicks", share=-0.1, required=True)
    for champion in ("7", None):
        found = one(required, [], champion)
        assert (found.passed, found.verdict, found.played) == (False, "failed", False)
        assert "not played yet, and the gate file requires it: no night has lists of version 8" in found.reason
    assert one(required, night(0.0, 0.1)).verdict == "passed"
    assert one(required, [row("8", 2.0)], None).verdict == "not played yet"


def test_a_version_that_only_lacks_lists_may_have_some_and_one_that_failed_may_not() -> None:
    evaluated = Check("mrr", True, "by hand", 0.5, 0.4)
    report = GateReport("m", "8", "7", "time", "real", 10, 10, "user", 10, "2026-01-05", (evaluated,))
    required = MarketRule(metric="clicks", share=-0.1, required=True)
    waiting = report.with_lists(held([required], [], "8", "7"))
    assert waiting.may_be_played and not waiting.passed
    refused = report.with_lists(held([required], night(-1.0, -0.9), "8", "7"))
    assert not refused.may_be_played and not refused.passed
    assert not GateReport("m", "8", "7", "time", "real", 10, 10, "user", 10, "2026-01-05", ()).may_be_played


def test_a_report_says_what_the_market_says_and_takes_its_newest_word() -> None:
    evaluated = Check("mrr", True, "by hand", 0.5, 0.4)
    report = GateReport("m", "8", "7", "time", "real", 10, 10, "user", 10, "2026-01-05", (evaluated,))
    assert report.market is None and report.lists_sentence == ""
    waiting = report.with_lists(held([CLICKS], [], "8", "7"))
    assert waiting.passed and waiting.market == "not played yet"
    assert "| clicks in the simulated market vs champion |  |  | not played yet | simulated: no night" in (
        waiting.to_markdown()
    )
    failed = waiting.with_lists(held([CLICKS, LEAVERS], night(-1.0, -0.9), "8", "7"))
    assert [check.verdict for check in failed.checks] == ["passed", "failed", "not played yet"]
    assert not failed.passed and failed.market == "failed"
    assert GateReport.from_json(failed.to_json()) == failed


def test_the_rules_know_exactly_what_the_market_measures() -> None:
    assert set(MARKET_METRICS) == set(METRICS)


def test_only_a_model_whose_lists_are_played_has_rules_of_the_market() -> None:
    """Versions of another model have the same numbers, and `market_replay` names no model."""
    for model in models():
        gate = load_gate(model)
        played = [
            made
            for job in load_pipeline(gate.system, "demo").jobs
            if "recommendations" in job.stage.writes.tables
            for made in job.stage.reads.models[:1]
        ]
        assert not gate.market or played == [model]
