"""What a gate found: one line per check, as JSON for the ledger and as a short page for the person who approves."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

_COUNT_FROM = 100


@dataclass(frozen=True)
class Check:
    """One check. `value` and `threshold` are null where the check is not about a number."""

    name: str
    passed: bool
    reason: str
    value: float | None = None
    threshold: float | None = None


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
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

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
            "| check | value | threshold | passed | reason |",
            "|---|---:|---:|---|---|",
        ]
        for check in self.checks:
            passed = "yes" if check.passed else "**no**"
            reason = check.reason.replace("|", "\\|")
            lines.append(f"| {check.name} | {number(check.value)} | {number(check.threshold)} | {passed} | {reason} |")
        return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Four decimals for shares, none for counts; nothing where there is no number."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < _COUNT_FROM else f"{value:.0f}"
