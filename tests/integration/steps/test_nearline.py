"""Hints written nearline, from a file that lands to the online store, step by step as the DAG runs them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dags.steps import prepare_job, run_stage
from feature_store.definitions import USER_HINTS
from feature_store.online import online_rows
from feature_store.push import push
from feature_store.store import opened_store
from infra.contracts import UNDATED
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile, load_profile
from infra.results import NOTHING, RESULT_FILE
from tests.hints_kit import deliver, put_in_use
from tests.unit.training.query_rec.writer_kit import packaged_writer

DAY = date(2026, 1, 20)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged_writer(tmp_path_factory.mktemp("writer"))


class Shop:
    """What lands in it, and the job's steps."""

    def __init__(self, profile: Profile, patch: pytest.MonkeyPatch, scratch: Path) -> None:
        self.profile, self._patch, self._handed = profile, patch, scratch / "handed-on.json"

    def lands(self, name: str, *done: tuple[str, int, str]) -> None:
        """Who viewed what, so many minutes after ten."""
        folder = self.profile.landing / "events"
        folder.mkdir(parents=True, exist_ok=True)
        start = datetime(2026, 1, 20, 10, tzinfo=UTC)
        rows = [
            {"user_id": user, "item_id": item, "event_type": "view"}
            | {"event_time": (start + timedelta(minutes=minute)).isoformat()}
            for user, minute, item in done
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def prepare(self) -> str:
        """Why there is nothing to do; empty where there is."""
        return str((self._step(prepare_job) or {}).get(NOTHING, ""))

    def write(self) -> dict[str, Any]:
        """The stage's result."""
        stage = Path(self._step(run_stage, "run")["spec"]).parent
        found: dict[str, Any] = json.loads((stage / "result.json").read_text())
        return found

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Hints by person and what called for them: each once."""
        files = Lake(self.profile).files("user_hints")
        rows = [row for file in files for row in pq.read_table(file.path).to_pylist()]
        found = {(row["user_id"], row["trigger_contents"][0]): row for row in rows}
        assert len(found) == len(rows)
        return found

    def online(self, *users: str) -> dict[str, dict[str, Any]]:
        with opened_store(self.profile) as store:
            return online_rows(store, USER_HINTS, users)

    def _step(self, step: Any, *action: str) -> Any:
        self._handed.unlink(missing_ok=True)
        self._patch.setenv(RESULT_FILE, str(self._handed))
        job = ["--system", "query_rec", "--job", "nearline_hints", "--run-id", "r", "--partition", DAY.isoformat()]
        self._patch.setattr(sys, "argv", [step.__name__, *action, *job])
        assert step.main() == 0
        return json.loads(self._handed.read_text()) if self._handed.exists() else None


@pytest.fixture
def shop(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("PLUMBLINE__LANDING", str(tmp_path / "landing"))
    deliver(profile, UNDATED)
    return Shop(load_profile("local"), monkeypatch, tmp_path)


def test_an_event_that_lands_is_hints_online_once_whatever_is_killed(
    shop: Shop, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.lands("a.jsonl", ("ann", 0, "lamp-red-3"), ("bob", 1, "pen-blue-2"), ("bob", 1, "pen-blue-2"))
    assert "no version of query_rec has been promoted" in shop.prepare()
    version = put_in_use(shop.profile, tmp_path / "made", "query_rec", packed)
    assert shop.prepare() == ""

    publish = run_stage.publish_rows

    def killed(*arguments: Any) -> None:
        publish(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_stage, "publish_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            shop.write()
    written = shop.rows()
    assert set(written) == {("ann", "lamp-red-3"), ("bob", "pen-blue-2")}
    assert {row["model_version"] for row in written.values()} == {version}

    assert shop.prepare() == "", "the online store was not told"
    assert "has found no row" in shop.write()["left_out"]
    assert push(shop.profile, USER_HINTS).entities == 2
    assert shop.rows() == written and shop.online("ann")["ann"]["queries"] == written["ann", "lamp-red-3"]["queries"]
    assert "nobody has done anything" in shop.prepare()

    shop.lands("b.jsonl", ("ann", 40, "chair-red-3"), ("ann", 0, "lamp-red-3"), ("bob", 3, "pen-blue-3"))
    assert shop.prepare() == "" and shop.write()["metrics"]["signals"] == 1
    push(shop.profile, USER_HINTS)
    now = shop.online("ann", "bob", "eve")
    assert now["ann"]["trigger_contents"] == ["chair-red-3", "lamp-red-3"] and set(now) == {"ann", "bob"}
    assert now["bob"]["queries"] == written["bob", "pen-blue-2"]["queries"], "bob rests"
    assert Ledger(shop.profile).reconcile() == []
