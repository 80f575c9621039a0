"""The gate on values whose metrics are worked out by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from common.formulas import Mean
from infra.errors import DataError
from registry.card import what_is_told
from registry.gate_file import GATES, Gate, GateFileError, load_gate
from registry.gate_report import Check, GateReport
from registry.gates import Candidate, DataQuality, evaluate, held_to, told
from registry.values import Bootstrap, Interval, level, measure, read_values

GREEN = DataQuality((), 3)
DAY = "2018-01-05"


NAMES = ("recall@1", "recall@10", "ndcg@10", "mrr")


def ranks(**models: list[float | None]) -> pd.DataFrame:
    """The values of one user per place of the lists, by the rank of the truth; `u0` is new, all others are known."""
    lines = [
        {
            "model": m,
            "unit": f"u{n}",
            "sample": f"{DAY} i",
            "split": "time",
            "slices": (kind(n),),
            "name": name,
            "value": v,
        }
        for m, column in models.items()
        for n, rank in enumerate(column)
        for name, v in gains(rank).items()
    ]
    return pd.DataFrame(lines)


def gains(rank: float | None) -> dict[str, float]:
    """Recall@k, NDCG@k = 1 / log2(rank + 1) inside of the first k, and 1 / rank."""
    if rank is None:
        return dict.fromkeys(NAMES, 0.0)
    return {
        "recall@1": float(rank <= 1),
        "recall@10": float(rank <= 10),
        "ndcg@10": 1.0 / math.log2(rank + 1) if rank <= 10 else 0.0,
        "mrr": 1.0 / rank,
    }


def kind(n: int) -> str:
    return "new" if n == 0 else "known"


def declared(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What a gate file says."""
    values = {
        **{"model": "m", "system": "s", "evaluated_as": "ours", "split": "time", "unit": "user", "headline": "mrr"},
        **{"minimum_samples": 2, "minimum_shared": 0.9, "minimum_scored": 1.0, "bootstrap": {"resamples": 200}},
        "metrics": {name: {"mean": name} for name in NAMES},
        "rules": list(rules),
    }
    return {**values, **changes}


def gate(*rules: dict[str, Any], **changes: Any) -> Gate:
    return Gate.model_validate(declared(*rules, **changes))


def version(frame: pd.DataFrame, number: str = "2", **metrics: float) -> Candidate:
    return Candidate(number, frame, metrics, "real")


def check(report: GateReport, name: str) -> Check:
    (found,) = [one for one in report.checks if one.name == name]
    return found


def test_a_first_version_passes_on_its_limits_and_baselines_alone() -> None:
    rules = (
        {"metric": "recall@1", "limit": 0.7},
        {"metric": "recall@1", "against": "popularity", "margin": 0.6},
        {"metric": "recall@1", "against": "champion", "margin": 0.5},
    )
    frame = ranks(ours=[1, 1, 1, 2], popularity=[2, 2, 2, 2])
    report = evaluate(gate(*rules), version(frame), None, GREEN)
    assert check(report, "recall@1").value == 0.75
    assert check(report, "recall@1 vs champion").reason.startswith("no other champion")
    # The mean gain is 0.75, but with four users its interval reaches down to 0.5 at least.
    assert not check(report, "recall@1 vs popularity").passed
    assert [one.name for one in report.failed] == ["recall@1 vs popularity"]


