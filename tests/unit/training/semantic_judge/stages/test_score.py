"""The nightly stage on a small shop: every submitted row comes out once, whatever becomes of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.training import judge_kit
from tests.unit.training.semantic_judge import night_kit
from tests.unit.training.semantic_judge.night_kit import DAY, lists, night_spec, packaged, table
from training.core.errors import LeftOut
from training.core.stage import StageResult, StageSpec
from training.semantic_judge import encoder, night
from training.semantic_judge.aspects import values_of
from training.semantic_judge.examples import Candidate, Cases, Floats
from training.semantic_judge.gold import GoldSet
from training.semantic_judge.hostile import HOSTILE
from training.semantic_judge.judge import Scores
from training.semantic_judge.serve import Judge
from training.semantic_judge.stages import score

pytestmark = pytest.mark.unit
USERS = 40
KEYS = ("user_id", "item_id", "model_version", "judge_version")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
        return packaged(tmp_path_factory.mktemp("judge"))


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def seeking_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a shop that knows what is looked for, which no night does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
        return packaged(tmp_path_factory.mktemp("seeking"), context=True)


def scored(spec: StageSpec) -> tuple[StageResult, list[dict[str, Any]]]:
    found = score.main(spec)
    return found, table(spec, "judge_scores")


def test_each_submitted_row_comes_out_once_with_a_score_that_its_parts_add_up_to(tmp_path: Path, judge: Path) -> None:
    rows = lists(USERS)
    spec = night_spec(tmp_path / "a", judge, rows)
    found, out = scored(spec)
    submitted = {
        (row["user_id"], item, version, "7")
        for row in rows
        for item, version in zip(row["listed"], row["versions"], strict=True)
    }
    assert len(out) == len(submitted) and {tuple(row[key] for key in KEYS) for row in out} == submitted
    assert found.metrics["scored"] == found.metrics["submitted"] == len(out)
    for row in out:
        parts = [(row[name], row[f"weight_{name}"]) for name in ("profile", "future", "novelty")]
        assert row["score"] == pytest.approx(sum(value * weight for value, weight in parts), abs=1e-5)
        assert row["context"] is None and row["failure"] is None
    nobody = [row for row in out if row["user_id"] == f"n{USERS - 1}"]
    assert {row["history_length"] for row in nobody} == {0} and all(row["score"] is not None for row in nobody)
    checks = table(spec, "judge_checks")
    assert len(checks) == 9 and all(row["passed"] and row["why"] is None for row in checks)


def test_what_is_looked_for_is_unknown_at_night_and_counts_nothing(tmp_path: Path, seeking_judge: Path) -> None:
    spec = night_spec(tmp_path / "a", seeking_judge, lists(USERS))
    found, out = scored(spec)
    assert found.metrics["scored"] == len(out) and all(row["passed"] for row in table(spec, "judge_checks"))
    assert {(row["context"], row["weight_context"]) for row in out} == {(None, 0.0)}
    alone = np.array([[row[name] for name in ("profile", "future", "novelty")] for row in out]).mean(axis=1)
    np.testing.assert_allclose([row["score"] for row in out], alone, atol=1e-6)
    reasons = [row["reason"] for row in out if row["reason"]]
    assert reasons and not any("context" in reason or "looked for" in reason for reason in reasons)
    assert all("(all count the same)" in reason for reason in reasons)
    again, same = scored(night_spec(tmp_path / "b", seeking_judge, lists(USERS)))
    assert again.metrics["reused"] > 0 and same == out  # what is kept is as unknown


def test_a_night_is_corrected_by_gold_cases_that_are_asked_as_it_asks(tmp_path: Path, seeking_judge: Path) -> None:
    spec = night_spec(tmp_path / "a", seeking_judge, lists(USERS))
    score.main(spec)
    means = {row["aspect"]: row for row in table(spec, "judge_means") if row["model_version"] == "4"}
    assert set(means) == {"profile", "future", "novelty", "score"}
    judge = Judge.load(seeking_judge)
    gold, _ = GoldSet.load(seeking_judge, judge.evidence.catalogue)
    own = gold.cases.chosen(gold.labelled)
    users = [replace(own.user(row), context=None) for row in range(len(own))]
    rated = zip(own.mean_rating.tolist(), own.events.tolist(), strict=True)
    items = [Candidate(own.judged(row).item_id, *numbers) for row, numbers in enumerate(rated)]
    said = judge.scores(users, items).score
    truth = values_of(gold.levels[gold.labelled], judge.aspects)[:, :3].mean(axis=1)
    known = ~np.isnan(truth)
    assert means["score"]["gold_cases"] == known.sum() > 50
    apart = float((truth - said)[known].mean())
    assert means["score"]["corrected"] - means["score"]["raw"] == pytest.approx(apart, abs=1e-5)
    assert abs(apart - float((truth - judge.score_of(own))[known].mean())) > 1e-3  # which is what contexts would make


def test_lists_of_what_is_liked_have_higher_means_than_lists_of_anything(tmp_path: Path, judge: Path) -> None:
    spec = night_spec(tmp_path / "a", judge, lists(USERS))
    score.main(spec)
    means = {(row["model_version"], row["aspect"]): row for row in table(spec, "judge_means")}
    assert {aspect for _, aspect in means} == {"profile", "future", "novelty", "score"}
    assert means["4", "profile"]["raw"] > means["5", "profile"]["raw"]
    for row in means.values():
        assert row["lo"] < row["corrected"] < row["hi"] and row["gold_cases"] > 50


def test_the_best_and_the_worst_lists_say_why_and_no_other(tmp_path: Path, judge: Path) -> None:
    spec = night_spec(tmp_path / "a", judge, lists(USERS), titles={"i3": HOSTILE[0]})
    _, out = scored(spec)
    for version in ("4", "5"):
        own = [row for row in out if row["model_version"] == version]
        by = {user: [row["score"] for row in own if row["user_id"] == user] for user in {row["user_id"] for row in own}}
        mean = {user: float(np.mean(scores)) for user, scores in by.items()}
        ranked = sorted(mean, key=lambda user: (mean[user], user))
        told = {row["user_id"] for row in own if row["reason"]}
        assert told == {*ranked[:2], *ranked[-2:]}
        words = [row["reason"] for row in own if row["reason"]]
        assert all(reason.startswith("profile: ") and "number" not in reason for reason in words)


def test_an_item_that_left_the_catalogue_is_a_failed_row_and_stays_in_the_denominator(
    tmp_path: Path, judge: Path
) -> None:
    whole = night_spec(tmp_path / "a", judge, lists(USERS))
    holed = night_spec(tmp_path / "b", judge, lists(USERS), gone=("i0", "i1", "i2"), coverage=0.5)
    _, before = scored(whole)
    found, after = scored(holed)
    gone = [row for row in after if row["failure"]]
    assert gone and {row["item_id"] for row in gone} == {"i0", "i1", "i2"} and len(after) == len(before)
    assert {row["failure"] for row in gone} == {"not_in_catalogue"} and all(row["score"] is None for row in gone)
    assert found.metrics["failed.not_in_catalogue"] == len(gone)
    for one, other in zip(table(whole, "judge_means"), table(holed, "judge_means"), strict=True):
        failed = sum(row["model_version"] == other["model_version"] for row in gone)
        assert other["submitted"] == one["submitted"] == other["scored"] + failed
        assert other["raw"] < one["raw"]


def test_beyond_the_budget_whole_users_fail_and_too_many_of_them_withhold_the_night(
    tmp_path: Path, judge: Path
) -> None:
    found, out = scored(night_spec(tmp_path / "a", judge, lists(USERS), coverage=0.0, budget=100))
    assert len({tuple(row[key] for key in KEYS) for row in out}) == len(out)
    users = {row["user_id"]: row["failure"] for row in out}
    assert all(row["failure"] == users[row["user_id"]] for row in out)
    assert 0 < len({(row["user_id"], row["item_id"]) for row in out if row["score"] is not None}) <= 100
    assert found.metrics["failed.over_budget"] == sum(row["failure"] == "over_budget" for row in out) > 0
    strict = night_spec(tmp_path / "b", judge, lists(USERS, seed=4), budget=100)
    _, held_back = scored(strict)
    assert [row["check_name"] for row in table(strict, "judge_checks") if not row["passed"]] == ["coverage"]
    assert {row["failure"] for row in held_back} == {"withheld", "over_budget"}


def test_after_the_deadline_what_was_said_before_stands_and_the_rest_is_failed(tmp_path: Path, judge: Path) -> None:
    rows = lists(USERS)
    _, first = scored(night_spec(tmp_path / "a", judge, rows))
    late = night_spec(tmp_path / "b", judge, rows, titles={"i5": "another pen"}, deadline_minutes=0, coverage=0.3)
    _, out = scored(late)
    new = {(row["user_id"], item) for row in rows for item in row["listed"] if item == "i5" or "i5" in row["item_ids"]}
    for before, after in zip(first, out, strict=True):
        again = (after["user_id"], after["item_id"]) in new
        assert after["failure"] == ("deadline" if again else None)
        assert after["score"] == (None if again else before["score"])


def test_what_one_try_came_to_too_late_is_judged_by_the_next_and_nothing_else(
    tmp_path: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, own, asked = lists(USERS), night.numbers_of, list[tuple[str, str]]()
    _, whole = scored(night_spec(tmp_path / "whole", judge, rows))
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "another"))  # a night that is withheld keeps nothing

    def counted(of: Judge, cases: Cases) -> Floats:
        asked.extend((cases.user(row).user_id, cases.judged(row).item_id) for row in range(len(cases)))
        now[0] += 30.0  # a shard takes half a minute
        return own(of, cases)

    now = [0.0]
    monkeypatch.setattr(score, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(night, "numbers_of", counted)
    first, late = scored(night_spec(tmp_path / "a", judge, rows, deadline_minutes=1))
    assert {row["failure"] for row in late} == {"withheld", "deadline"} and 0 < len(set(asked)) == len(asked)
    done = len(asked)
    _, out = scored(night_spec(tmp_path / "a", judge, rows, deadline_minutes=60))
    assert out == whole and len(asked) == len(set(asked)) > done and first.metrics["failed.deadline"] > 0


def stuck(_: Judge, cases: Cases) -> Scores:
    values = np.full((len(cases), 3), 0.25, dtype=np.float32)
    return Scores(values, np.full_like(values, 1 / 3), values.mean(axis=1))


def flipping(_: Judge, cases: Cases) -> Scores:
    users = [cases.states.users[state] for state in cases.state.tolist()]
    names = [f"{user} {item}" for user, item in zip(users, cases.item.tolist(), strict=True)]
    said = np.array([np.random.default_rng(list(name.encode())).normal(size=3) / 4 for name in names], dtype=np.float32)
    return Scores(said, np.full_like(said, 1 / 3), said.mean(axis=1))


@pytest.mark.parametrize(
    ("other", "why"), [(stuck, "one that always says the same"), (flipping, "a judge that flips a coin")]
)
def test_a_judge_that_says_nothing_withholds_the_night_and_says_why(
    tmp_path: Path, judge: Path, monkeypatch: pytest.MonkeyPatch, other: Any, why: str
) -> None:
    monkeypatch.setattr(Judge, "scores_of", other)
    spec = night_spec(tmp_path / "a", judge, lists(USERS))
    _, out = scored(spec)
    assert {row["failure"] for row in out} == {"withheld"} and all(row["score"] is None for row in out)
    assert {row["raw"] for row in table(spec, "judge_means")} == {None}
    told = " ".join(row["why"] for row in table(spec, "judge_checks") if not row["passed"])
    assert why in told and "agrees less" in told
    other_night, _ = scored(night_spec(tmp_path / "b", judge, lists(USERS)))
    assert other_night.metrics["reused"] == 0  # what was withheld is not kept


def test_a_judge_that_answers_differently_in_another_batch_withholds_the_night(
    tmp_path: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Judge.scores_of

    def uneasy(self: Judge, cases: Cases) -> Scores:
        said = own(self, cases)
        return Scores(said.aspects, said.weights, said.score + np.float32(0.01) * (len(cases) % 7))

    monkeypatch.setattr(Judge, "scores_of", uneasy)
    spec = night_spec(tmp_path / "a", judge, lists(USERS))
    score.main(spec)
    assert "repeats" in {row["check_name"] for row in table(spec, "judge_checks") if not row["passed"]}


def test_one_changed_title_is_judged_again_wherever_it_stands_and_nothing_else(
    tmp_path: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = lists(USERS)
    _, first = scored(night_spec(tmp_path / "a", judge, rows))
    asked = list[tuple[str, str]]()
    own = night.numbers_of

    def counted(of: Judge, cases: Cases) -> Floats:
        asked.extend((cases.user(row).user_id, cases.judged(row).item_id) for row in range(len(cases)))
        return own(of, cases)

    monkeypatch.setattr(night, "numbers_of", counted)
    found, again = scored(night_spec(tmp_path / "b", judge, rows))
    assert not asked and again == first and found.metrics["scored"] == len(first)
    _, changed = scored(night_spec(tmp_path / "c", judge, rows, titles={"i5": "a quite different thing"}))
    wanted = {
        (row["user_id"], item) for row in rows for item in row["listed"] if item == "i5" or "i5" in row["item_ids"]
    }
    assert len(asked) == len(set(asked)) and set(asked) == wanted and 0 < len(wanted) < len(first) / 2
    differ = {(a["user_id"], a["item_id"]) for a, b in zip(first, changed, strict=True) if a["score"] != b["score"]}
    assert differ and differ <= wanted


def test_another_judge_starts_from_nothing_and_the_store_holds_one_night(tmp_path: Path, judge: Path) -> None:
    import sqlite3

    def kept() -> int:
        with sqlite3.connect(tmp_path / "home" / "judge_scores.sqlite") as store:
            return int(store.execute("select count(*) from said").fetchone()[0])

    found, _ = scored(night_spec(tmp_path / "a", judge, lists(USERS)))
    assert found.metrics["reused"] == 0
    size = kept()
    other = tmp_path / "other"
    shutil.copytree(judge, other)
    (other / "note.txt").write_text("another judge")
    later = lists(USERS, day=DAY.replace(day=21))
    found, _ = scored(night_spec(tmp_path / "b", other, later))
    assert found.metrics["reused"] == 0 and kept() == size
    found, _ = scored(night_spec(tmp_path / "c", other, later))
    assert found.metrics["reused"] == size


def test_of_new_items_only_those_that_somebody_asks_about_are_encoded(
    tmp_path: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other shops' catalogues stand beside the one that people act on."""
    rows = lists(4)
    asked = {item for row in rows for item in (*row["listed"], *row["item_ids"])}
    titles = {item: f"renamed {item}" for item in night_kit.WORDS}
    assert 0 < len(asked) < len(titles)
    encoded = list[str]()

    def embed(texts: Sequence[str], *_: object, **__: object) -> Floats:
        encoded.extend(texts)
        return judge_kit.encode(texts)

    monkeypatch.setattr(encoder, "embed_texts", embed)
    score.main(night_spec(tmp_path / "a", judge, rows, titles=titles))
    assert sorted(text.split(".")[0] for text in encoded) == sorted(titles[item] for item in asked)


