"""Holds the gate of the newest undecided version against today's champion, and hands the report to the approval."""

from __future__ import annotations

import argparse
import sys

from infra import telemetry
from infra.errors import exit_with_reason
from infra.profile import load_profile
from infra.results import hand_on


def main() -> int:
    """Hand on title, text and version of the question; no version where every one has been decided on."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.gate_report", description=__doc__)
    parser.add_argument("--model", required=True)
    model = parser.parse_args().model
    telemetry.apply()
    from registry.aliases import newest_undecided
    from registry.decisions import hold_gate
    from registry.promotions import Promotions
    from registry.store import connect

    profile = load_profile()
    version = newest_undecided(connect(profile), Promotions(profile), model)
    if version is None:
        text = f"Every version of {model} has been decided on."
        sys.stdout.write(f"{text}\n")
        hand_on({"title": model, "version": None, "text": text})
        return 0
    report = hold_gate(profile, model, version)
    text = report.to_markdown()
    sys.stdout.write(f"{text}\n")
    outcome = "gate passed" if report.passed else "GATE FAILED"
    hand_on({"title": f"{model} version {version} ({outcome})", "version": version, "text": text})
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
