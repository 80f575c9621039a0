"""What a judge is held to before its scores are published, and that a gold set comes back as it was frozen."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.judge_kit import cases_of, evidence_of, shop_items
from training.core.errors import LeftOut
from training.semantic_judge.examples import Candidate, Cases, Floats, UserState
from training.semantic_judge.gold import Bands, GoldConfig, GoldSet, length_slope, most_frequent
from training.semantic_judge.night_checks import Check, on_gold, on_night, reasons

pytestmark = pytest.mark.unit
BANDS = Bands(0.6, -0.4, 0.4, 0.05, 0.5, 1e-4)


def gold_set(pairs: int = 300) -> GoldSet:
    """Pairs of cases, each of a user of its own, of which the item with the higher rating in the year was preferred."""
    evidence = evidence_of(shop_items())
    users = [UserState(f"u{n // 2}", date(2026, 1, 3), ("i1",), (None if n % 4 else 5.0,)) for n in range(2 * pairs)]
    asked = [(user, Candidate(f"i{n % 40}", 3.0 + n % 2, 1.0)) for n, user in enumerate(users)]
    cases = cases_of(evidence, asked)
    levels = np.ones((len(cases), 3), dtype=np.int8)
    places = np.arange(pairs)
    return GoldSet(cases, levels, np.arange(0, 50), 2 * places + 1, 2 * places, np.array(["rating"] * pairs))


def truthful(cases: Cases) -> Floats:
    return np.asarray(cases.mean_rating, dtype=np.float32)


def failed(checks: list[Check]) -> set[str]:
    assert bool(reasons(checks)) == any(not check.passed for check in checks)
    return {check.name for check in checks if not check.passed}


def test_a_judge_that_knows_passes_and_each_fault_is_called_by_its_name() -> None:
    gold = gold_set()
    assert failed(on_gold(gold, BANDS, truthful, truthful, 1)) == set()

    def constant(cases: Cases) -> Floats:
        return np.full(len(cases), 0.3, dtype=np.float32)

    assert failed(on_gold(gold, BANDS, constant, constant, 1)) == {"agreement", "beats_constant", "beats_coin_flip"}

    def by_place(cases: Cases) -> Floats:  # goes by where in the batch a case stands
        return np.arange(len(cases), dtype=np.float32)

    assert {"repeats", "swapped_order"} <= failed(on_gold(gold, BANDS, by_place, by_place, 1))

    def little(cases: Cases) -> Floats:
        return truthful(cases) + np.float32(0.001)

    assert failed(on_gold(gold, BANDS, truthful, little, 1)) == {"repeats"}


def test_a_coin_flipping_judge_is_refused_whatever_the_coin() -> None:
    gold, refused = gold_set(), 0
    for seed in range(40):
        says = np.random.default_rng(seed).random(len(gold.cases)).astype(np.float32)

        def flipping(cases: Cases, says: Floats = says) -> Floats:
            users = [int(cases.states.users[state][1:]) for state in cases.state.tolist()]
            return says[2 * np.array(users) + np.round(cases.mean_rating).astype(int) % 2]

        found = failed(on_gold(gold, BANDS, flipping, flipping, 1))
        refused += bool(found)
        assert "repeats" not in found
    assert refused == 40


def test_the_night_is_refused_for_length_for_sameness_and_for_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 80, 400)
    fine = rng.normal(0, 0.2, 400)
    assert failed(on_night(fine, lengths, 400, BANDS, 0.95)) == set()
    assert failed(on_night(lengths / 100, lengths, 400, BANDS, 0.95)) == {"length_slope"}
    assert failed(on_night(np.full(400, 0.3), lengths, 400, BANDS, 0.95)) == {"spread", "most_frequent"}
    assert failed(on_night(fine, lengths, 500, BANDS, 0.95)) == {"coverage"}
    assert failed(on_night(np.empty(0), np.empty(0, dtype=int), 4, BANDS, 0.95)) == {"spread", "coverage"}
    told = reasons(on_night(fine, lengths, 500, BANDS, 0.95))
    assert told == "too few of the submitted rows were scored: coverage is 0.8, where at least 0.95 is asked for"


def test_a_night_of_few_rows_is_not_withheld_for_a_slope_that_is_chance() -> None:
    rng = np.random.default_rng(4)

    def withheld(rows: int) -> float:
        nights = [on_night(rng.normal(0, 0.2, rows), rng.integers(5, 80, rows), rows, BANDS, 0.95) for _ in range(200)]
        return float(np.mean([failed(night) != set() for night in nights]))

    assert withheld(12) < 0.01 and withheld(40) < 0.01
    lengths = np.arange(5, 45)
    assert failed(on_night(lengths / 100, lengths, 40, BANDS, 0.95)) == {"length_slope"}, "this one is none"


def test_a_slope_is_a_correlation_and_nothing_where_one_of_both_is_constant() -> None:
    x, y = np.array([1, 5, 9, 2]), np.array([0.2, 0.1, 0.6, 0.4])
    assert length_slope(y, x) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert length_slope(y, np.full(4, 7)) == length_slope(np.full(4, 0.2), x) == 0.0
    assert most_frequent(np.array([0.1, 0.1001, 0.3, 0.5])) == 0.5


def test_what_is_no_number_does_not_pass() -> None:
    assert not Check("x", float("nan"), None, None, "").passed
    assert not Check("x", 0.5, 0.5, None, "", exceeds=True).passed
    assert Check("x", 0.5, 0.5, None, "").passed


def test_a_gold_set_comes_back_as_it_was_frozen_without_the_names_of_users(tmp_path: Path) -> None:
    gold = gold_set(40)
    gold.save(tmp_path, BANDS)
    again, bands = GoldSet.load(tmp_path, gold.cases.catalogue)
    assert bands == BANDS
    for name in ("state", "item", "mean_rating", "events"):
        np.testing.assert_array_equal(getattr(again.cases, name), getattr(gold.cases, name))
    for row in range(len(gold.cases)):
        one, other = (dataclasses.replace(own.cases.user(row), user_id="") for own in (again, gold))
        assert one == other
    for name in ("levels", "labelled", "preferred", "other", "source"):
        np.testing.assert_array_equal(getattr(again, name), getattr(gold, name))
    assert set(again.users) == {f"g{n}" for n in range(40)} and not again.simulated
    assert b"u39" not in (tmp_path / "gold" / "cases.parquet").read_bytes()
    with pytest.raises(LeftOut, match="without a gold set"):
        GoldSet.load(tmp_path / "elsewhere", gold.cases.catalogue)


def test_bands_are_frozen_from_what_the_judge_says_as_it_is_packaged() -> None:
    gold = gold_set()
    said = truthful(gold.cases)
    bands = gold.bands(truthful, truthful, GoldConfig(), 1)
    assert bands.agreement == 1.0 and bands.spread == pytest.approx(0.25 * said.std())
    assert bands.slope_low <= -0.3 and bands.slope_high >= 0.3 and bands.most_frequent == 0.5
    assert bands.repeat == 1e-4

    def uneasy(cases: Cases) -> Floats:
        return truthful(cases) + np.float32(0.01) * (len(cases) == 97)

    assert gold.bands(truthful, uneasy, GoldConfig(), 1).repeat == pytest.approx(0.02, rel=1e-3)
