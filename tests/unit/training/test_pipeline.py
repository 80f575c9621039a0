"""The pipeline file against the code: every preset is a config that its stage takes, every stage's inputs exist."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

import training.generative_rec
from common.config import parse_config
from training.jobs import load_job, stage_specs

FOLDER = Path(training.generative_rec.__file__).parent
DECLARED = yaml.safe_load((FOLDER / "pipeline.yaml").read_text())
STAGES = DECLARED["stages"]
PRESETS = [(stage, preset) for stage in (*STAGES, DECLARED["nightly"]) for preset in stage["config"]]
JOBS = sorted(path.stem for path in (FOLDER / "jobs").glob("*.yaml"))


def parsed(stage: dict[str, Any], config: dict[str, Any]) -> Any:
    module = importlib.import_module(f"training.generative_rec.{stage.get('module') or stage['name']}")
    return parse_config(module.Config, config)


@pytest.mark.parametrize(("stage", "preset"), PRESETS, ids=[f"{stage['name']}-{key}" for stage, key in PRESETS])
def test_every_preset_is_a_config_of_its_stage(stage: dict[str, Any], preset: str) -> None:
    assert dataclasses.is_dataclass(parsed(stage, stage["config"][preset]))


@pytest.mark.parametrize("preset", ["demo", "bench", "production"])
def test_what_is_served_reads_as_much_history_as_was_trained(preset: str) -> None:
    stages = {stage["name"]: stage for stage in STAGES}
    trained = parsed(stages["sft"], stages["sft"]["config"][preset])
    served = parsed(stages["evaluate"], stages["evaluate"]["config"][preset])
    assert served.serving.history == trained.history
    assert served.depth <= served.serving.beams


@pytest.mark.parametrize("preset", ["demo", "bench", "production"])
def test_a_stage_reads_only_what_stages_of_its_preset_wrote_before_it(preset: str) -> None:
    everywhere = {stage["name"] for stage in STAGES}
    before: set[str] = set()
    for stage in STAGES:
        if preset in stage["config"]:
            config = parsed(stage, stage["config"][preset])
            named = {getattr(config, name, None) for name in ("start", "codes")} & everywhere
            named |= {part for pair in getattr(config, "models", {}).items() for part in pair}
            assert named <= before & set(stage["reads"]["artifacts"])
            before |= {stage["name"]} if stage["writes"]["artifact"] else set()
        assert set(stage["reads"]["artifacts"]) <= everywhere


@pytest.mark.parametrize("stage", STAGES, ids=[stage["name"] for stage in STAGES])
def test_every_stage_says_all_that_the_builder_needs(stage: dict[str, Any]) -> None:
    needed = {"name", "reads", "writes", "gpu", "time_limit_minutes", "retry", "config"}
    assert set(stage) - {"module", "gpu_for"} == needed
    assert {gpu["class"] for gpu in (stage["gpu"], *stage.get("gpu_for", {}).values())} <= {"none", "small", "large"}
    assert stage["retry"] in {"transient", "preempted", "data", "bug"}


@pytest.mark.parametrize("job", JOBS)
def test_every_bench_job_is_made_of_configs_that_its_stages_take(job: str, tmp_path: Path) -> None:
    for table in ("items", "next_item_training_set"):
        (tmp_path / f"{table}.parquet").touch()
    specs = stage_specs(load_job(job), tmp_path, tmp_path / "out", seed=1)
    written = {spec.stage for spec in specs}
    for spec in specs:
        config = parsed({"name": spec.stage, "module": spec.module}, dict(spec.config))
        named = [getattr(config, name, None) for name in ("start", "codes")]
        named += [part for pair in getattr(config, "models", {}).items() for part in pair]
        assert {name for name in named if isinstance(name, str)} <= written