def test_a_rule_of_another_row_asks_that_row_of_both_versions() -> None:
    """`ours` is better in the new version, `other` worse; each rule sees its own."""
    before, after = (
        ranks(ours=[2] * 40, other=[1] * 40, rule=[2] * 40),
        ranks(ours=[1] * 40, other=[3] * 40, rule=[2] * 40),
    )
    rules: list[dict[str, Any]] = [
        {"metric": "mrr", "against": "champion", "margin": 0.0},
        {"metric": "mrr", "of": "other", "against": "champion", "margin": 0.0},
        {"metric": "mrr", "of": "other", "against": "best_baseline", "margin": 0.0},
        {"metric": "mrr", "of": "other", "limit": 0.4},
    ]
    report = evaluate(gate(*rules, baselines=["rule"]), version(after), version(before, "1"), GREEN)
    assert check(report, "mrr vs champion").value == pytest.approx(1 / 2)
    assert check(report, "mrr of other vs champion").value == pytest.approx(1 / 3 - 1)
    assert check(report, "mrr of other vs best_baseline").value == pytest.approx(1 / 3 - 1 / 2)
    assert check(report, "mrr of other").value == pytest.approx(1 / 3)
    assert [one.name for one in report.failed] == [
        "mrr of other vs champion",
        "mrr of other vs best_baseline",
        "mrr of other",
    ]


def test_equal_versions_differ_by_exactly_nothing_so_a_margin_of_zero_passes() -> None:
    frame = ranks(ours=[1, 3, None, 7, 2])
    rule = {"metric": "ndcg@10", "against": "champion", "margin": 0.0}
    report = evaluate(gate(rule), version(frame), version(frame, "1"), GREEN)
    assert check(report, "ndcg@10 vs champion").value == 0.0
    assert report.passed


def test_a_worse_version_fails_although_its_loss_is_within_the_noise_of_unpaired_intervals() -> None:
    """Every user is a bit worse: paired, that is certain; the two unpaired intervals overlap nearly wholly."""
    champion = ranks(ours=[float(n % 20 + 1) for n in range(200)])
    worse = ranks(ours=[float(n % 20 + 2) for n in range(200)])
    rule = {"metric": "ndcg@10", "against": "champion", "margin": 0.0}
    report = evaluate(gate(rule), version(worse), version(champion, "1"), GREEN)
    assert not check(report, "ndcg@10 vs champion").passed
    levels = [level(measure(frame, "ours", "time", Mean(mean="ndcg@10")), Bootstrap()) for frame in (champion, worse)]
    assert levels[1].hi > levels[0].lo


def test_a_share_is_of_the_rows_own_value_so_it_means_the_same_at_every_level() -> None:
    """Everyone at rank 2 against everyone at rank 1: a loss of 0.369 of 1; at a tenth of the users, of 0.1."""
    lost = 1 - 1 / math.log2(3)
    for users in (1, 10):
        column: list[float | None] = [1.0] * 40 + [None] * (40 * (users - 1))
        frame = ranks(ours=[None if rank is None else 2.0 for rank in column], covisit=column)
        strict, lax = ({"metric": "ndcg@10", "against": "covisit", "share": share} for share in (-0.36, -0.9))
        report = evaluate(gate(strict), version(frame), None, GREEN)
        assert check(report, "ndcg@10 vs covisit").threshold == pytest.approx(-0.36 / users)
        assert not report.passed and evaluate(gate(lax), version(frame), None, GREEN).passed
        if users == 1:
            assert check(report, "ndcg@10 vs covisit").value == pytest.approx(-lost)


def test_small_losses_do_not_add_up_from_champion_to_champion() -> None:
    """Each version answers four questions of a hundred fewer than the one before, and 5 % may be lost."""
    rule = {"metric": "recall@10", "against": "champion", "margin": -0.1}
    versions = [version(ranks(ours=[1.0] * (100 - 4 * n) + [None] * (4 * n)), str(n)) for n in range(5)]
    for above, below in pairwise(versions):
        assert evaluate(gate(rule), below, above, GREEN).passed
    *earlier, last = versions
    report = evaluate(gate(rule), last, earlier[-1], GREEN, earlier[-2::-1])
    found = check(report, "recall@10 vs champion")
    assert not found.passed and found.reason.startswith("difference to version 0 -0.1600")
    assert check(report, "same samples as champion").passed