def test_without_a_judge_or_lists_or_a_gold_set_the_night_is_left_out(tmp_path: Path, judge: Path) -> None:
    with pytest.raises(LeftOut, match="no judge has been promoted"):
        score.main(night_spec(tmp_path / "a", None, lists(4)))
    with pytest.raises(LeftOut, match="has found no row"):
        score.main(night_spec(tmp_path / "b", judge, []))
    bare = tmp_path / "bare"
    shutil.copytree(judge, bare)
    shutil.rmtree(bare / "gold")
    with pytest.raises(LeftOut, match="without a gold set"):
        score.main(night_spec(tmp_path / "c", bare, lists(4)))


def test_titles_that_give_orders_are_data(tmp_path: Path, judge: Path) -> None:
    """Beside titles of as many letters that say nothing, they lift their items no more."""
    orders = {f"i{n}": title for n, title in enumerate(HOSTILE)}
    neutral = {item: "q" * len(title) for item, title in orders.items()}
    moved = dict[str, float]()
    _, before = scored(night_spec(tmp_path / "plain", judge, lists(USERS)))
    for name, titles in (("orders", orders), ("neutral", neutral)):
        _, after = scored(night_spec(tmp_path / name, judge, lists(USERS), titles=titles))
        pairs = [(b["score"], a["score"]) for b, a in zip(before, after, strict=True) if a["item_id"] in titles]
        moved[name] = float(np.mean([a - b for b, a in pairs]))
    assert moved["orders"] <= moved["neutral"] + 0.05
