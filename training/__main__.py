"""`python -m training <system>.<stage> --spec spec.json`: run one stage. Three commands stand beside stages:

  check --system NAME --preset NAME         would a preset run, and would it fit? Nothing is trained.
  bench --job NAME --samples DIR --out DIR  the stages of a job on a folder of samples
  ablation --runs DIR ... --out FILE.md     the table of several seeds

Each tells its options with --help.

Exit codes: 0 done; 65 bad data, or a wrong name or setting; 75 preempted with a checkpoint saved, or the
disk is full; 130 interrupted by a person; anything else is a bug, or a folder that cannot be used.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from training.core.errors import EXIT_BUG, DataError, exit_code_of
from training.core.stage import StageSpec, known_module, run_stage

_COMMANDS = {"bench": "training.jobs", "check": "training.check", "ablation": "training.ablation"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in _COMMANDS:
        return int(importlib.import_module(_COMMANDS[given[0]]).main(given[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", help="system and stage, such as generative_rec.sft")
    parser.add_argument("--spec", type=Path, required=True, help="the stage's spec.json")
    options = parser.parse_args(given)
    code = EXIT_BUG  # of what is raised here
    try:
        code = exit_code_of(lambda: _run(options.stage, StageSpec.load(options.spec)))
    finally:
        if code and options.spec.is_file():
            # `accelerate launch` turns every failure into 1: whoever launched this finds the real code beside the spec.
            # Where there is none, the stage was killed.
            options.spec.with_name("exit_code").write_text(str(code))
    return code


def _run(stage: str, spec: StageSpec) -> None:
    if stage != f"{spec.system}.{spec.stage}":
        raise DataError(f"the spec is for {spec.system}.{spec.stage}, not for {stage}", do="pass the right spec")
    name = known_module(spec.system, spec.code)
    # Imported only if it has to run: torch and transformers cost seconds, and a finished stage needs neither.
    ran = run_stage(spec, lambda spec: importlib.import_module(name).main(spec))
    sys.stdout.write(f"{stage}: {'done' if ran else 'already done'} -> {spec.out}\n")


if __name__ == "__main__":
    sys.exit(main())
