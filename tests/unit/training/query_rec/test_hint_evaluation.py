"""Measures by hand and beside scikit-learn, the rows of the comparison, and what is handed on for gate and serving."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from registry.gate_file import load_gate
from tests.unit.training.hint_kit import stage_spec, write_shop
from tests.unit.training.query_rec.test_hint_ranker import QUICK
from training.core.stage import run_stage
from training.query_rec import hint_measures
from training.query_rec.hashed_text import Texts
from training.query_rec.hint_examples import Examples
from training.query_rec.hint_measures import FORMULAS, Bootstrap, Requests, by_request, calibration_error, measured
from training.query_rec.hint_questions import MATCHES, NAMES, OF_QUERY, OF_USER, Questions
from training.query_rec.people import Person
from training.query_rec.serve import ServedRanker, load
from training.query_rec.stages import evaluate_hint_ranker, hint_ranker

pytestmark = pytest.mark.unit


def held(clicked: list[bool], users: list[str], requests: list[str]) -> Examples:
    size = len(clicked)
    nothing, pairs = np.full((size, 2), -1, dtype=np.int64), np.arange(size)
    numbers = np.zeros((size, len(NAMES)), dtype=np.float32)
    texts, places = Texts(["a"] * size, 64), np.ones(size, dtype=np.int64)
    questions = Questions(texts, nothing, nothing, nothing, pairs, pairs, places, numbers)
    own, asked = (np.array(one, dtype=object) for one in (users, requests))
    return Examples(questions, np.array(clicked), own, asked, np.zeros(size, dtype=np.int64))


def test_measures_by_hand() -> None:
    """u has seen two requests, and v one; w clicked nothing, so only log loss and AUC know of w."""
    clicked = [True, False, False, True, True, False, False]
    shown = held(clicked, list("uuuuvvw"), ["r1", "r1", "r2", "r2", "r3", "r3", "r4"])
    chances = np.array([0.9, 0.5, 0.6, 0.2, 0.3, 0.3, 0.1])
    requests = Requests.among(shown)
    sums = by_request(chances, shown, requests)
    found = measured(sums, requests, Bootstrap(0, 50))
    own = {"u": (1 + 1 + 0 + 0) / 4, "v": 0.5}  # 0.9 above 0.5 and 0.6; 0.2 below both; a tie
    assert found["gauc"].value == pytest.approx((4 * own["u"] + 2 * own["v"]) / 6)
    assert found["auc"].value == pytest.approx(roc_auc_score(clicked, chances))
    assert found["log_loss"].value == pytest.approx(log_loss(clicked, chances))
    assert sums["places"].tolist() == [2, 2, 2, 1] and sums["user_places"].tolist() == [2, 2, 2, 0]
    assert requests.users == ["u", "u", "v", "w"]


ROWS = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans(), st.sampled_from("uvw")), min_size=2)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_auc_and_gauc_are_those_of_scikit_learn(rows: list[tuple[float, bool, str]]) -> None:
    chances, clicked, users = (np.array(one) for one in zip(*rows, strict=True))
    shown = held(clicked.tolist(), users.tolist(), [f"r{n}" for n in range(len(rows))])
    requests = Requests.among(shown)
    sums = by_request(chances, shown, requests)
    mixed = [user for user in set(users) if 0 < clicked[users == user].mean() < 1]
    if not mixed:
        assert sums["user_places"].sum() == 0
        return
    sizes = [(users == user).sum() for user in mixed]
    own = [roc_auc_score(clicked[users == user], chances[users == user]) for user in mixed]
    assert sums["user_auc"].sum() / sums["user_places"].sum() == pytest.approx(np.average(own, weights=sizes))
    assert sums["above"].sum() / sums["clicks"].sum() == pytest.approx(roc_auc_score(clicked, chances))


def test_calibration_error_is_zero_where_chances_are_what_happens_and_the_gap_elsewhere() -> None:
    clicked = np.tile([True, False, False, False], 300)
    assert calibration_error(np.full(1200, 0.25), clicked) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(np.full(1200, 0.35), clicked) == pytest.approx(0.1)
    assert calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0.0


def test_what_is_near_to_what_a_person_did_is_counted_in_words() -> None:
    phrases = {"i1": "red pen holder"}
    person = Person("u", pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime(), (3, 1, 0), ("search", "view", "search"),
                    ("blue ink", "i1", "lamp"))  # fmt: skip
    told = Questions.of([person], [["red pen", "ink blue", "tape"]], {}, phrases, 5, 4096, 0.1)
    rows = [dict(zip(MATCHES, row, strict=True)) for row in told.numbers[:, -len(MATCHES) :].tolist()]
    weights = 1 + 1 / 2 + 1 / 3  # lamp, the pen, blue ink
    red, ink, tape = rows
    assert red == pytest.approx({"behaviours": 3, "searched": 0, "overlap_best": 1, "overlap_last": 0,
                                 "overlap_mean": 0.5 / weights, "overlap_searches": 0})  # fmt: skip
    assert (
        ink["searched"] == 1 and ink["overlap_searches"] == 1 and ink["overlap_mean"] == pytest.approx(1 / 3 / weights)
    )
    assert tape["overlap_best"] == 0 and np.isnan(told.numbers_of(OF_QUERY[0])).all()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("hints")
    tables = write_shop(folder, requests=1200)
    spec = stage_spec(folder, "hint_ranker", tables, QUICK)
    run_stage(spec, hint_ranker.main)
    config = {"boosting": {"rounds": 40, "patience": 5}, "resamples": 100}
    after = stage_spec(folder, "evaluate_hint_ranker", tables, config, artifacts={"hint_ranker": spec.out})
    return after.out_dir, dict(evaluate_hint_ranker.main(after).metrics)


def test_every_row_is_measured_on_the_same_requests(evaluated: tuple[Path, dict[str, float]]) -> None:
    out, metrics = evaluated
    values = pq.read_table(out / "tables/eval_values/part-0.parquet").to_pandas()
    rows = {"place", "counting", "logistic", "lightgbm", "hint_ranker", "hint_ranker.untold"}
    assert set(values["model"]) == rows
    assert not values.duplicated(["model", "split", "unit", "sample", "name"]).any()
    assert set(values.groupby(["model", "name"]).size()) == {metrics["test_requests"]}
    gate = load_gate("hint_ranker")
    assert {*gate.baselines, gate.evaluated_as} <= rows and set(gate.metrics) == set(FORMULAS)
    for name, formula in gate.metrics.items():
        assert FORMULAS[name].needs == formula.needs
        own = values[values["model"] == "hint_ranker"].pivot(index="sample", columns="name", values="value")
        sums = formula.terms({key: own[key].to_numpy() for key in formula.needs}).sum(axis=0)
        assert formula.of(sums) == pytest.approx(metrics[f"hint_ranker.{name}"])
    assert metrics["hint_ranker.gauc"] > metrics["place.gauc"] + 0.1
    assert metrics["hint_ranker.untold.gauc"] > metrics["place.gauc"] + 0.1
    assert metrics["hint_ranker.ece"] < 0.06


def test_slices_tell_where_chances_are_not_what_happens(evaluated: tuple[Path, dict[str, float]]) -> None:
    lines = pq.read_table(evaluated[0] / "tables/model_metrics/part-0.parquet").to_pandas()
    own = lines[(lines["model"] == "hint_ranker") & (lines["metric"] == "said_over_happened")]
    assert {"all", "place=1", "place=3", "behaviours=0", "behaviours=1-5"} <= set(own["slice"])
    assert set(lines["origin"]) == {"simulated"} and set(lines["as_of"]) == {date(2026, 1, 30)}


def test_the_packaged_ranker_answers_its_own_example(evaluated: tuple[Path, dict[str, float]]) -> None:
    model = evaluated[0] / "model"
    served = load(model)
    assert isinstance(served, ServedRanker)
    answer = served.predict(pd.read_parquet(model / "example.parquet"), {})
    assert ((answer["chance"] > 0) & (answer["chance"] < 1)).all() and set(answer["version"]) == {served.ranker.version}
    asked: dict[str, Any] = {"days_ago": [[]], "actions": [[]], "contents": [[]], "query": ["red pen"]}
    told = served.predict(pd.DataFrame(asked | {OF_USER[0]: [50.0], OF_USER[1]: [None]}), {})
    assert told["chance"].notna().all()
    assert hint_measures.BINS > 1
