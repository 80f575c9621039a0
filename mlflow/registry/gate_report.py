"""What a gate found: one line per check, as JSON for the ledger and as a short page for the person who approves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

_COUNT_FROM = 100
Verdict = Literal["passed", "failed", "not shown", "not played yet", "not judged yet"]
NOT_PLAYED: Literal["not played yet"] = "not played yet"
NOT_JUDGED: Literal["not judged yet"] = "not judged yet"


@dataclass(frozen=True)
class Check:
    """One check. `value` and `threshold` are null where the check is not about a number.

    `in_market`: it was held on the simulated market; `by_judge`: on what the judge says of lists. `played`: there was
    something to hold it on; what was not played, or judged, yet has passed, unless the gate file requires it.
    `otherwise`: it was not reached, and this is what that means; it was to be told, and stops nothing.
    """

    name: str
    passed: bool
    reason: str
    value: float | None = None
    threshold: float | None = None
    in_market: bool = False
    played: bool = True
    by_judge: bool = False
    otherwise: str = ""

    @property
    def of_lists(self) -> bool:
        """Whether it was held on lists, which a version has once it is challenger, and not on an evaluation."""
        return self.in_market or self.by_judge

    @property
    def verdict(self) -> Verdict:
        """In words."""
        if not self.passed:
            return "failed"
        if self.otherwise:
            return "not shown"
        return "passed" if self.played else NOT_JUDGED if self.by_judge else NOT_PLAYED


@dataclass(frozen=True)
class GateReport:
    """The gate of `version` held against `champion` (null: there is none yet) on `samples` samples of `units` units.

    `scored`: how many of them the model has scored. `unit`: what a unit is, in one word.
    """

    model: str
    version: str
    champion: str | None
    split: str
    origin: str
    samples: int
    scored: int
    unit: str
    units: int
    at: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True where every check passed; a report without checks has checked nothing and does not pass."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def may_be_played(self) -> bool:
        """True where nothing has failed but for want of lists: the version may have some, beside the champion's."""
        return bool(self.checks) and all(check.passed or not check.played for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def market(self) -> Verdict | None:
        """What the simulated market says as a whole; None where it was not asked."""
        found = {check.verdict for check in self.checks if check.in_market}
        verdicts: tuple[Verdict, ...] = ("failed", NOT_PLAYED, "passed")
        return next((verdict for verdict in verdicts if verdict in found), None)

    @property
    def lists_sentence(self) -> str:
        """What market and judge say of the lists, with reasons; empty where neither was asked."""
        said = (f"{one.name}: {one.verdict} ({one.reason})" for one in self.checks if one.of_lists)
        return "; ".join(said)

    @property
    def told_sentence(self) -> str:
        """What the version has not shown and need not, with the figures; empty where there is nothing to tell."""
        return "; ".join(f"{one.otherwise} ({one.name}: {one.reason})" for one in self.checks if one.otherwise)

    @property
    def beside(self) -> str:
        """What stands beside a decision, a line each: what it has not shown, and what is said of its lists."""
        return "\n".join(filter(None, (self.told_sentence, self.lists_sentence)))

    def with_lists(self, checks: Sequence[Check]) -> GateReport:
        """The report with these checks of the lists in place of earlier ones."""
        return replace(self, checks=(*(check for check in self.checks if not check.of_lists), *checks))

    def to_json(self) -> str:
        """The whole report, with `passed` beside it for readers that know no Python."""
        return json.dumps({**dataclasses.asdict(self), "passed": self.passed}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GateReport:
        """The inverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        del values["passed"]
        if "users" in values:  # the ledger is append-only: it keeps reports of when every unit was a user
            values |= {"scored": values["samples"], "unit": "user", "units": values.pop("users")}
        checks = tuple(Check(**check) for check in values.pop("checks"))
        return cls(**values, checks=checks)

    def to_markdown(self) -> str:
        """A heading that says the outcome, and a table of the checks."""
        outcome = "passed" if self.passed else f"failed ({len(self.failed)} of {len(self.checks)} checks)"
        against = f"champion version {self.champion}" if self.champion else "no other champion"
        failed = f" ({self.samples - self.scored} of them failed)" if self.scored < self.samples else ""
        data = f"{self.samples} samples{failed} of {self.units} {self.unit}s, {self.origin} data, split `{self.split}`"
        lines = [
            f"### Gate {outcome}: {self.model} version {self.version}",
            "",
            f"Against {against}; {data}.",
            "",
            *([f"**Not shown:** {self.told_sentence}.", ""] if self.told_sentence else []),
            "| check | value | threshold | passed | reason |",
            "|---|---:|---:|---|---|",
        ]
        for check in self.checks:
            passed = {"passed": "yes", "failed": "**no**"}.get(check.verdict, check.verdict)
            reason = check.reason.replace("|", "\\|")
            lines.append(f"| {check.name} | {number(check.value)} | {number(check.threshold)} | {passed} | {reason} |")
        return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Four decimals for shares, none for counts; nothing where there is no number."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < _COUNT_FROM else f"{value:.0f}"