def test_an_earlier_champion_that_ranked_other_samples_is_not_met() -> None:
    rule = {"metric": "recall@10", "against": "champion", "margin": -0.1}
    present, old = version(ranks(ours=[None, None, 1]), "2"), ranks(ours=[1, 1, 1])
    moved = version(old.assign(sample="2017-01-05 i"), "1")
    report = evaluate(gate(rule), version(ranks(ours=[None, None, 1]), "3"), present, GREEN, [moved])
    assert report.passed and check(report, "recall@10 vs champion").value == 0.0


def test_a_slice_is_held_on_its_own_samples() -> None:
    frame = ranks(ours=[None, 1, 1, 1])
    rules = ({"metric": "recall@10", "limit": 0.5}, {"metric": "recall@10", "limit": 0.5, "slice": "new"})
    report = evaluate(gate(*rules), version(frame), None, GREEN)
    assert (check(report, "recall@10").value, check(report, "recall@10 [new]").value) == (0.75, 0.0)
    assert [one.name for one in report.failed] == ["recall@10 [new]"]


def test_a_slice_that_holds_no_sample_fails_instead_of_passing_unseen() -> None:
    rules = (
        {"metric": "mrr", "limit": 0.0, "slice": "tourists"},
        {"metric": "mrr", "against": "champion", "margin": -1.0, "slice": "tourists"},
    )
    frame = ranks(ours=[1, 1])
    report = evaluate(gate(*rules), version(frame), version(frame, "1"), GREEN)
    assert [one.name for one in report.failed] == ["mrr [tourists]", "mrr [tourists] vs champion"]


def test_samples_without_a_partner_are_counted_and_too_many_of_them_fail() -> None:
    champion = ranks(ours=[1, 1, 1])
    mine = ranks(ours=[1, 1, 1, 1])
    mine = mine[mine["unit"] != "u0"]
    rule = {"metric": "mrr", "against": "champion", "margin": 0.0}
    shared = check(evaluate(gate(rule), version(mine), version(champion, "1"), GREEN), "same samples as champion")
    assert shared.reason == "2 shared, 1 only in this version, 1 only in champion"
    assert (shared.value, shared.passed) == (0.5, False)


def test_red_data_and_too_few_samples_fail_a_perfect_model() -> None:
    report = evaluate(
        gate({"metric": "mrr", "limit": 1.0}, minimum_samples=3),
        version(ranks(ours=[1, 1])),
        None,
        DataQuality(("events 2018-01-05: 3 of 9 rows are neither out nor in quarantine",), 1),
    )
    assert [one.name for one in report.failed] == ["data quality", "samples"]


def test_a_number_of_the_run_has_a_direction_and_must_be_there() -> None:
    rules = ({"metric": "seconds", "direction": "lower", "limit": 60.0}, {"metric": "valid_id_rate", "limit": 0.95})
    report = evaluate(gate(*rules), version(ranks(ours=[1, 1]), seconds=61.0), None, GREEN)
    assert not check(report, "seconds").passed
    assert check(report, "valid_id_rate").reason == "the run has no such metric"
    assert evaluate(gate(rules[0]), version(ranks(ours=[1, 1]), seconds=60.0), None, GREEN).passed


def test_a_report_survives_its_own_json() -> None:
    report = evaluate(gate({"metric": "mrr", "limit": 2.0}), version(ranks(ours=[1, 1])), None, GREEN)
    assert GateReport.from_json(report.to_json()) == report
    assert "Gate failed (1 of 4 checks): m version 2" in report.to_markdown()


def test_a_report_that_checked_nothing_does_not_pass() -> None:
    assert not GateReport("m", "1", None, "time", "real", 0, 0, "user", 0, "2018-01-05", ()).passed


def test_a_baseline_that_was_not_evaluated_is_an_error_that_names_what_was() -> None:
    rule = {"metric": "mrr", "against": "sasrec", "margin": 0.0}
    with pytest.raises(DataError, match="ours / time / mrr"):
        evaluate(gate(rule), version(ranks(ours=[1, 1])), None, GREEN)


