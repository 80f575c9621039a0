"""The ledger of promotions: append-only rows in the profile's database; who made which version champion, and why.

The champion at any time is a replay of the rows up to then: `promote` puts a version on top of the line of champions,
`rollback` takes the top one off, `reject` leaves the line as it is. MLflow's aliases are only views of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from infra.database import UtcDateTime, open_database, transaction
from infra.errors import DataError, PlumblineError, TransientError
from infra.profile import Profile
from registry.append_only import forbid_changes
from registry.gate_report import GateReport

METADATA = MetaData()
_ATTEMPTS = 5
_Row = Callable[[list[str]], dict[str, Any]]  # the line of champions -> what the new row says of versions

promotions = Table(
    "promotions",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("number", Integer, nullable=False),  # of the model's decisions: two that race want the same one
    Column("at", UtcDateTime, nullable=False),
    Column("who", String, nullable=False),
    Column("model", String, nullable=False),
    Column("from_version", String),
    Column("to_version", String),
    Column("decision", String, nullable=False),
    Column("override", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("gate_report_json", Text),
    UniqueConstraint("model", "number"),
    sqlite_autoincrement=True,
)
forbid_changes(promotions)


class GateNotPassed(DataError):
    """A version without a passed gate was to be promoted, and nobody took that upon them."""


class StaleDecision(DataError):
    """The champion that a decision was made against is no longer the champion."""


@dataclass(frozen=True)
class Decision:
    """One row. `from_version`: the champion before. `to_version`: the champion after, or the rejected version."""

    id: int
    number: int
    at: datetime
    who: str
    model: str
    from_version: str | None
    to_version: str
    decision: Literal["promote", "reject", "rollback"]
    override: bool
    reason: str
    gate_report_json: str | None

    @property
    def report(self) -> GateReport | None:
        """The gate as it was held."""
        return GateReport.from_json(self.gate_report_json) if self.gate_report_json else None


def line_of_champions(decisions: Iterable[Decision]) -> list[str]:
    """The champions that a rollback can go back through, the present one last; decisions of ONE model, oldest first."""
    line: list[str] = []
    for decision in decisions:
        if decision.decision == "promote":
            line.append(decision.to_version)
        elif decision.decision == "rollback":
            line.pop()
    return line


class Promotions:
    """The ledger in the profile's database (SQLite or Postgres); its table is made on first use."""

    def __init__(self, profile: Profile) -> None:
        self._engine = open_database(profile.database_uri, METADATA)

    def history(self, model: str | None = None, at: datetime | None = None) -> list[Decision]:
        """All rows, oldest first; with `at` (aware) only those that had been made by then."""
        with transaction(self._engine) as connection:
            return _read(connection, model, at)

    def champion(self, model: str, at: datetime | None = None) -> str | None:
        """The version that is champion, or was at the time `at`; None before the first promotion."""
        line = line_of_champions(self.history(model, at))
        return line[-1] if line else None

    def promote(
        self,
        model: str,
        version: str,
        *,
        champion: str | None,
        who: str,
        report: GateReport | None,
        override: bool = False,
        reason: str = "",
    ) -> Decision:
        """Make `version` champion. `champion` is the one that the caller decided against.

        Raises:
            GateNotPassed: no passed gate of this version against that champion, and no override with a reason.
            StaleDecision: somebody has changed the champion meanwhile, or `version` is champion already.
        """
        overridden = _overridden(model, version, champion, report, override, reason)

        def row(line: list[str]) -> dict[str, Any]:
            present = line[-1] if line else None
            if present != champion or present == version:
                raise _stale(model, version, champion, present)
            return {"from_version": present, "to_version": version, "decision": "promote", "override": overridden}

        return self._append(model, row, who=who, reason=reason, report=report)

    def reject(self, model: str, version: str, *, who: str, reason: str, report: GateReport | None) -> Decision:
        """Record that `version` was refused; the champion stays.

        Raises:
            StaleDecision: `version` is the champion.
        """

        def row(line: list[str]) -> dict[str, Any]:
            present = line[-1] if line else None
            if present == version:
                raise _stale(model, version, None, present)
            return {"from_version": present, "to_version": version, "decision": "reject", "override": False}

        return self._append(model, row, who=who, reason=reason, report=report)

    def rollback(self, model: str, *, who: str, reason: str) -> Decision:
        """Go back to the champion before the present one; a second rollback goes back one further.

        Raises:
            DataError: there is no earlier champion.
        """

        def row(line: list[str]) -> dict[str, Any]:
            if len(line) < 2:
                raise DataError(f"Model {model!r} has no earlier champion.", do="See: python -m registry history")
            return {"from_version": line[-1], "to_version": line[-2], "decision": "rollback", "override": False}

        return self._append(model, row, who=who, reason=reason, report=None)

    def _append(self, model: str, row: _Row, *, who: str, reason: str, report: GateReport | None) -> Decision:
        """Read the line, let `row` decide on it, insert; where another decision took the number, decide anew."""
        for _ in range(_ATTEMPTS):
            try:
                with transaction(self._engine) as connection:
                    past = _read(connection, model)
                    values = {
                        **row(line_of_champions(past)),
                        "number": len(past) + 1,
                        # A clock that went back must not reorder the answers of `history --at`.
                        "at": max([datetime.now(UTC), *(decision.at for decision in past[-1:])]),
                        "who": who,
                        "model": model,
                        "reason": reason,
                        "gate_report_json": report.to_json() if report else None,
                    }
                    connection.execute(insert(promotions).values(values))
                    return _read(connection, model)[-1]
            except IntegrityError:
                continue
        raise TransientError(f"Other decisions about {model!r} kept coming first.", do="Try again.")


def _read(connection: Connection, model: str | None, at: datetime | None = None) -> list[Decision]:
    query = select(promotions).order_by(promotions.c.id)
    if model is not None:
        query = query.where(promotions.c.model == model)
    if at is not None:
        query = query.where(promotions.c.at <= at)
    return [Decision(**row) for row in connection.execute(query).mappings()]


def _overridden(
    model: str, version: str, champion: str | None, report: GateReport | None, override: bool, reason: str
) -> bool:
    """False where the gate allows the promotion, True where a person does."""
    objection = _objection(model, version, champion, report)
    if not objection:
        return False
    if override and reason.strip():
        return True
    raise GateNotPassed(
        f"Version {version} of {model!r} cannot be promoted.",
        where=f"mlflow/gates/{model}.yaml",
        why="An override needs a reason." if override else objection,
        do='Pass the gate, or take it upon you: promote --override --reason "..."',
    )


def _objection(model: str, version: str, champion: str | None, report: GateReport | None) -> str:
    if report is None:
        return "Its gate was never held."
    if (report.model, report.version) != (model, version):
        return f"The gate report is of version {report.version} of {report.model!r}."
    if report.champion != champion:
        return (
            f"Its gate was held against champion {report.champion or '(none)'}, and now it is {champion or '(none)'}."
        )
    if not report.passed:
        return "Its gate failed: " + "; ".join(f"{check.name} ({check.reason})" for check in report.failed)
    return ""


def _stale(model: str, version: str, expected: str | None, present: str | None) -> PlumblineError:
    if present == version:
        do = f'To take it away: python -m registry rollback --model {model} --reason "..."'
        return StaleDecision(f"Version {version} of {model!r} is the champion already.", do=do)
    return StaleDecision(
        f"Version {version} of {model!r} was not promoted.",
        why=f"It was to follow champion {expected or '(none)'}, but meanwhile {present or '(none)'} is champion.",
        do="Hold its gate against the new champion: python -m registry gate",
    )
