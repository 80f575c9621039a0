"""Rules, corrections and what is kept on disk."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from tests.unit.training.judge_kit import FIRST, evidence_of, shop_items, stage_spec, write_shop
from training.core.errors import DataError, LeftOut
from training.core.stage import TableRef
from training.semantic_judge.aspects import UNKNOWN, aspects
from training.semantic_judge.evidence import NAMES
from training.semantic_judge.example_tables import read_examples, read_items
from training.semantic_judge.examples import Examples
from training.semantic_judge.teachers.cache import AnswerCache, Budget, Journal
from training.semantic_judge.teachers.corrections import (
    CORRECTION_COLUMNS,
    CORRECTIONS,
    Correction,
    agreement,
    corrected,
    kappa,
    read_corrections,
)
from training.semantic_judge.teachers.labels import entropies, refuse_empty
from training.semantic_judge.teachers.rules import RulesConfig, RuleTeacher, own_fit

pytestmark = pytest.mark.unit
THREE = aspects(False)


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    spec = stage_spec(tmp_path, "teach", write_shop(tmp_path))
    return read_examples(spec, read_items(spec))


def teacher() -> RuleTeacher:
    return RuleTeacher(RulesConfig(), THREE, evidence_of(shop_items()))


def test_rules_are_deterministic_and_do_not_depend_on_what_else_is_asked(examples: Examples) -> None:
    rules, rows = teacher(), np.arange(len(examples))
    numbers = rules.evidence.numbers(examples.cases)
    whole = rules.teach(examples, rows, numbers)
    part = teacher().teach(examples, rows[5:9], numbers[5:9])
    np.testing.assert_array_equal(part.levels, whole.levels[5:9])
    assert list(part.reasons) == list(whole.reasons)[5:9]
    assert rules.hash == teacher().hash
    other = RuleTeacher(RulesConfig(prior=1.0), THREE, rules.evidence)
    assert other.hash != rules.hash


def test_what_the_user_made_of_the_item_moves_its_profile_and_future_and_nothing_else(examples: Examples) -> None:
    rules, rows = teacher(), np.arange(len(examples))
    numbers = rules.evidence.numbers(examples.cases)
    liked, disliked = examples.hindsight.rating == 5.0, examples.hindsight.rating == 1.0
    found = rules.teach(examples, rows, numbers).levels
    assert found[liked, 0].min() > found[disliked, 0].max()
    assert set(found[liked, 1]) == {2} and set(found[disliked, 1]) == {0}
    examples.hindsight.rating[liked | disliked] = np.where(liked, 1.0, 5.0)[liked | disliked]
    again = rules.teach(examples, rows, numbers).levels
    np.testing.assert_array_equal(again[:, 2:], found[:, 2:])
    assert (again[:, 0] != found[:, 0]).any() and (again[:, 1] != found[:, 1]).any()


def test_what_was_passed_over_was_not_wanted_and_what_was_clicked_was(examples: Examples) -> None:
    """Of neither are there stars, and of the third nobody knows."""
    rules, three = teacher(), np.arange(3)
    numbers = rules.evidence.numbers(examples.cases)[:3]
    hindsight = examples.hindsight
    hindsight.rating[:] = np.nan
    hindsight.taken[:3], hindsight.passed[:3] = [True, False, False], [False, True, False]
    hindsight.passed[3:], hindsight.taken[3:] = ~hindsight.taken[3:], hindsight.taken[3:]
    assert own_fit(hindsight, three).tolist() == pytest.approx([0.5, -0.5, np.nan], nan_ok=True)
    assert rules.teach(examples, three, numbers).levels[:, 1].tolist() == [2, 0, UNKNOWN]


def test_where_nothing_was_passed_over_what_was_taken_later_says_what_was_wanted(examples: Examples) -> None:
    rules, rows = teacher(), np.arange(len(examples))
    numbers = rules.evidence.numbers(examples.cases)
    by_stars = rules.teach(examples, rows, numbers).levels[:, 1]
    assert (by_stars[np.isnan(examples.hindsight.rating) & ~examples.hindsight.taken] == UNKNOWN).all()
    examples.hindsight.rating[:] = np.nan  # all that is known now was taken
    later = rules.teach(examples, rows, numbers).levels[:, 1]
    assert set(later[examples.hindsight.taken]) > {0, 2}
    examples.hindsight.starts[:] = 0
    assert set(rules.teach(examples, rows, numbers).levels[:, 1]) == {UNKNOWN}


def test_reasons_speak_only_of_what_a_judge_can_see(examples: Examples) -> None:
    rules, rows = teacher(), np.arange(len(examples))
    numbers = rules.evidence.numbers(examples.cases)
    before = list(rules.teach(examples, rows, numbers).reasons)
    examples.hindsight.rating[:] = np.nan
    examples.hindsight.taken[:] = False
    examples.hindsight.passed[:] = False
    assert list(rules.teach(examples, rows, numbers).reasons) == before
    assert len(set(before)) > 5


def test_hand_worked_levels(examples: Examples) -> None:
    rules = teacher()
    numbers = np.full((3, len(NAMES)), np.nan, dtype=np.float32)
    numbers[:, NAMES.index("taken.times")] = [2.0, 0.0, 0.0]
    numbers[:, NAMES.index("near.any")] = [0.0, rules.evidence.bands.near, 0.0]
    numbers[1, NAMES.index("brand.share")], numbers[1, NAMES.index("brand.rating")] = 0.5, 5.0
    numbers[1, NAMES.index("near.liked")] = rules.evidence.bands.very
    examples.hindsight.rating[:] = np.nan
    examples.hindsight.taken[:] = False
    examples.hindsight.passed[:] = False
    examples.hindsight.starts[1:4] = 0  # nothing was taken after the first three
    found = rules.teach(examples, np.arange(3), numbers).levels
    assert found[:, 2].tolist() == [0, 1, 2]
    assert found[:, 1].tolist() == [UNKNOWN] * 3
    # (1.0 * 1 + 0.5 * 1) / (1.0 + 0.5 + 0.5) = 0.75, which fits very well; of the others nothing is known.
    assert found[:, 0].tolist() == [UNKNOWN, 4, UNKNOWN]


def test_a_teacher_that_says_nearly_the_same_of_all_is_refused_in_words() -> None:
    levels = np.zeros((200, 3), dtype=np.int8)
    levels[:100, 0], levels[:100, 1], levels[0, 2] = 4, 2, 2
    assert entropies(levels, THREE)["future"] == pytest.approx(np.log(2) / np.log(3))
    with pytest.raises(LeftOut, match="nearly the same") as refused:
        refuse_empty(levels, THREE, 0.1)
    assert "novelty" in str(refused.value) and "199 known, 0 a variation, 1 new" in str(refused.value)
    assert "profile" not in str(refused.value)
    refuse_empty(levels, THREE, 0.0)
    with pytest.raises(DataError, match="says nothing at all") as silent:
        refuse_empty(np.full((5, 3), UNKNOWN, dtype=np.int8), THREE, 0.0)
    assert not isinstance(silent.value, LeftOut)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T
    for quadratic, weights in ((False, None), (True, "quadratic")):
        peer = cohen_kappa_score(a, b, labels=list(range(5)), weights=weights)
        np.testing.assert_allclose(kappa(a, b, 5, quadratic=quadratic), peer, atol=1e-9)


def test_kappa_of_a_hand_worked_table() -> None:
    a, b = np.array([0] * 25 + [1] * 25), np.array([0] * 20 + [1] * 5 + [0] * 10 + [1] * 15)
    assert kappa(a, b, 2) == pytest.approx((0.7 - 0.5) / 0.5)


def corrections_file(folder: Path, rows: list[tuple[object, ...]]) -> TableRef:
    table = pa.Table.from_pylist(
        [dict(zip(CORRECTION_COLUMNS, row, strict=True)) for row in rows], schema=pa.schema(dict(CORRECTION_COLUMNS))
    )
    pq.write_table(table, folder / "corrections.parquet")
    return TableRef((str(folder / "corrections.parquet"),))


def test_people_win_the_last_word_of_each_counts_and_the_middle_of_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = write_shop(tmp_path)
    spec = stage_spec(tmp_path, "teach", tables)
    examples = read_examples(spec, read_items(spec))
    user, item = examples.cases.user(0), examples.cases.judged(0).item_id
    as_of = FIRST + timedelta(days=(user.as_of - FIRST.date()).days)
    key = (user.user_id, as_of, item)
    said = [
        (date(2026, 2, 2), *key, "profile", 4, "ann"),
        (date(2026, 2, 1), *key, "profile", 0, "ann"),  # she thought better of it
        (date(2026, 2, 1), *key, "profile", 3, "bob"),
        (date(2026, 2, 1), *key, "profile", 1, "cid"),
        (date(2026, 2, 1), *key, "context", 1, "cid"),  # the shop has none
        (date(2026, 2, 1), "nobody", as_of, item, "profile", 1, "cid"),
    ]
    spec = stage_spec(tmp_path, "teach", {**tables, CORRECTIONS: corrections_file(tmp_path, said)})
    found = read_corrections(spec, examples, THREE)
    assert sorted((one.person, one.level) for one in found) == [("ann", 4), ("bob", 3), ("cid", 1)]
    assert "2 of 6 corrections are of no example of this run" in capsys.readouterr().err
    levels = np.full((len(examples), 3), 2, dtype=np.int8)
    final, by_person = corrected(levels, found)
    assert final[0].tolist() == [3, 2, 2] and by_person.sum() == 1 and by_person[0, 0]
    np.testing.assert_array_equal(levels, 2)
    numbers = agreement(levels, found, THREE)
    assert numbers["kappa.profile.teacher.n"] == 3 and numbers["kappa.profile.people.n"] == 3
    assert not any("future" in name for name in numbers)


def test_a_level_that_there_is_not_is_refused(tmp_path: Path) -> None:
    tables = write_shop(tmp_path)
    spec = stage_spec(tmp_path, "teach", tables)
    examples = read_examples(spec, read_items(spec))
    user = examples.cases.user(0)
    row = (
        date(2026, 2, 1),
        user.user_id,
        FIRST.replace(day=user.as_of.day),
        examples.cases.judged(0).item_id,
        "novelty",
        3,
        "ann",
    )
    spec = stage_spec(tmp_path, "teach", {**tables, CORRECTIONS: corrections_file(tmp_path, [row])})
    with pytest.raises(DataError, match="level 3 for novelty"):
        read_corrections(spec, examples, THREE)
    empty = stage_spec(tmp_path, "teach", {**tables, CORRECTIONS: corrections_file(tmp_path, [])})
    assert read_corrections(empty, examples, THREE) == []


def test_agreement_of_teacher_and_people_is_kappa() -> None:
    levels = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 0, 0]], dtype=np.int8)
    said = [Correction(row, 0, level, "ann", 0) for row, level in enumerate([0, 1, 2, 1])]
    found = agreement(levels, said, THREE)
    assert found["kappa.profile.teacher"] == pytest.approx(cohen_kappa_score([0, 1, 2, 3], [0, 1, 2, 1]))
    weighted = cohen_kappa_score([0, 1, 2, 3], [0, 1, 2, 1], weights="quadratic", labels=range(5))
    assert found["kappa.profile.teacher.weighted"] == pytest.approx(weighted)


def test_a_torn_line_is_cut_off_and_what_came_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path) as journal:
        AnswerCache(journal).put({"a": {"profile": 1}, "b": {"profile": 2}})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            cache = AnswerCache(journal)
            assert len(cache) == whole[:cut].count(b"\n")
            cache.put({"c": {"profile": 3}})
        assert [json.loads(line)["key"] for line in path.read_text().splitlines()][-1] == "c"


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1), st.booleans()), max_size=30))
def test_the_budget_is_never_overspent_and_survives_its_process(calls: list[tuple[int, float, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path, truth = Path(folder) / "spent.jsonl", 0
        journal = Journal(path)
        budget = Budget(journal, 100)
        for most, share, killed in calls:
            call = budget.reserve(most)
            assert (call is None) == (truth + most > 100)
            if call is None:
                continue
            if killed:  # in the middle of the call: what it has taken is spent
                truth += most
                journal.__exit__(None, None, None)
                journal = Journal(path)
                budget = Budget(journal, 100)
            else:
                used = int(most * share)
                truth += used
                budget.settle(call, used)
            assert budget.spent == truth <= 100
        journal.__exit__(None, None, None)
