"""Before a job of every so many minutes: when there is nothing to do, and that Spark does not start then."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dags.steps import prepare_job
from infra.contracts import arrow_schema, load_contract
from infra.profile import Profile
from infra.results import NOTHING, RESULT_FILE
from registry.promotions import Promotions
from tests.lake_kit import put

DAY = date(2018, 1, 5)


@pytest.fixture
def prepare(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The step; gives its exit code, what it has built, and what it hands on."""

    def run(champion: bool = True, code: int = 0) -> tuple[int, list[str], str]:
        built: list[str] = []
        result = tmp_path / "result.json"
        result.unlink(missing_ok=True)
        monkeypatch.setenv(RESULT_FILE, str(result))
        monkeypatch.setattr(prepare_job, "load_profile", lambda: profile)
        if champion and Promotions(profile).champion("query_rec") is None:
            told = {"champion": None, "who": "a test", "report": None, "override": True, "reason": "a test"}
            Promotions(profile).promote("query_rec", "1", **told)
        monkeypatch.setattr(prepare_job.subprocess, "call", lambda own, **_: built.append(own[-1]) or code)
        own = ["--system", "query_rec", "--job", "nearline_hints", "--run-id", "r", "--partition", DAY.isoformat()]
        monkeypatch.setattr(sys, "argv", ["prepare_job", *own])
        ended = prepare_job.main()
        return ended, built, json.loads(result.read_text())[NOTHING] if result.exists() else ""

    return run


def signal() -> pa.Table:
    at = datetime(2018, 1, 5, 10, tzinfo=UTC)
    told = {"behaviour_days_ago": [0], "behaviour_actions": ["view"], "behaviour_contents": ["i1"]}
    own = {"signal_date": DAY, "user_id": "ann", "signal_id": "s", "signal_time": at, "action": "view", "content": "i1"}
    return pa.Table.from_pylist([{**own, "as_of": at, **told}], schema=arrow_schema(load_contract("signals")))


def hints() -> pa.Table:
    at = datetime(2018, 1, 5, 10, tzinfo=UTC)
    lists = {"queries": ["pens"], "sources": ["model"], "lists": [0], "trigger_actions": ["view"]}
    own = {"hint_date": DAY, "user_id": "ann", "signal_id": "s", "available_at": at, "signal_time": at, **lists}
    rows = [{**own, "trigger_contents": ["i1"], "model_version": "1"}]
    return pa.Table.from_pylist(rows, schema=arrow_schema(load_contract("user_hints")))


def test_without_a_champion_nothing_is_built(prepare: Any) -> None:
    assert prepare(champion=False) == (0, [], "no version of query_rec has been promoted yet")


def test_where_nobody_calls_for_hints_the_rest_is_skipped(prepare: Any) -> None:
    code, built, nothing = prepare()
    assert (code, built) == (0, ["signals"]) and "nobody has done anything" in nothing


def test_a_signal_without_a_list_and_a_list_that_is_not_online_are_work(prepare: Any, profile: Profile) -> None:
    put(profile, "signals", signal())
    assert prepare() == (0, ["signals"], "")
    put(profile, "user_hints", hints())
    assert prepare() == (0, ["signals"], ""), "the online store was not told"


def test_what_spark_ends_with_is_what_the_step_ends_with(prepare: Any, profile: Profile) -> None:
    put(profile, "signals", signal())
    assert prepare(code=75) == (75, ["signals"], "")
