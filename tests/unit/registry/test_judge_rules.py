"""Rules of the judge, on scores that are worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from common.pipelines import read_pipeline, systems
from registry.gate_file import JudgeRule, load_gate, models
from registry.gate_report import Check, GateReport
from registry.judge import held
from registry.values import Bootstrap

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)
RULE = JudgeRule(margin=-0.05)


def night(day: date = MONDAY, gain: float = 0.0, **other: Any) -> pd.DataFrame:
    """Forty users with two items from each of version 7, the champion, and 8, whose scores are so much higher."""
    rows = [
        {"run_date": day, "user_id": f"u{n}", "model_version": version, "judge_version": "3", "role": role}
        | {"score": (n % 5) / 10 + place / 10 + (gain if version == "8" else 0.0)}
        | other
        for n in range(40)
        for version, role in (("7", "champion"), ("8", "challenger"))
        for place in range(2)
    ]
    return pd.DataFrame(rows)


def one(*nights: pd.DataFrame, rule: JudgeRule = RULE, champion: str | None = "7", in_use: str | None = "3") -> Check:
    (found,) = held([rule], Bootstrap(resamples=200), iter(nights), "8", champion, in_use)
    assert found.by_judge and found.of_lists and not found.in_market
    return found


@pytest.mark.parametrize(("gain", "passes"), [(-0.04, True), (-0.06, False), (0.2, True)])
def test_a_difference_of_all_users_alike_has_no_width_and_is_held_to_the_margin(gain: float, passes: bool) -> None:
    found = one(night(gain=gain))
    assert found.passed is passes and found.value == pytest.approx(gain) and found.threshold == -0.05
    assert found.reason.endswith("40 users, the lists of 2026-01-05, judge version 3") and "version 7" in found.reason


def test_what_failed_counts_as_the_least_that_can_be_said() -> None:
    rows = night(gain=0.3)
    failed = (rows["model_version"] == "8") & (rows["user_id"].isin([f"u{n}" for n in range(20)]))
    rows.loc[failed, "score"] = None
    found = one(rows)
    assert not found.passed and "failed" in found.verdict


def test_only_users_with_lists_of_both_are_compared() -> None:
    rows = night(gain=0.0)
    rows.loc[(rows["model_version"] == "8") & (rows["user_id"] == "u0"), "user_id"] = "somebody else"
    assert "39 users" in one(rows).reason


def test_the_newest_night_with_both_that_is_not_withheld_decides() -> None:
    withheld = night(TUESDAY, gain=-0.5, score=None)
    assert "2026-01-05" in one(withheld, night(MONDAY)).reason
    alone = night(TUESDAY)
    assert "2026-01-05" in one(alone[alone["model_version"] == "7"], night(MONDAY)).reason

    def nights() -> Iterator[pd.DataFrame]:
        yield night(TUESDAY)
        raise AssertionError("older nights are not read")

    (found,) = held([RULE], Bootstrap(resamples=50), nights(), "8", "7")
    assert "2026-01-06" in found.reason


@pytest.mark.parametrize("required", [False, True])
def test_what_was_not_judged_says_why_and_stops_only_where_the_gate_file_says_so(required: bool) -> None:
    rule = JudgeRule(margin=-0.05, required=required)
    for nights, why in (
        ([], "no night has judged lists of version 8"),
        ([night(score=None)], "the scores of 2026-01-05 are withheld"),
        ([night()[lambda rows: rows["model_version"] == "8"]], "beside those of champion 7"),
    ):
        found = one(*nights, rule=rule)
        assert found.passed is not required and not found.played and why in found.reason
        assert found.verdict == ("failed" if required else "not judged yet")


def of(rows: pd.DataFrame, version: str, judge: str) -> pd.DataFrame:
    """The rows of one version, as another judge's."""
    return rows[rows["model_version"] == version].assign(judge_version=judge)


def test_scores_of_two_judges_are_not_held_against_each_other() -> None:
    """The champion was judged before the judge changed, the challenger after it."""
    apart = pd.concat([of(night(gain=0.3), "7", "3"), of(night(gain=0.3), "8", "4")])
    found = one(apart)
    assert found.verdict == "not judged yet" and "beside those of champion 7" in found.reason
    assert one(apart, rule=JudgeRule(margin=-0.05, required=True)).verdict == "failed"
    # Each judge by itself, the newest that has scored both first: 10 is newer than 9.
    both = pd.concat([night(gain=-0.3, judge_version="9"), night(gain=0.3, judge_version="10")])
    assert one(both).passed and "judge version 10" in one(both).reason
    lone = pd.concat([night(gain=-0.3, judge_version="9"), of(night(), "8", "10")])
    assert not one(lone).passed and "judge version 9" in one(lone).reason
    # What the newest judge has withheld, the one before it may have said.
    told = pd.concat([night(gain=-0.3, judge_version="9"), night(score=float("nan"), judge_version="10")])
    assert not one(told).passed and "judge version 9" in one(told).reason


@pytest.mark.parametrize(("in_use", "told"), [("3", ""), (None, ""), ("4", " (in use by now: 4)")])
def test_a_night_of_a_judge_that_is_in_use_no_more_counts_and_is_called_so(in_use: str | None, told: str) -> None:
    found = one(night(gain=-0.5), in_use=in_use)
    assert not found.passed and found.reason.endswith(f"judge version 3{told}")


def test_lists_of_which_nothing_was_scored_tell_nothing_however_others_fare() -> None:
    rows = night(gain=0.3)
    stand_in = rows[rows["model_version"] == "7"].assign(model_version="ranker", role="baseline")
    found = one(pd.concat([rows.assign(score=float("nan")), stand_in]))
    assert (
        found.verdict == "not judged yet" and "the scores of 2026-01-05 are withheld, or there are none" in found.reason
    )


def test_before_the_first_promotion_the_other_is_what_stood_in_for_a_champion() -> None:
    rows = night(gain=0.1).replace({"model_version": {"7": "ranker"}, "role": {"champion": "baseline"}})
    found = one(rows, champion=None)
    assert found.passed and "ranker, which stood in for a champion" in found.reason
    assert not one(night(), champion=None).played


def test_the_champion_is_compared_with_nobody() -> None:
    (found,) = held([RULE], Bootstrap(), iter([night()]), "7", "7")
    assert found.passed and "it is the champion" in found.reason


def test_a_report_keeps_its_other_checks_and_says_what_the_judge_says() -> None:
    report = GateReport("m", "8", "7", "time", "real", 9, 9, "user", 9, "now", (Check("samples", True, "enough"),))
    judged = report.with_lists([one(night(gain=-0.5))])
    assert [check.name for check in judged.checks] == ["samples", "judge's score vs champion"] and not judged.passed
    assert judged.market is None and judged.lists_sentence.startswith("judge's score vs champion: failed (")
    assert GateReport.from_json(judged.to_json()) == judged
    assert "not judged yet" in report.with_lists([one()]).to_markdown()
    assert not report.with_lists([one(rule=JudgeRule(margin=0.0, required=True))]).passed
    assert report.with_lists([one(rule=JudgeRule(margin=0.0, required=True))]).may_be_played


def test_a_rule_needs_a_margin() -> None:
    with pytest.raises(ValidationError):
        JudgeRule.model_validate({"share": -0.1})


def test_only_who_makes_the_lists_is_ruled_on_by_them() -> None:
    makers = {
        model
        for system in systems()
        for job in read_pipeline(system).jobs
        if "recommendations" in job.stage.writes.tables
        for model in read_pipeline(system).models
    }
    assert {model for model in models() if load_gate(model).judge} <= makers
