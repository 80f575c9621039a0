"""The nightly scoring on a real lake: whom it asks about, in which state, and what it leaves in the tables."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from common.models import ModelVersion
from common.pipelines import load_pipeline
from dags.steps import _runs, run_stage
from dags.steps._inputs import query_rows
from infra.contracts import UNDATED, arrow_schema, load_contract
from infra.errors import DataError
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.results import RESULT_FILE
from registry import decisions, packaging, runs
from registry.store import connect
from tests.lake_kit import put
from tests.registry_kit import GATE, finish_stage
from tests.unit.training import judge_kit
from tests.unit.training.judge_kit import shop_items
from tests.unit.training.semantic_judge.night_kit import packaged
from training.semantic_judge import encoder

DAY = date(2018, 1, 5)
TABLES = ("judge_scores", "judge_checks", "judge_means")
# Who came yesterday, who came today (twice, and 25 times before), who has only today.
CAME = {"ann": (4, 0), "bob": (25, 2), "eve": (0, 1)}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
        patch.setenv("PLUMBLINE__HOME", str(tmp_path_factory.mktemp("home")))
        return packaged(tmp_path_factory.mktemp("judge"))


def _put(profile: Profile, table: str, lines: Sequence[dict[str, Any]]) -> None:
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(load_contract(table))])
    put(profile, table, pa.Table.from_pylist(list(lines), schema=schema))


def _at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@pytest.fixture
def lake(profile: Profile) -> Lake:
    """What three users did up to the day, and two versions' lists for them; a list of the night before as well."""
    events, histories, profiles, lists = [], [], [], []
    for user, (before, today) in CAME.items():
        last = DAY if today else DAY - timedelta(1)
        past = {
            "item_ids": [f"i{n % 40}" for n in range(before)],
            "ratings": [None if n % 3 else 4.0 for n in range(before)],
        }
        dates = {"event_dates": [date(2017, 12, 1)] * before, "history_len": before}
        histories.append({"history_date": last, "user_id": user, "as_of": _at(last, 0), **past, **dates})
        events += [
            {
                "event_date": last,
                "user_id": user,
                "item_id": f"i{30 + n}",
                "event_time": _at(last, 9 + n),
                "event_type": "review",
                "rating": 2.0 + n,
            }
            for n in range(max(today, 1))
        ]
        profiles += [
            {
                "profile_date": day,
                "user_id": user,
                "available_at": _at(day + timedelta(1), 0),
                "profile_text": f"{user} {day}",
            }
            for day in (last - timedelta(9), last)
        ]
        lists += [
            {
                "run_date": day,
                "user_id": user,
                "model_version": version,
                "rank": rank,
                "item_id": f"i{5 * rank}",
                "log_prob": -float(rank),
                "role": role,
            }
            for day in (DAY - timedelta(1), DAY)
            for version, role in (("4", "champion"), ("5", "challenger"))
            for rank in (1, 2, 3)
        ]
    stats = [
        {
            "stat_date": DAY,
            "item_id": "i5",
            "available_at": _at(DAY + timedelta(1), 0),
            "mean_rating_365d": 4.0,
            "events_365d": 3,
        }
    ]
    items = [
        {
            "snapshot_date": UNDATED,
            "source": "shop",
            **{name: getattr(item, name) for name in ("item_id", "title", "brand", "category", "price")},
        }
        for item in shop_items()
        if item.item_id != "i15"
    ]
    rows = {"events": events, "histories": histories, "user_profiles": profiles, "items": items, "item_stats": stats}
    for table, lines in {**rows, "recommendations": lists}.items():
        _put(profile, table, lines)
    return Lake(profile)


@pytest.fixture
def champion(judge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"semantic_judge": (ModelVersion("7", "champion", str(judge)),)}
    monkeypatch.setattr(_runs, "active", lambda profile, models: {model: found.get(model, ()) for model in models})


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, day: date = DAY) -> None:
    """The job, as its DAG asks for it."""
    monkeypatch.setenv(RESULT_FILE, str(folder / "handed-on.json"))
    job = ["--system", "semantic_judge", "--job", "nightly_judge_scoring"]
    monkeypatch.setattr(sys, "argv", ["run_stage", "run", *job, "--run-id", "r", "--partition", day.isoformat()])
    assert run_stage.main() == 0


def rows(lake: Lake, table: str) -> list[dict[str, Any]]:
    return [row for file in lake.files(table) for row in pq.read_table(file.path).to_pylist()]


