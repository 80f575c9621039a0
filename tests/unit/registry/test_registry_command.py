"""A decision on the command line is followed by the DAGs, or by a plain word about how they can be made to."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import Any

import pytest

from infra.airflow_client import AirflowApiError, AirflowClient
from infra.contracts import UNDATED
from infra.ledger import Ledger
from infra.profile import Profile
from registry import __main__ as command
from registry import airflow_events, decisions, gate_file
from registry.gate_report import Check, GateReport
from registry.promotions import Decision, Promotions

DAYS = [date(2018, 1, 4), date(2018, 1, 6), date(2018, 1, 5)]


class Airflow:
    """An API server that hears, or is down."""

    def __init__(self, up: bool) -> None:
        self.up, self.heard = up, list[tuple[str, date]]()

    def announce(self, asset: str, partition_key: date) -> None:
        if not self.up:
            raise AirflowApiError("Airflow did not answer.", where="POST http://airflow/api/v2/assets/events")
        self.heard.append((asset, partition_key))


@pytest.fixture
def say(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command beside an Airflow; its exit code."""
    made = Decision(1, 1, datetime.now(UTC), "ada", "toy", "2", "1", "rollback", False, "it was slow", None)
    for name in ("promote", "reject", "rollback"):
        monkeypatch.setattr(decisions, name, lambda *_, **__: made)
    monkeypatch.setattr(command, "load_profile", lambda: profile)
    monkeypatch.setattr(Promotions, "history", lambda self, model: [made])
    monkeypatch.setattr(airflow_events, "connect", lambda profile: None)
    read = {"1": {"items": [7], "next_item_training_set": [9]}}
    monkeypatch.setattr(airflow_events, "snapshots_of", lambda client, model, version: read[version])
    days = {"items": [UNDATED], "next_item_training_set": DAYS, "events": [date(2030, 1, 1)]}
    monkeypatch.setattr(Ledger, "committed", lambda self, asset: dict.fromkeys(days[asset]))

    def run(airflow: Airflow, *arguments: str) -> int:
        monkeypatch.setattr(AirflowClient, "of", lambda profile: airflow)
        monkeypatch.setattr(sys, "argv", ["registry", *arguments, "--model", "toy"])
        return command.main()

    return run


DECISIONS = (("promote",), ("reject", "--reason", "no"), ("rollback", "--reason", "it was slow"))


@pytest.mark.parametrize("arguments", [*DECISIONS, ("announce",)])
def test_airflow_hears_of_a_decision_for_the_newest_day_of_what_the_version_was_made_from(
    say: Any, arguments: tuple[str, ...]
) -> None:
    airflow = Airflow(up=True)
    assert say(airflow, *arguments) == 0
    assert airflow.heard == [("toy_decision", date(2018, 1, 6))]


@pytest.mark.parametrize("arguments", DECISIONS)
def test_a_decision_stands_although_airflow_is_down_and_the_remedy_is_named(
    say: Any, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(Airflow(up=False), *arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith("toy: version 1 is ")
    assert "no DAG follows it yet" in said.err
    assert "python -m registry announce --model toy" in said.err


@pytest.mark.parametrize(("arguments", "told"), [(DECISIONS[0], True), (DECISIONS[1], True), (DECISIONS[2], False)])
def test_what_was_so_already_is_told_as_such_with_who_decided_it_and_when(
    say: Any, arguments: tuple[str, ...], told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(Airflow(up=True), *arguments, "--who", "eve") == 0
    text = f"It was so already (rollback by ada, {datetime.now(UTC):%Y-%m-%d} "
    assert (text in capsys.readouterr().out) == told


def test_what_is_decided_now_is_not_told_as_old(
    say: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, past = Promotions.history(None, "toy"), [[]]  # type: ignore[arg-type,var-annotated]
    monkeypatch.setattr(Promotions, "history", lambda self, model: past.pop() if past else made)
    assert say(Airflow(up=True), "promote") == 0
    assert "already" not in capsys.readouterr().out


def test_to_announce_to_an_airflow_that_is_down_fails(say: Any) -> None:
    with pytest.raises(AirflowApiError, match="did not answer"):
        say(Airflow(up=False), "announce")


def test_where_one_model_has_a_gate_it_is_meant_and_where_several_have_one_it_is_to_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_file, "models", lambda: ["judge"])
    assert command._parser().parse_args(["gate"]).model == "judge"
    monkeypatch.setattr(gate_file, "models", lambda: ["generator", "judge"])
    with pytest.raises(SystemExit):
        command._parser().parse_args(["gate"])
    assert "--model" in capsys.readouterr().err


def test_the_gate_is_shown_with_every_verdict_and_what_a_version_has_not_shown(
    say: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = (
        Check("recall", True, "enough", 0.5, 0.4),
        Check("gain", True, "difference +0.0000", 0.0, 0.001, otherwise="it adds nothing"),
        Check("clicks", True, "no night", played=False, in_market=True),
        Check("score", True, "no night", played=False, by_judge=True),
    )
    report = GateReport("toy", "2", None, "time", "real", 60, 60, "user", 60, "2026-11-29T00:00:00+00:00", checks)
    monkeypatch.setattr(decisions, "hold_gate", lambda *_: report)
    assert say(Airflow(up=True), "gate") == 0
    said = capsys.readouterr().out
    assert all(verdict in said for verdict in ("passed", "not shown", "not played yet", "not judged yet"))
    assert "not shown: it adds nothing (gain: difference +0.0000)\ngate passed" in said