@pytest.mark.parametrize(
    "rule",
    [
        {"metric": "mrr"},
        {"metric": "mrr", "limit": 0.1, "against": "champion", "margin": 0.0},
        {"metric": "mrr", "against": "champion"},
        {"metric": "mrr", "against": "champion", "margin": 0.0, "share": 0.0},
        {"metric": "mrr", "limit": 0.1, "share": 0.0},
        {"metric": "seconds", "against": "champion", "margin": 0.0},
        {"metric": "mrr", "limit": 0.1, "direktion": "lower"},
        {"metric": "mrr", "limit": 0.1, "counts": "mean"},
        {"metric": "mrr", "limit": 0.1, "direction": "lower"},  # what does a failed sample count as?
        {"metric": "mrr", "against": "best_baseline", "margin": 0.0},  # of which baselines?
    ],
)
def test_a_rule_that_says_too_little_or_too_much_is_refused(tmp_path: Path, rule: dict[str, Any]) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(declared(rule)))
    with pytest.raises(GateFileError, match="does not fit"):
        load_gate("m", tmp_path)


@pytest.mark.parametrize(("hits", "passes"), [(100, True), (56, False)])
def test_no_model_far_below_the_best_plain_row_passes_the_gate_of_generative_rec(hits: int, passes: bool) -> None:
    """A grocer's shop: the user's own items by count answer a hundred of a thousand questions, popularity 44."""
    names = {"fused": hits, "personal": 100, "forward": 46, "popularity": 44}
    names["rf_hard"] = hits
    frame = ranks(**{name: [3.0] * found + [None] * (1000 - found) for name, found in names.items()})
    frame["slices"] = [("item=warm", "history=1-2")] * len(frame)
    found = evaluate(load_gate("generative_rec"), version(frame, **{"fused.coverage@10": 0.1}), None, GREEN)
    met = ["ndcg@10 vs best_baseline", "recall@10 vs best_baseline"]
    assert [one.name for one in found.failed] == ([] if passes else met)
    # Of the rows that a shop has: this one has no texts, and no order to learn.
    assert "difference to personal (the best of popularity, personal, forward)" in check(found, met[0]).reason


def test_a_fused_list_that_is_worse_than_the_generator_alone_does_not_pass_the_gate_of_generative_rec() -> None:
    """It is level with the best baseline, and has lost a third of what the generator found."""
    names = {"fused": 100, "rf_hard": 150, "personal": 100, "forward": 46, "popularity": 44}
    frame = ranks(**{name: [3.0] * found + [None] * (1000 - found) for name, found in names.items()})
    frame["slices"] = [("item=warm", "history=1-2")] * len(frame)
    found = evaluate(load_gate("generative_rec"), version(frame, **{"fused.coverage@10": 0.1}), None, GREEN)
    assert [one.name for one in found.failed] == ["ndcg@10 vs rf_hard"]


@pytest.mark.parametrize(("hits", "passes"), [(97, False), (99, True)])
def test_a_mixture_below_its_best_signal_in_the_mean_does_not_pass_the_gate_of_the_ranker(
    hits: int, passes: bool
) -> None:
    """Three of a hundred hits less: the interval holds 0, and the mixture is still worse than what it mixes."""
    names = {"ranker": hits, "personal": 100, "popularity": 44}
    frame = ranks(**{name: [3.0] * found + [None] * (1000 - found) for name, found in names.items()})
    found = evaluate(load_gate("ranker"), version(frame, **{"ranker.coverage@10": 0.1}), None, GREEN)
    rule = "ndcg@10 vs best_baseline in the mean"
    assert [one.name for one in found.failed] == ([] if passes else [rule])
    assert check(found, rule).reason.endswith("; it counts")


