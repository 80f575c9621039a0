"""Registers what the last stage of a training run left, and holds the gate; a failed gate is a result, not an error."""

from __future__ import annotations

import argparse
import sys

from dags.pipelines import load_pipeline
from dags.steps._arguments import of_run
from dags.steps._folders import close_run, open_run
from infra import telemetry
from infra.errors import exit_with_reason
from infra.profile import load_profile
from infra.results import hand_on


def main() -> int:
    """Register, gate, and give the run's snapshots free."""
    arguments = of_run(argparse.ArgumentParser(prog="python -m dags.steps.register", description=__doc__)).parse_args()
    telemetry.apply()
    from registry.decisions import hold_gate
    from registry.packaging import register
    from registry.runs import log_stage

    profile = load_profile()
    pipeline = load_pipeline(arguments.system, profile.training_preset)
    run = open_run(profile, pipeline, arguments.run_id, arguments.partition)
    out = run.stage(pipeline.stages[-1].name)
    version = register(profile, pipeline.model, log_stage(profile, out, out), out, out)
    report = hold_gate(profile, pipeline.model, version)
    close_run(profile, run)
    sys.stdout.write(f"registered {pipeline.model} version {version}\n{report.to_markdown()}\n")
    hand_on({"model": pipeline.model, "version": version, "passed": report.passed})
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
