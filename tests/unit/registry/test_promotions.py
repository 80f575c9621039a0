"""The ledger of promotions: against a model of it, against tampering, over time, and between two processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import tempfile
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import Connection, create_mock_engine, text
from sqlalchemy.exc import IntegrityError

from infra.database import open_database
from infra.errors import DataError, PlumblineError
from infra.profile import Profile, load_profile
from registry import promotions as module
from registry.gate_report import Check, GateReport
from registry.promotions import METADATA, Decision, GateNotPassed, Promotions, StaleDecision


def report(version: str, champion: str | None, *, passed: bool = True, model: str = "m") -> GateReport:
    check = Check("mrr", passed, "by hand", 0.5, 0.4)
    return GateReport(
        model, version, champion, "time", "real", 10, 10, "user", 10, "2018-01-05T00:00:00+00:00", (check,)
    )


def promote(ledger: Promotions, version: str, *, model: str = "m", who: str = "ada") -> Decision:
    """Promote with a gate passed against the present champion."""
    champion = ledger.champion(model)
    passed = report(version, champion, model=model)
    return ledger.promote(model, version, champion=champion, who=who, report=passed)


class PromotionsMachine(RuleBasedStateMachine):
    """The ledger against a list: promote appends, rollback pops, reject does nothing, and nothing else ever happens."""

    versions: Bundle[str] = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        profile = load_profile("local", environ={"PLUMBLINE__HOME": self.folder.name})
        self.ledger = Promotions(profile)
        self.line: list[str] = []
        self.past: list[tuple[datetime, str | None]] = []
        self.rows = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    def noted(self) -> None:
        self.rows += 1
        self.past.append((self.ledger.history("m")[-1].at, self.line[-1] if self.line else None))

    @rule(target=versions, number=st.integers(1, 6))
    def register(self, number: int) -> str:
        return str(number)

    @rule(version=versions, passed=st.booleans(), against=st.one_of(st.none(), versions), override=st.booleans())
    def promote(self, version: str, passed: bool, against: str | None, override: bool) -> None:
        champion = self.line[-1] if self.line else None
        fits = passed and against == champion
        reason = "we know better" if override else ""
        try:
            made = self.ledger.promote(
                "m",
                version,
                champion=champion,
                who="ada",
                report=report(version, against, passed=passed),
                override=override,
                reason=reason,
            )
        except PlumblineError as error:
            assert isinstance(error, StaleDecision if fits or override else GateNotPassed)
            assert version == champion or not (fits or override)
            return
        assert (fits or override) and version != champion
        assert (made.from_version, made.to_version, made.override) == (champion, version, not fits)
        self.line.append(version)
        self.noted()

    @rule(version=versions)
    def reject(self, version: str) -> None:
        if self.line and version == self.line[-1]:
            with pytest.raises(StaleDecision):
                self.ledger.reject("m", version, who="ada", reason="no", report=None)
            return
        self.ledger.reject("m", version, who="ada", reason="no", report=None)
        self.noted()

    @rule()
    def rollback(self) -> None:
        if len(self.line) < 2:
            with pytest.raises(DataError, match="no earlier champion"):
                self.ledger.rollback("m", who="ada", reason="bad")
            return
        made = self.ledger.rollback("m", who="ada", reason="bad")
        assert (made.from_version, made.to_version) == (self.line.pop(), self.line[-1])
        self.noted()

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        assert self.ledger.champion("m") == (self.line[-1] if self.line else None)
        assert [row.number for row in self.ledger.history("m")] == list(range(1, self.rows + 1))

    @invariant()
    def the_past_does_not_change(self) -> None:
        # Rows of one microsecond cannot be told apart in time: the last of them answers.
        for at, champion in dict(self.past).items():
            assert self.ledger.champion("m", at) == champion


TestPromotionsMachine = PromotionsMachine.TestCase
TestPromotionsMachine.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE promotions SET who = 'nobody'",
        "DELETE FROM promotions",
        "INSERT OR REPLACE INTO promotions SELECT * FROM promotions",
        "INSERT OR REPLACE INTO promotions SELECT id + 9, number, at, 'nobody', model, from_version, to_version,"
        " decision, override, reason, gate_report_json FROM promotions",
    ],
)
def test_the_database_itself_refuses_to_change_a_row(profile: Profile, statement: str) -> None:
    ledger = Promotions(profile)
    promote(ledger, "1")
    before = ledger.history()
    with (
        pytest.raises(IntegrityError, match="append-only"),
        open_database(profile.database_uri, METADATA).begin() as connection,
    ):
        connection.execute(text(statement))
    assert ledger.history() == before


def test_postgres_gets_its_own_trigger() -> None:
    statements: list[str] = []
    engine = create_mock_engine(
        "postgresql://", lambda sql, *_, **__: statements.append(str(sql.compile(dialect=engine.dialect)))
    )
    METADATA.create_all(engine, checkfirst=False)
    made = "\n".join(statements)
    assert "BEFORE UPDATE OR DELETE OR TRUNCATE ON promotions" in made
    assert made.index("CREATE FUNCTION") < made.index("CREATE TRIGGER")
    assert "RAISE(ABORT" not in made


def test_history_answers_who_was_champion_then(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Promotions(profile)
    start = datetime(2018, 1, 5, 12, tzinfo=UTC)

    class Clock(datetime):
        hour_now = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return start + timedelta(hours=cls.hour_now)

    monkeypatch.setattr(module, "datetime", Clock)
    for hour, version in enumerate(["1", "2", "3"]):
        Clock.hour_now = hour
        promote(ledger, version)
    Clock.hour_now = 3
    ledger.rollback("m", who="ada", reason="bad")
    answers = [
        ledger.champion("m", start + timedelta(hours=h, minutes=m))
        for h, m in [(-1, 0), (0, 0), (1, 59), (2, 0), (9, 0)]
    ]
    assert answers == [None, "1", "2", "3", "2"]


def test_a_clock_that_went_back_does_not_reorder_the_past(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Promotions(profile)
    first = promote(ledger, "1")

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return first.at - timedelta(days=1)

    monkeypatch.setattr(module, "datetime", Yesterday)
    assert promote(ledger, "2").at == first.at
    assert ledger.champion("m", first.at) == "2"


def test_models_do_not_share_their_champions(profile: Profile) -> None:
    ledger = Promotions(profile)
    promote(ledger, "1", model="a")
    promote(ledger, "7", model="b")
    assert (ledger.champion("a"), ledger.champion("b"), ledger.champion("c")) == ("1", "7", None)
    with pytest.raises(DataError, match="no earlier champion"):
        ledger.rollback("a", who="ada", reason="bad")


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (None, "never held"),
        (report("2", "1", passed=False), r"mrr \(by hand\)"),
        (report("2", "0"), "held against champion 0, and now it is 1"),
        (report("3", "1"), "is of version 3"),
        (dataclasses.replace(report("2", "1"), model="other"), "of version 2 of 'other'"),
    ],
)
def test_only_a_gate_passed_by_this_version_against_this_champion_lets_it_through(
    profile: Profile, held: GateReport | None, why: str
) -> None:
    ledger = Promotions(profile)
    promote(ledger, "1")
    with pytest.raises(GateNotPassed, match=why):
        ledger.promote("m", "2", champion="1", who="ada", report=held)
    assert ledger.promote("m", "2", champion="1", who="ada", report=held, override=True, reason="known").override


def race(home: str, version: str, barrier: Any, outcomes: Any) -> None:
    ledger = Promotions(load_profile("local", environ={"PLUMBLINE__HOME": home}))
    barrier.wait()
    try:
        ledger.promote("m", version, champion="1", who="racer", report=report(version, "1"))
        outcomes.put((version, "won"))
    except StaleDecision:
        outcomes.put((version, "lost"))


def test_of_two_processes_that_promote_at_once_exactly_one_wins(tmp_path: Path) -> None:
    ledger = Promotions(load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path)}))
    promote(ledger, "1")
    context = multiprocessing.get_context("spawn")
    barrier, outcomes = context.Barrier(2), context.Queue()
    racers = [context.Process(target=race, args=(str(tmp_path), v, barrier, outcomes)) for v in ("2", "3")]
    for racer in racers:
        racer.start()
    found = dict(outcomes.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join()
    assert sorted(found.values()) == ["lost", "won"]
    (winner,) = [version for version, outcome in found.items() if outcome == "won"]
    assert [row.to_version for row in ledger.history("m")] == ["1", winner]


def test_a_number_taken_by_another_decision_is_decided_anew(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under Postgres, where two transactions read the same last row: the loser of the insert looks again."""
    ledger, other = Promotions(profile), Promotions(profile)
    promote(ledger, "1")
    read, stale = module._read, []

    def read_before_the_other(connection: Connection, model: str | None, at: datetime | None = None) -> list[Decision]:
        rows = read(connection, model, at)
        if not stale:
            stale.append(True)
            return rows[:-1]
        return rows

    monkeypatch.setattr(module, "_read", read_before_the_other)
    made = other.reject("m", "9", who="ada", reason="no", report=None)
    assert (made.number, made.from_version) == (2, "1")


@pytest.mark.parametrize(
    ("override", "reason", "promoted"),
    [
        (True, "we know better", True),
        (True, "", False),
        (True, " \n", False),
        (False, "we know better", False),
        (False, "", False),
    ],
)
def test_a_failed_gate_is_passed_over_by_an_override_with_a_reason_and_by_nothing_less(
    profile: Profile, override: bool, reason: str, promoted: bool
) -> None:
    ledger, failed = Promotions(profile), report("1", None, passed=False)
    asked = {"champion": None, "who": "ada", "report": failed, "override": override, "reason": reason}
    if promoted:
        assert ledger.promote("m", "1", **asked).override  # type: ignore[arg-type]
    else:
        with pytest.raises(GateNotPassed, match="needs a reason" if override else "Its gate failed"):
            ledger.promote("m", "1", **asked)  # type: ignore[arg-type]
    assert ledger.champion("m") == ("1" if promoted else None)


def test_an_override_that_was_not_needed_is_not_recorded_as_one(profile: Profile) -> None:
    made = Promotions(profile).promote(
        "m", "1", champion=None, who="ada", report=report("1", None), override=True, reason="to be sure"
    )
    assert (made.override, made.reason) == (False, "to be sure")