def hints(**hits: list[int]) -> pd.DataFrame:
    """The values of `query_rec` of a day each: recall 1 on the days of these numbers, all else alike in all rows."""
    gate, days = load_gate("query_rec"), 400
    names = {name: float(name != "recall@30") for formula in gate.metrics.values() for name in formula.needs}
    others = (*gate.baselines, "il_sft_direct_shown", "il_sft_think_shown")
    rows = {**{name: [] for name in others}, **hits}
    lines = [
        {"model": row, "unit": f"u{n}", "sample": f"{DAY} r{n}", "split": "time", "slices": (), "name": name}
        | {"value": float(n in own) if name == "recall@30" else value}
        for row, own in rows.items()
        for name, value in names.items()
        for n in range(days)
    ]
    return pd.DataFrame(lines)


ADDS_NOTHING = "adds nothing: what only counts finds at least as much of what people search for"


@pytest.mark.parametrize(
    ("direct", "failed", "adds"),
    [
        (range(100), [], False),  # a twin of what is shown without it
        (range(99), [], False),
        (range(90), ["recall@30 of query_rec_direct vs best_baseline in the mean",
                     "recall@30 of query_rec_direct vs counted"], False),
        (range(140), [], True),
    ],
)  # fmt: skip
def test_a_model_of_hints_that_pushes_out_what_counts_is_rejected_and_one_that_adds_nothing_is_called_so(
    direct: range, failed: list[str], adds: bool
) -> None:
    """Of 400 days counting alone hits a hundred, and each of its rows by itself fewer."""
    counted = list(range(100))
    frame = hints(counted=counted, again=counted[:80], query_rec_think=counted, query_rec_direct=list(direct))
    found = evaluate(load_gate("query_rec"), version(frame), None, GREEN)
    assert [one.name for one in found.failed] == failed
    assert ("the model of Direct " + ADDS_NOTHING in found.told_sentence) != adds
    assert "the model of Think " + ADDS_NOTHING in found.told_sentence, "it is the twin of what is shown without it"
    said = "difference to counted +0.0000 [0.0000, 0.0000]; its worse end counts"
    assert said in found.told_sentence and f"**Not shown:** {found.told_sentence}." in found.to_markdown()
    assert GateReport.from_json(found.to_json()) == found
    assert [one.otherwise for one in told(load_gate("query_rec"), version(frame))] == [
        one.otherwise for one in found.checks if one.name.endswith("(told, not held)")
    ]


def test_what_is_told_stops_nothing_and_is_not_called_passed() -> None:
    rule = {"metric": "mrr", "against": "popularity", "margin": 0.1, "otherwise": "it is no better than popularity"}
    level_with, better = (
        evaluate(gate(rule), version(ranks(ours=ours, popularity=[2] * 40)), None, GREEN)
        for ours in ([2] * 40, [1] * 40)
    )
    name = "mrr vs popularity (told, not held)"
    assert level_with.passed and check(level_with, name).verdict == "not shown"
    assert level_with.beside.startswith(f"it is no better than popularity ({name}: difference to popularity +0.0000")
    assert better.passed and check(better, name).verdict == "passed" and better.beside == ""
    lines = [what_is_told(gate(rule), version(ranks(ours=ours, popularity=[2] * 40))) for ours in ([2] * 40, [1] * 40)]
    heading = "## Told, not held\n\n* "
    assert lines[0].startswith(f"{heading}it is no better than popularity ({name}: difference to popularity +0.0000")
    assert (
        lines[1].startswith(f"{heading}shown ({name}: difference to popularity +0.5000")
        and what_is_told(gate({"metric": "mrr", "limit": 0.1}), version(ranks(ours=[1]))) == ""
    )
    with pytest.raises(ValueError, match="`otherwise` belongs to a rule against somebody"):
        gate({"metric": "mrr", "limit": 0.1, "otherwise": "it is worth nothing"})