def test_the_judge_is_asked_about_the_lists_of_the_day_in_the_state_of_its_end(profile: Profile, lake: Lake) -> None:
    query = load_pipeline("semantic_judge", "demo").job("nightly_judge_scoring").stage.reads.query
    assert query is not None
    found = {row["user_id"]: row for row in query_rows(lake, "semantic_judge", query, DAY, {}).to_pylist()}
    assert set(found) == set(CAME)
    for row in found.values():
        assert row["as_of"] == DAY + timedelta(1) and row["profile"].startswith(row["user_id"])
        assert row["listed"] == ["i5", "i10", "i15"] * 2 and row["versions"] == ["4"] * 3 + ["5"] * 3
        assert row["ranks"] == [1, 2, 3] * 2 and row["roles"] == ["champion"] * 3 + ["challenger"] * 3
    assert found["ann"]["item_ids"] == ["i0", "i1", "i2", "i3", "i30"]
    assert found["ann"]["ratings"] == [4.0, None, None, 4.0, 2.0]
    assert found["bob"]["item_ids"] == [f"i{n}" for n in range(7, 25)] + ["i30", "i31"]
    assert len(found["bob"]["ratings"]) == 20 and found["bob"]["ratings"][-2:] == [2.0, 3.0]
    assert found["bob"]["profile"] == f"bob {DAY}"
    assert found["eve"]["item_ids"] == ["i30"]
    assert not len(query_rows(lake, "semantic_judge", query, DAY + timedelta(1), {}))


@pytest.mark.usefixtures("champion")
def test_a_night_is_in_the_tables_once_whatever_is_repeated(
    profile: Profile, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, tmp_path)
    scores = rows(lake, "judge_scores")
    assert len(scores) == 18 and {row["run_date"] for row in scores} == {DAY}
    # Three users tell little: a third of the rows is of an item that is gone, and the night is withheld for it.
    assert {(row["item_id"], row["failure"]) for row in scores} == {
        ("i5", "withheld"),
        ("i10", "withheld"),
        ("i15", "not_in_catalogue"),
    }
    why = {row["check_name"]: row["why"] for row in rows(lake, "judge_checks") if not row["passed"]}
    assert "coverage" in why and "too few of the submitted rows" in why["coverage"]
    assert {row["withheld"] for row in rows(lake, "judge_means")} == {True}
    commits = {table: lake.snapshot(table) for table in TABLES}
    run(monkeypatch, tmp_path)
    assert {table: lake.snapshot(table) for table in TABLES} == commits and len(rows(lake, "judge_scores")) == 18
    for table in TABLES:
        assert not lake.files(f"{table}_quarantine")
        assert not Ledger(profile).missing(table, DAY, DAY)


@pytest.mark.usefixtures("champion")
def test_a_day_without_lists_and_a_shop_without_a_judge_are_green_and_leave_nothing(
    profile: Profile, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = DAY + timedelta(1)
    for table, day in (("events", "event_date"), ("histories", "history_date"), ("user_profiles", "profile_date")):
        (one, *_) = rows(lake, table)
        _put(profile, table, [{**one, day: later}])
    run(monkeypatch, tmp_path, later)
    assert not lake.files("judge_scores")
    result = json.loads(next((profile.home / "stages").rglob("result.json")).read_text())
    assert "listed_users has found no row" in result["left_out"]
    monkeypatch.setattr(_runs, "active", lambda profile, models: dict.fromkeys(models, ()))
    run(monkeypatch, tmp_path)
    assert not lake.files("judge_scores")


def registered(profile: Profile, folder: Path, judge: Path) -> str:
    """The judge as a version of the real registry; which one."""
    out = finish_stage(folder, "evaluate", snapshot=1)
    shutil.rmtree(out / "model")
    shutil.copytree(judge, out / "model")
    spec = json.loads((out / "spec.json").read_text())
    (out / "spec.json").write_text(json.dumps({**spec, "system": "semantic_judge", "tables": {}}))
    return packaging.register(profile, "semantic_judge", runs.log_stage(profile, out, out), out, out)


def test_a_judge_that_is_deleted_in_mlflow_stops_the_night_in_words_and_the_one_before_may_judge_it(
    profile: Profile, lake: Lake, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = {**GATE, "model": "semantic_judge", "system": "semantic_judge"}
    (tmp_path / "gates" / "semantic_judge.yaml").write_text(yaml.safe_dump(gate))
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    first, second = (registered(profile, tmp_path / name, judge) for name in ("one", "two"))
    for version in (first, second):
        decisions.promote(profile, "semantic_judge", version, who="ada", override=True, reason="of a test")
    run(monkeypatch, tmp_path)
    assert {row["judge_version"] for row in rows(lake, "judge_scores")} == {second}

    connect(profile).delete_model_version("semantic_judge", second)
    told, commits = rows(lake, "judge_scores"), {table: lake.snapshot(table) for table in TABLES}
    with pytest.raises(DataError, match=r"(?s)Champion 2 .*is gone from MLflow.*registry rollback"):
        run(monkeypatch, tmp_path)
    # Nobody else judges in its place, and what it has said stays.
    assert {table: lake.snapshot(table) for table in TABLES} == commits and rows(lake, "judge_scores") == told

    decisions.rollback(profile, "semantic_judge", who="ada", reason="2 was deleted")
    run(monkeypatch, tmp_path)
    again = rows(lake, "judge_scores")
    assert {row["judge_version"] for row in again} == {first} and len(again) == len(told)
