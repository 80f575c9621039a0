"""The gate on ranks whose metrics are worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DataError
from registry.gate_file import GATES, Gate, GateFileError, load_gate
from registry.gate_report import Check, GateReport
from registry.gates import Candidate, DataQuality, evaluate
from registry.values import Bootstrap, difference, gains, interval, pair, read_ranks

GREEN = DataQuality((), 3)
DAY = datetime(2018, 1, 5, tzinfo=UTC)


def ranks(**models: list[float | None]) -> pd.DataFrame:
    """One user per place of the lists; user `u0` is new, all others are known."""
    lines = [
        {"model": m, "user_id": f"u{n}", "as_of": DAY, "item_id": "i", "rank": r, "split": "time", "slices": [kind(n)]}
        for m, column in models.items()
        for n, r in enumerate(column)
    ]
    return pd.DataFrame(lines).assign(rank=lambda frame: frame["rank"].astype(float).fillna(np.inf))


def kind(n: int) -> str:
    return "new" if n == 0 else "known"


def gate(*rules: dict[str, Any], **changes: Any) -> Gate:
    values = {"model": "m", "evaluated_as": "ours", "split": "time", "minimum_samples": 2, "minimum_shared": 0.9}
    return Gate.model_validate({**values, "bootstrap": {"resamples": 200}, "rules": rules, **changes})


def version(frame: pd.DataFrame, number: str = "2", **metrics: float) -> Candidate:
    return Candidate(number, frame, metrics, "real")


def check(report: GateReport, name: str) -> Check:
    (found,) = [one for one in report.checks if one.name == name]
    return found


def test_gains_are_those_of_the_textbook() -> None:
    found = np.array([1.0, 2.0, 10.0, 11.0, math.inf])
    assert gains("recall@10", found).tolist() == [1, 1, 1, 0, 0]
    assert gains("ndcg@10", found) == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0, 0])
    assert gains("mrr", found) == pytest.approx([1, 0.5, 0.1, 1 / 11, 0])


def test_a_first_version_passes_on_its_limits_and_baselines_alone() -> None:
    rules = (
        {"metric": "recall@1", "limit": 0.7},
        {"metric": "recall@1", "against": "popularity", "margin": 0.5},
        {"metric": "recall@1", "against": "champion", "margin": 0.5},
    )
    frame = ranks(ours=[1, 1, 1, 2], popularity=[2, 2, 2, 2])
    report = evaluate(gate(*rules), version(frame), None, GREEN)
    assert check(report, "recall@1").value == 0.75
    assert check(report, "recall@1 vs champion").reason.startswith("no other champion")
    # The mean gain is 0.75, but with four users its interval reaches down to about 0.25.
    assert not check(report, "recall@1 vs popularity").passed
    assert [one.name for one in report.failed] == ["recall@1 vs popularity"]


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
    levels = [interval(gains("ndcg@10", f["rank"].to_numpy()), f["user_id"], Bootstrap()) for f in (champion, worse)]
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
    moved = version(old.assign(as_of=DAY.replace(year=2017)), "1")
    report = evaluate(gate(rule), version(ranks(ours=[None, None, 1]), "3"), present, GREEN, [moved])
    assert report.passed and check(report, "recall@10 vs champion").value == 0.0


def test_a_slice_is_judged_on_its_own_samples() -> None:
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
    mine = mine[mine["user_id"] != "u0"]
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
    rules = ({"metric": "seconds", "direction": "lower", "limit": 60.0}, {"metric": "legal_share", "limit": 0.95})
    report = evaluate(gate(*rules), version(ranks(ours=[1, 1]), seconds=61.0), None, GREEN)
    assert not check(report, "seconds").passed
    assert check(report, "legal_share").reason == "the run has no such metric"
    assert evaluate(gate(rules[0]), version(ranks(ours=[1, 1]), seconds=60.0), None, GREEN).passed


def test_users_are_resampled_whole() -> None:
    """One user with nine wins and one with a loss: were samples drawn, a mean below 0.6 would be nearly impossible."""
    found = interval(np.array([1.0] * 9 + [0.0]), ["a"] * 9 + ["b"], Bootstrap(resamples=500))
    assert (found.value, found.lo, found.hi) == (0.9, 0.0, 1.0)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=40))
def test_the_paired_difference_turns_its_sign_with_its_sides(columns: list[tuple[int, int]]) -> None:
    a = ranks(ours=[float(x) for x, _ in columns])
    b = ranks(ours=[float(y) for _, y in columns])
    there = difference("mrr", pair(a, b), Bootstrap(resamples=50))
    back = difference("mrr", pair(b, a), Bootstrap(resamples=50))
    assert (there.value, there.lo, there.hi) == pytest.approx((-back.value, -back.hi, -back.lo))


def test_a_report_survives_its_own_json() -> None:
    report = evaluate(gate({"metric": "mrr", "limit": 2.0}), version(ranks(ours=[1, 1])), None, GREEN)
    assert GateReport.from_json(report.to_json()) == report
    assert "Gate failed (1 of 3 checks): m version 2" in report.to_markdown()


def test_a_report_that_checked_nothing_does_not_pass() -> None:
    assert not GateReport("m", "1", None, "time", "real", 0, 0, "2018-01-05", ()).passed


def write(tmp_path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(tmp_path / "ranks.parquet")
    return tmp_path / "ranks.parquet"


def test_ranks_are_read_with_absence_as_infinity_and_the_same_question_once(tmp_path: Path) -> None:
    frame = ranks(ours=[1, None])
    frame["rank"] = frame["rank"].replace(np.inf, np.nan)
    found = read_ranks([write(tmp_path, pd.concat([frame, frame]))])
    assert found["rank"].tolist() == [1.0, math.inf]
    assert found["slices"].tolist() == [("new",), ("known",)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="rank"), "lack the column 'rank'"),
        (lambda f: f.assign(rank=0.0), "A rank is below 1"),
        (lambda f: pd.concat([f, f.assign(rank=5.0)]), "2 samples have two different ranks"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(
    tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_ranks([write(tmp_path, spoil(ranks(ours=[1, 2])))])


def test_a_baseline_that_was_not_evaluated_is_an_error_that_names_what_was() -> None:
    rule = {"metric": "mrr", "against": "sasrec", "margin": 0.0}
    with pytest.raises(DataError, match="They hold: ours / time"):
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
    ],
)
def test_a_rule_that_says_too_little_or_too_much_is_refused(tmp_path: Path, rule: dict[str, Any]) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**gate().model_dump(mode="json"), "rules": [rule]}))
    with pytest.raises(GateFileError, match="does not fit"):
        load_gate("m", tmp_path)


@pytest.mark.parametrize(("hits", "passes"), [(100, True), (56, False)])
def test_no_model_far_below_the_best_plain_row_passes_the_gate_of_generative_rec(hits: int, passes: bool) -> None:
    """A grocer's shop: the user's own items by count answer a hundred of a thousand questions, popularity 44."""
    names = {"rf_hard": hits, "frequency": 100, "covisit": 46, "popularity": 44}
    frame = ranks(**{name: [3.0] * found + [None] * (1000 - found) for name, found in names.items()})
    frame["slices"] = [("item=warm", "history=1-2")] * len(frame)
    found = evaluate(load_gate("generative_rec"), version(frame, **{"rf_hard.coverage@10": 0.1}), None, GREEN)
    assert [one.name for one in found.failed] == ([] if passes else ["ndcg@10 vs frequency"])


def test_every_gate_of_the_project_can_be_read() -> None:
    names = [path.stem for path in GATES.glob("*.yaml")]
    assert "generative_rec" in names
    assert [load_gate(name).model for name in names] == names