def test_where_no_baseline_was_measured_the_rule_against_the_best_is_an_error() -> None:
    rule = {"metric": "mrr", "against": "best_baseline", "margin": 0.0}
    with pytest.raises(DataError, match="no rows of model 'popularity'"):
        evaluate(gate(rule, baselines=["popularity", "frequency"]), version(ranks(ours=[1, 1])), None, GREEN)


def test_every_gate_of_the_project_can_be_read() -> None:
    names = [path.stem for path in GATES.glob("*.yaml")]
    assert "generative_rec" in names
    assert [load_gate(name).model for name in names] == names


@pytest.mark.parametrize("name", sorted(path.stem for path in GATES.glob("*.yaml")))
def test_whoever_is_as_good_as_the_other_passes_its_rule(name: str) -> None:
    """A share or a margin of the wrong sign asks for a gain where the gate means to allow a small loss."""
    same = Interval(0.0, 0.0, 0.0)
    relative = [rule for rule in load_gate(name).rules if rule.against and not rule.otherwise]
    assert relative and not [rule.name for rule in relative if not held_to(rule, same, 1.0, "its twin").passed]


def test_the_best_baseline_is_chosen_by_metric_and_slice_on_the_same_split() -> None:
    """Popularity is best over all, frequency among new users, and in the other split neither."""
    frame = ranks(ours=[1, 1, 1, 1], popularity=[9, 1, 1, 1], frequency=[1, None, None, None])
    elsewhere = ranks(frequency=[1, 1, 1, 1]).assign(split="leave_one_out")
    rules = ({"metric": "mrr", "against": "best_baseline", "share": -0.5, "slice": part} for part in ("all", "new"))
    report = evaluate(
        gate(*rules, baselines=["popularity", "frequency"]), version(pd.concat([frame, elsewhere])), None, GREEN
    )
    whole, new = (check(report, f"mrr{part} vs best_baseline") for part in ("", " [new]"))
    assert whole.reason.startswith("difference to popularity (the best of popularity, frequency) +0.2222")
    assert new.reason.startswith("difference to frequency (the best of popularity, frequency) +0.0000")
    assert whole.threshold == pytest.approx(-0.5 * (1 / 9 + 3) / 4) and new.threshold == -0.5
    assert check(report, "same samples as best_baseline").passed and report.passed


def test_where_less_is_better_the_best_baseline_is_the_lowest_and_a_failure_counts_as_said() -> None:
    frame = ranks(ours=[2, 2], popularity=[1, 1], frequency=[4, 4])
    rule = {"metric": "misses", "direction": "lower", "against": "best_baseline", "margin": 0.25}
    metrics = {"mrr": {"mean": "mrr"}, "misses": {"mean": "mrr", "failed": 1.0}}
    asked = gate(rule, baselines=["popularity", "frequency"], metrics=metrics)
    found = check(evaluate(asked, version(frame), None, GREEN), "misses vs best_baseline")
    assert found.reason.startswith("difference to frequency") and found.passed  # 0.5 is 0.25 above 0.25, and no more
    failed = frame.assign(value=frame["value"].mask((frame["model"] == "ours") & (frame["unit"] == "u1")))
    report = evaluate(asked, version(failed), None, GREEN)
    assert not check(report, "misses vs best_baseline").passed and not check(report, "scored samples").passed


@pytest.mark.parametrize("how", ["nulls", "rows that are not there"])
def test_failed_samples_cannot_raise_a_score_and_close_the_gate(how: str) -> None:
    """Three in ten are never answered: exactly those that would have been wrong."""
    column: list[float | None] = [1.0] * 70 + [None] * 30
    frame = ranks(ours=column, popularity=[2.0] * 100)
    whole = evaluate(gate({"metric": "mrr", "limit": 0.65}), version(frame), None, GREEN)
    lost = (frame["model"] == "ours") & frame["unit"].isin([f"u{n}" for n in range(70, 100)])
    frame = frame.assign(value=frame["value"].mask(lost)) if how == "nulls" else frame[~lost]
    report = evaluate(gate({"metric": "mrr", "limit": 0.65}), version(frame), None, GREEN)
    assert check(report, "mrr").value == check(whole, "mrr").value == 0.7
    scored = check(report, "scored samples")
    assert (scored.value, scored.passed) == (0.7, False)
    assert scored.reason.startswith("100 submitted, 70 scored, 30 failed")
    assert (report.samples, report.scored) == (100, 70) and "100 samples (30 of them failed)" in report.to_markdown()


