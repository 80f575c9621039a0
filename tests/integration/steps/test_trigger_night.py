"""The nightly index of queries on a real lake and registry: what it is made of, and what is gone since."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dags.steps import run_stage
from feature_store.index import publish_index
from infra.contracts import UNDATED
from infra.errors import DataError
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.results import RESULT_FILE
from registry import decisions
from registry.store import connect
from tests.hints_kit import deliver, put_in_use, put_rows
from tests.unit.training.query_rec import shop_kit
from tests.unit.training.query_rec.writer_kit import packaged_ranker, packaged_writer

DAY = date(2026, 1, 20)
MODELS = ("query_rec", "hint_ranker")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    writer, ranker = (tmp_path_factory.mktemp(name) for name in MODELS)
    return {"query_rec": packaged_writer(writer), "hint_ranker": packaged_ranker(ranker)}


@pytest.fixture
def lake(profile: Profile) -> Lake:
    """Twelve people who clicked on a thing and searched for its kind on the day, and one who was last seen long ago."""
    events, searches = [], []
    for number in range(13):
        kind, colour = shop_kit.KINDS[number % 4], shop_kit.COLOURS[number % 3]
        at = datetime(2026, 1, 20, number, tzinfo=UTC) - timedelta(days=200 if number == 12 else 0)
        user = {"user_id": f"u{number}"}
        whole = {**user, "event_date": at.date(), "event_time": at, "event_type": "click"}
        events.append({**whole, "item_id": f"{kind}-{colour}-{number % 3 + 2}"})
        asked = {"search_date": at.date(), "search_time": at, "request_id": f"r{number}", "source": "typed", **user}
        searches.append({**asked, "query": f"{colour.upper()}  {kind}"})
    put_rows(profile, "events", events)
    put_rows(profile, "searches", searches)
    asked = {"stat_date": DAY, "query": "red pen", "available_at": datetime(2026, 1, 21, tzinfo=UTC)}
    put_rows(profile, "query_stats", [{**asked, "clicked_30d": 1, "typed_30d": 5}])
    deliver(profile, UNDATED)
    return Lake(profile)


def _run(monkeypatch: pytest.MonkeyPatch, folder: Path, day: date = DAY) -> dict[str, Any]:
    """The job, as its DAG asks for it; its stage's result."""
    handed = folder / "handed-on.json"
    monkeypatch.setenv(RESULT_FILE, str(handed))
    job = ["--system", "query_rec", "--job", "nightly_trigger_to_query"]
    monkeypatch.setattr(sys, "argv", ["run_stage", "run", *job, "--run-id", "r", "--partition", day.isoformat()])
    assert run_stage.main() == 0
    stage = Path(json.loads(handed.read_text())["spec"]).parent
    found: dict[str, Any] = json.loads((stage / "result.json").read_text())
    return found


def _rows(lake: Lake, day: date = DAY) -> list[dict[str, Any]]:
    files = lake.files("trigger_queries", partitions=[day])
    return [row for file in files for row in pq.read_table(file.path).to_pylist()]


def test_a_night_is_published_once_and_of_what_the_shop_still_has(
    profile: Profile, lake: Lake, packed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no version of query_rec has been promoted yet" in _run(monkeypatch, tmp_path)["left_out"]
    assert publish_index(profile) is None
    versions = {model: put_in_use(profile, tmp_path / model, model, packed[model]) for model in MODELS}

    assert _run(monkeypatch, tmp_path)["metrics"]["people"] == 12
    rows = _rows(lake)
    assert rows and {row["index_date"] for row in rows} == {DAY}
    assert {(row["model_version"], row["ranker_version"]) for row in rows} == {tuple(versions.values())}
    kinds = {row["trigger"].split("-")[0] for row in rows if row["kind"] == "item"}
    assert "lamp" in kinds and {row["trigger"] for row in rows if row["kind"] == "search"} >= {"red pen"}
    before = lake.snapshot("trigger_queries")
    _run(monkeypatch, tmp_path)
    assert lake.snapshot("trigger_queries") == before and Ledger(profile).reconcile() == []
    first = publish_index(profile)
    assert first is not None and first.keys == len({(row["kind"], row["trigger"]) for row in rows})

    # The next delivery has no lamps: what was of them leads nowhere, and nothing leads to a query that finds nothing.
    deliver(profile, DAY, without="lamp")
    _run(monkeypatch, tmp_path)
    rows = _rows(lake)
    assert rows and not any(row["trigger"].startswith("lamp-") for row in rows if row["kind"] == "item")
    assert not any("lamp" in row["query"] for row in rows)
    second = publish_index(profile)
    assert second is not None and second.version != first.version


def test_a_ranker_that_is_deleted_stops_the_night_in_words_and_the_index_stays(
    profile: Profile, lake: Lake, packed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_use(profile, tmp_path / "query_rec", "query_rec", packed["query_rec"])
    first, second = (put_in_use(profile, tmp_path / name, "hint_ranker", packed["hint_ranker"]) for name in ("a", "b"))
    _run(monkeypatch, tmp_path)
    told = _rows(lake)
    assert {row["ranker_version"] for row in told} == {second}
    connect(profile).delete_model_version("hint_ranker", second)
    with pytest.raises(DataError, match=rf"(?s)Champion {second} .*is gone from MLflow.*registry rollback"):
        _run(monkeypatch, tmp_path)
    assert _rows(lake) == told
    decisions.rollback(profile, "hint_ranker", who="ada", reason="it was deleted")
    _run(monkeypatch, tmp_path)
    assert {row["ranker_version"] for row in _rows(lake)} == {first}
