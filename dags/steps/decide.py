"""Carries out the answer of the approval: the version becomes champion, or its rejection is recorded.

An approval without a passed gate is a rejection, unless the answer overrides the gate and says why.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from infra import telemetry
from infra.errors import exit_with_reason
from infra.profile import load_profile

APPROVE, REJECT = "Approve", "Reject"


def main() -> int:
    """Decide; the ledger of promotions has one row more afterwards."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.decide", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True, help="empty: there is none to decide on")
    parser.add_argument("--answer", choices=(APPROVE, REJECT), required=True)
    parser.add_argument("--form", type=json.loads, default={}, help='JSON: {"reason": "...", "override": false}')
    parser.add_argument("--who", required=True)
    a = parser.parse_args()
    telemetry.apply()
    said = decide(a.model, a.version, a.answer, a.form, a.who) if a.version else "There is nothing to decide."
    sys.stdout.write(f"{said}\n")
    return 0


def decide(model: str, version: str, answer: str, form: dict[str, Any], who: str) -> str:
    """Promote or reject; returns what was decided, what the version has not shown, and what is said of its lists."""
    from registry import decisions
    from registry.promotions import GateNotPassed

    profile, reason = load_profile(), str(form.get("reason", "")).strip()
    if answer == APPROVE:
        try:
            override = bool(form.get("override"))
            made = decisions.promote(profile, model, version, who=who, override=override, reason=reason)
            said = f"{model}: version {made.to_version} is champion (before: {made.from_version or 'none'})"
            return f"{said}\n{made.report.beside if made.report else ''}".rstrip()
        except GateNotPassed as refusal:
            reason = f"approved, but refused: {refusal.why}"
    made = decisions.reject(profile, model, version, who=who, reason=reason or "rejected without a reason")
    return f"{model}: version {made.to_version} is rejected ({made.reason}); champion: {made.from_version or 'none'}"


if __name__ == "__main__":
    exit_with_reason(main)