@pytest.mark.parametrize(("found", "passes"), [(69, False), (70, True), (71, True)])
def test_each_limit_is_reached_by_what_equals_it(found: int, passes: bool) -> None:
    """At the boundary itself a share, a count and a metric pass; one sample below, each fails."""
    column: list[float | None] = [1.0] * found + [None] * (100 - found)
    limit = check(evaluate(gate({"metric": "mrr", "limit": 0.7}), version(ranks(ours=column)), None, GREEN), "mrr")
    assert limit.passed == passes
    few = ranks(ours=[1.0] * found)
    rule = {"metric": "mrr", "limit": 0.1}
    assert check(evaluate(gate(rule, minimum_samples=70), version(few), None, GREEN), "samples").passed == passes
    lost = ranks(ours=[1.0] * 100)
    lost["value"] = lost["value"].mask(~lost["unit"].isin([f"u{n}" for n in range(found)]))
    asked = gate(rule, minimum_scored=0.7)
    assert check(evaluate(asked, version(lost), None, GREEN), "scored samples").passed == passes
    shared, champion = (
        gate({"metric": "mrr", "against": "champion", "margin": 0.0}, minimum_shared=0.7),
        ranks(ours=[1.0] * 100),
    )
    met = evaluate(shared, version(few), version(champion, "1"), GREEN)
    assert check(met, "same samples as champion").passed == passes


def test_a_champion_of_before_values_were_left_fails_the_rules_against_it_with_a_way_out() -> None:
    rule = {"metric": "mrr", "against": "champion", "margin": 0.0}
    frame = ranks(ours=[1, 1])
    report = evaluate(gate(rule), version(frame), version(read_values([]), "1"), GREEN, [version(frame, "0")])
    found = check(report, "mrr vs champion")
    assert not found.passed and "version 1 left no mrr" in found.reason and "override" in found.reason


def test_a_report_of_before_units_had_a_name_is_still_read() -> None:
    new = evaluate(gate({"metric": "mrr", "limit": 0.5}), version(ranks(ours=[1, 1])), None, GREEN)
    values = {key: value for key, value in json.loads(new.to_json()).items() if key not in ("scored", "unit", "units")}
    assert GateReport.from_json(json.dumps({**values, "users": 2})) == new


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headline": "gauc"}, "the headline 'gauc' is none of the metrics"),
        ({"metrics": {"mrr": {"median": "mrr"}}}, r"metrics\.mrr.*is no formula.*macro_f1"),
        ({"market": [{"metric": "mrr", "share": -0.1}]}, "the market does not measure 'mrr', but: clicks, purchases"),
        ({"market": [{"metric": "clicks"}]}, r"market\.0: .*one of margin and share"),
        ({"market": [{"metric": "clicks", "share": 0.0, "margin": 0.0}]}, "one of margin and share"),
        ({"market": [{"metric": "clicks", "share": 0.0, "direction": "lower"}]}, r"direction: Extra inputs"),
        ({"market": [{"metric": "clicks", "share": 0.0, "counts": "best"}]}, r"market\.0\.counts"),
    ],
)
def test_a_gate_file_whose_parts_do_not_fit_is_refused_by_their_names(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(declared(**changes)))
    with pytest.raises(GateFileError, match=message):
        load_gate("m", tmp_path)
