"""Registers what a stage of a training run left as a model, and holds its gate; a failed gate is a result, no error.

Where the stages that make the model were left out there is no model to register, and that is a result too. The run's
snapshots are given free with the last of its models.
"""

from __future__ import annotations

import argparse
import json
import sys

from common.pipelines import load_pipeline
from dags.steps._arguments import of_run
from dags.steps._folders import REGISTERED, write_json
from dags.steps._runs import close_run, open_run
from infra import telemetry
from infra.errors import exit_with_reason
from infra.profile import load_profile
from infra.results import hand_on


def main() -> int:
    """Register and gate one model of the system."""
    parser = of_run(argparse.ArgumentParser(prog="python -m dags.steps.register", description=__doc__))
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    telemetry.apply()
    from registry.decisions import hold_gate
    from registry.packaging import register
    from registry.runs import log_stage

    profile, model = load_profile(), arguments.model
    pipeline = load_pipeline(arguments.system, profile.training_preset)
    run = open_run(profile, pipeline, arguments.run_id, arguments.partition)
    out = run.stage(pipeline.maker(model))
    run_id = log_stage(profile, out, out)
    made: dict[str, str | bool | None] = {"model": model, "version": None, "passed": None}
    result = json.loads((out / "result.json").read_text())
    if result.get("left_out") or result["metrics"].get("models") == 0:
        sys.stdout.write(f"there is no {model} to register: stages were left out, as the report says\n")
    else:
        version = register(profile, model, run_id, out, out)
        report = hold_gate(profile, model, version)
        sys.stdout.write(f"registered {model} version {version}\n{report.to_markdown()}\n")
        made |= {"version": version, "passed": report.passed}
    write_json(run.folder / REGISTERED / f"{model}.json", made)
    if all((run.folder / REGISTERED / f"{other}.json").is_file() for other in pipeline.models):
        close_run(profile, run)
    hand_on(made)
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
