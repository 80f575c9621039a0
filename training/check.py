"""`python -m training check --system NAME --preset NAME`: would a preset run, and would it fit? Nothing is trained.

Every stage's config is read as the stage reads it, every stage that it names must come before, and the language models
are built without weights to see whether the longest samples and the memory fit (`core.footprint`). Exit code 65 where
something does not.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.pipelines import SYSTEMS, Preset, Stage, load_pipeline
from training.core.embedded import INSTALL, is_missing
from training.core.errors import DataError, exit_code_of
from training.core.footprint import Load, faults, footprint
from training.core.stage import known_module


def check(
    system: str, preset: Preset, gpus: int | None, gpu_gib: float, backbone: str | None, root: Path = SYSTEMS
) -> str:
    """The report, a line for each stage; DataError with all that is wrong.

    `gpus`: how many each stage that wants any gets, in place of what it declares. `backbone`: a folder with the
    `config.json` of a Hugging Face model, or `embedded:smollm2`, in place of the path that the preset names.
    """
    stages = load_pipeline(system, preset, root).stages
    configs: dict[str, Any] = {}
    for stage in stages:
        module = importlib.import_module(known_module(system, stage.code))
        configs[stage.name] = parse_config(module.Config, stage.config[preset], f"{system}.{stage.name}")
    if importlib.util.find_spec(f"training.{system}.sizes") is None:
        unknown = f"memory is not estimated: training/{system}/sizes.py, which would tell it, is not there"
        return "\n".join([*(_line(name, None, 0) for name in configs), unknown])
    sizes = importlib.import_module(f"training.{system}.sizes")
    _refuse_unread(stages, {name: sizes.mentioned(config) for name, config in configs.items()})
    found: Mapping[str, Load] = sizes.loads(configs, backbone)
    counts = {stage.name: gpus if gpus and stage.gpu.count else stage.gpu.count for stage in stages}
    wrong = [
        f"{name}: {fault}"
        for name, load in found.items()
        for fault in faults(load, footprint(load, max(1, counts[name])), gpu_gib)
    ]
    if wrong:
        raise DataError(
            f"the preset {preset!r} does not fit",
            where=f"GPUs of {gpu_gib:g} GiB",
            why="\n         ".join(wrong),
            do="change pipeline.yaml as said, or check it for other GPUs (--gpus, --gpu-gib)",
        )
    return "\n".join(_line(name, found.get(name), counts[name]) for name in configs)


def _line(name: str, load: Load | None, gpus: int) -> str:
    if load is None:
        return f"{name:<16} config"
    found, path = footprint(load, max(1, gpus)), load.backbone.path
    to_install = f"; its weights are not here, run: {INSTALL}" if path and is_missing(path) else ""
    return (
        f"{name:<16} {found.weights / 1e6:,.0f} M weights, {found.trainable / 1e6:,.0f} M learn; longest sample "
        f"{load.longest} of {load.row_tokens} tokens; {found.peak:.1f} GiB on each of {gpus} GPUs{to_install}"
    )


def _refuse_unread(stages: Sequence[Stage], mentioned: Mapping[str, set[str]]) -> None:
    done: set[str] = set()
    for stage in stages:
        missing = mentioned[stage.name] - (done & set(stage.reads.artifacts))
        if missing:
            raise DataError(
                f"{stage.name} names {', '.join(sorted(missing))}",
                why="it does not read it, or no earlier stage of the preset writes it",
                do="name it in the stage's `reads`, and let it run before under this preset",
            )
        done.add(stage.name)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs; write 1 or more, or leave it out")
    return int(text)


def _gib(text: str) -> float:
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 < gib < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not the memory of a GPU; write it in GiB, such as 24")
    return gib


def main(arguments: Sequence[str]) -> int:
    """Print the report; 65 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m training check", description=__doc__)
    parser.add_argument("--system", required=True)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--gpus", type=_count, help="GPUs of each stage; default: as declared")
    parser.add_argument("--gpu-gib", type=_gib, default=80.0, help="memory of one GPU")
    parser.add_argument("--backbone", help="a Hugging Face folder, or embedded:smollm2, for the preset's own path")
    options = parser.parse_args(arguments)
    return exit_code_of(lambda: _print_report(options))


def _print_report(options: argparse.Namespace) -> None:
    report = check(options.system, options.preset, options.gpus, options.gpu_gib, options.backbone)
    sys.stdout.write(f"{report}\n")
