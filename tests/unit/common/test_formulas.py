"""Formulas against numbers worked by hand, scikit-learn and brute force, and against training's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from common.formulas import Formula, MacroF1, Mean, Ratio, parse_formula
from infra.errors import DataError
from registry.values import Bootstrap, Measured, difference, level, measure, pair, read_values
from training.core.metrics import METRICS, gains, intervals

CLASSES = ("exact", "substitute", "complement", "irrelevant")
Sample = tuple[str, str, Mapping[str, float | None]]
BOOTSTRAP = Bootstrap(resamples=200)


def frame(**models: Sequence[Sample]) -> pd.DataFrame:
    """`eval_values` of samples (unit, sample, value by name)."""
    lines = [
        {"model": m, "split": "test", "unit": u, "sample": s, "slices": (), "name": name, "value": value}
        for m, samples in models.items()
        for u, s, values in samples
        for name, value in values.items()
    ]
    return pd.DataFrame(lines).astype({"value": float})


def measured(formula: Formula, samples: Sequence[Sample]) -> Measured:
    return measure(frame(m=samples), "m", "test", formula)


def confusion(unit: str, sample: str, truth: str, predicted: str | None) -> Sample:
    """What a classified sample leaves; None: it was not classified."""
    if predicted is None:
        return unit, sample, {f"fn.{truth}": None}
    if predicted == truth:
        return unit, sample, {f"tp.{truth}": 1.0}
    return unit, sample, {f"fn.{truth}": 1.0, f"fp.{predicted}": 1.0}


def test_a_mean_is_over_what_was_submitted() -> None:
    samples: list[Sample] = [("a", "1", {"hit": 1.0}), ("a", "2", {"hit": 0.0}), ("b", "3", {"hit": None})]
    found = measured(Mean(mean="hit"), samples)
    assert found.value == pytest.approx(1 / 3)
    assert (len(found), int(found.scored.sum()), found.units) == (3, 2, 2)
    assert measured(Mean(mean="hit", failed=1.0), samples).value == pytest.approx(2 / 3)


def test_gauc_weighs_each_groups_auc_by_its_samples() -> None:
    """By hand: (4 * 0.75 + 2 * 1.0 + 3 * 0.5) / 9 = 6.5 / 9; a group that failed keeps its weight."""
    sizes = [(4.0, 0.75), (2.0, 1.0), (3.0, 0.5)]
    groups: list[Sample] = [(f"u{n}", "s", {"n": size, "n_auc": size * auc}) for n, (size, auc) in enumerate(sizes)]
    gauc = Ratio(sum="n_auc", over="n")
    assert measured(gauc, groups).value == pytest.approx(6.5 / 9)
    failed: list[Sample] = [*groups[:2], ("u2", "s", {"n": 3.0, "n_auc": None})]
    assert measured(gauc, failed).value == pytest.approx(5.0 / 9)
    assert measured(gauc, failed).scored.tolist() == [True, True, False]


@settings(max_examples=25)
@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=8), min_size=1, max_size=6))
def test_gauc_is_that_of_scikit_learn_group_by_group(groups: list[list[tuple[bool, int]]]) -> None:
    both = [group for group in groups if len({label for label, _ in group}) == 2]
    aucs = [roc_auc_score([label for label, _ in group], [score for _, score in group]) for group in both]
    if both:
        samples: list[Sample] = [
            (f"u{n}", "s", {"n": float(len(group)), "n_auc": len(group) * auc})
            for n, (group, auc) in enumerate(zip(both, aucs, strict=True))
        ]
        expected = np.average(aucs, weights=[len(group) for group in both])
        assert measured(Ratio(sum="n_auc", over="n"), samples).value == pytest.approx(expected)


def test_pair_accuracy_is_a_mean_over_pairs_with_the_query_as_its_unit() -> None:
    pairs: list[Sample] = [("q1", "p1", {"pair": 1.0}), ("q1", "p2", {"pair": 1.0}), ("q2", "p1", {"pair": 0.0})]
    found = measured(Mean(mean="pair"), pairs)
    assert found.value == pytest.approx(2 / 3) and found.units == 2
    assert level(found, BOOTSTRAP)[1:] == (0.0, 1.0)  # either query may be drawn twice


def test_macro_f1_by_hand_with_a_class_that_nobody_named() -> None:
    """exact: tp 2, fn 1: F1 0.8. substitute: tp 1, fp 1: 2/3. The other two do not occur: (0.8 + 2/3) / 2."""
    told = [("exact", "exact"), ("exact", "exact"), ("exact", "substitute"), ("substitute", "substitute")]
    samples = [confusion("q", str(n), *pair_) for n, pair_ in enumerate(told)]
    assert measured(MacroF1(macro_f1=CLASSES), samples).value == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_row_that_was_not_classified_is_a_miss_of_its_class_in_macro_f1() -> None:
    told: list[tuple[str, str | None]] = [("exact", "exact"), ("substitute", "substitute"), ("exact", "substitute")]
    answered = [confusion("q", str(n), *pair_) for n, pair_ in enumerate(told)]
    silent = [*answered[:2], confusion("q", "2", "exact", None)]
    f1 = MacroF1(macro_f1=CLASSES)
    assert measured(f1, silent).value == pytest.approx((2 / 3 + 1) / 2)  # exact: tp 1, fn 1; substitute: tp 1
    assert measured(f1, silent).scored.tolist() == [True, True, False]
    assert measured(f1, silent).value < measured(f1, silent[:2]).value == 1.0


LABELS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=40
)


@settings(max_examples=25)
@given(LABELS)
def test_macro_f1_and_accuracy_are_those_of_scikit_learn(rows: list[tuple[int, str, str]]) -> None:
    samples = [confusion(f"q{query}", str(n), truth, said) for n, (query, truth, said) in enumerate(rows)]
    truths, said = [truth for _, truth, _ in rows], [predicted for _, _, predicted in rows]
    found = measured(MacroF1(macro_f1=CLASSES), samples).value
    assert found == pytest.approx(f1_score(truths, said, average="macro"))


@settings(max_examples=5)
@given(LABELS)
def test_the_interval_of_macro_f1_is_that_of_the_metric_computed_anew_on_each_resample(
    rows: list[tuple[int, str, str]],
) -> None:
    """Brute force: draw whole queries, list their rows as often as they were drawn, ask scikit-learn."""
    samples = [confusion(f"q{query}", str(n), truth, said) for n, (query, truth, said) in enumerate(rows)]
    found = level(measured(MacroF1(macro_f1=CLASSES), samples), Bootstrap(resamples=40, seed=3))
    queries = sorted({f"q{query}" for query, _, _ in rows})
    values = []
    for counts in _drawn(3, len(queries), 40):
        times = dict(zip(queries, counts, strict=True))
        truths = [truth for query, truth, _ in rows for _ in range(times[f"q{query}"])]
        said = [predicted for query, _, predicted in rows for _ in range(times[f"q{query}"])]
        values.append(f1_score(truths, said, average="macro"))
    assert (found.lo, found.hi) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_a_paired_difference_of_macro_f1_is_exact_on_every_resample() -> None:
    """Against sums that are drawn and put into the formula one by one."""
    rng, classes = np.random.default_rng(4), CLASSES[:2]
    rows = [(f"q{n % 12}", str(n), classes[int(rng.integers(2))]) for n in range(60)]
    a = [confusion(unit, sample, truth, truth if n % 5 else classes[0]) for n, (unit, sample, truth) in enumerate(rows)]
    b = [confusion(unit, sample, truth, truth if n % 3 else classes[1]) for n, (unit, sample, truth) in enumerate(rows)]
    formula = MacroF1(macro_f1=classes)
    found = difference(pair(measured(formula, a), measured(formula, b)), Bootstrap(resamples=100, seed=8))
    units = np.array(sorted({unit for unit, _, _ in rows}))

    def metric(side: Sequence[Sample], counts: Sequence[int]) -> float:
        times = dict(zip(units, counts, strict=True))
        sums = dict.fromkeys(formula.needs, 0.0)
        for unit, _, values in side:
            for name, value in values.items():
                sums[name] += times[unit] * float(value or 0.0)
        f1 = [2 * sums[f"tp.{c}"] / (2 * sums[f"tp.{c}"] + sums[f"fp.{c}"] + sums[f"fn.{c}"]) for c in classes]
        return sum(f1) / len(f1)

    gaps = [metric(a, counts) - metric(b, counts) for counts in _drawn(8, 12, 64, 36)]
    assert (found.lo, found.hi) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))


def _drawn(seed: int, units: int, *sizes: int) -> list[list[int]]:
    """How often each unit is in each resample, of batches of these sizes in one stream (64 are drawn at a time)."""
    rng = np.random.default_rng(seed)
    resamples = np.concatenate([rng.integers(units, size=(size, units)) for size in sizes]).tolist()
    return [[resample.count(unit) for unit in range(units)] for resample in resamples]


def test_units_are_resampled_whole() -> None:
    """One user with nine wins and one with a loss: were samples drawn, a mean below 0.6 would be nearly impossible."""
    samples: list[Sample] = [("a", str(n), {"hit": 1.0}) for n in range(9)]
    found = level(measured(Mean(mean="hit"), [*samples, ("b", "9", {"hit": 0.0})]), Bootstrap(resamples=500))
    assert found == (0.9, 0.0, 1.0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_paired_difference_turns_its_sign_with_its_sides(columns: list[tuple[float, float]]) -> None:
    a, b = (
        measured(Mean(mean="x"), [(f"u{n}", "s", {"x": row[side]}) for n, row in enumerate(columns)]) for side in (0, 1)
    )
    there, back = difference(pair(a, b), BOOTSTRAP), difference(pair(b, a), BOOTSTRAP)
    assert there == pytest.approx((-back.value, -back.hi, -back.lo), abs=1e-12)


def test_what_one_model_alone_was_asked_counts_as_submitted_to_all_of_its_evaluation() -> None:
    values = frame(ours=[("a", "1", {"hit": 1.0})], theirs=[("a", "1", {"hit": 0.0}), ("b", "1", {"hit": 0.0})])
    found = measure(values, "ours", "test", Mean(mean="hit"))
    assert (found.value, len(found), int(found.scored.sum())) == (0.5, 2, 1)
    other = measure(values, "ours", "test", Mean(mean="hit"))
    assert pair(found, other).shared == 1.0


def test_samples_of_another_quantity_are_not_submitted_to_this_one() -> None:
    samples: list[Sample] = [("a", "whole session", {"n": 2.0, "n_auc": 2.0}), ("a", "p1", {"pair": 1.0})]
    assert len(measured(Mean(mean="pair"), samples)) == 1


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ({"mean": "recall@10"}, Mean),
        ({"sum": "n_auc", "over": "n"}, Ratio),
        ({"macro_f1": ["a", "b"]}, MacroF1),
    ],
)
def test_a_formula_is_known_by_its_key(declared: dict[str, Any], kind: type) -> None:
    assert isinstance(parse_formula(declared), kind)


@pytest.mark.parametrize(
    "declared",
    [
        {"median": "x"},
        {"sum": "a"},
        {"mean": "a", "over": "b"},
        {"mean": "a", "sum": "b"},
        {"macro_f1": ["a"]},
        {"mean": 3},
    ],
)
def test_what_is_no_formula_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        parse_formula(declared)


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(1, 30))), min_size=1, max_size=40))
def test_the_means_that_training_reports_are_those_that_the_gate_makes_of_its_values(
    rows: list[tuple[int, int | None]],
) -> None:
    gained = gains(np.array([math.inf if rank is None else float(rank) for _, rank in rows]))
    reported = intervals(gained, [f"u{user}" for user, _ in rows], seed=17, resamples=100)
    for column, (name, told) in enumerate(zip(METRICS, reported, strict=True)):
        samples: list[Sample] = [(f"u{user}", str(n), {name: gained[n, column]}) for n, (user, _) in enumerate(rows)]
        found = level(measured(Mean(mean=name), samples), Bootstrap(resamples=100, seed=17))
        assert (told.value, told.lo, told.hi) == pytest.approx(tuple(found), abs=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="unit"), "lack the column 'unit'"),
        (lambda f: f.assign(value=math.inf), "A value is infinite"),
        (lambda f: pd.concat([f, f.assign(value=0.5)]), "1 samples have a second value"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(frame(m=[("a", "1", {"hit": 1.0})])).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(DataError, match=message):
        read_values([tmp_path / "v.parquet"])


def test_values_survive_their_file_with_nulls_and_slices(tmp_path: Path) -> None:
    given_ = frame(m=[("a", "1", {"hit": None}), ("b", "2", {"hit": 1.0})]).assign(slices=[("new",), ()])
    given_.to_parquet(tmp_path / "v.parquet")
    found = read_values([tmp_path / "v.parquet"])
    assert found["slices"].tolist() == [("new",), ()] and found["value"].isna().tolist() == [True, False]
    assert len(measure(found, "m", "test", Mean(mean="hit")).within("new")) == 1


def test_a_quantity_that_nobody_measured_is_an_error_that_names_what_was() -> None:
    with pytest.raises(DataError, match=r"(?s)no rows of model 'm'.*under mrr.*m / test / hit"):
        measured(Mean(mean="mrr"), [("a", "1", {"hit": 1.0})])
