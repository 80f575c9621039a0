"""The pipeline files against the code: every preset is a config that its stage takes, every stage's inputs exist."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

import training.generative_rec
from training.core.config import parse_config
from training.jobs import load_job, stage_specs

FOLDER = Path(training.generative_rec.__file__).parent
PIPELINES = {name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["stages"] for name in ("pipeline", "align")}
STAGES = [(pipeline, stage) for pipeline, stages in PIPELINES.items() for stage in stages]
PRESETS = [(pipeline, stage, preset) for pipeline, stage in STAGES for preset in stage["config"]]
JOBS = sorted(path.stem for path in (FOLDER / "jobs").glob("*.yaml"))


def parsed(stage: dict[str, Any], config: dict[str, Any]) -> Any:
    module = importlib.import_module(f"training.generative_rec.{stage.get('module') or stage['name']}")
    return parse_config(module.Config, config)


@pytest.mark.parametrize(("pipeline", "stage", "preset"), PRESETS, ids=[f"{p}-{s['name']}-{k}" for p, s, k in PRESETS])
def test_every_preset_is_a_config_of_its_stage(pipeline: str, stage: dict[str, Any], preset: str) -> None:
    assert dataclasses.is_dataclass(parsed(stage, stage["config"][preset]))


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("preset", ["demo", "bench", "production"])
def test_what_is_served_reads_as_much_history_as_was_trained(pipeline: str, preset: str) -> None:
    stages = {stage["name"]: stage for stage in PIPELINES[pipeline]}
    trained = parsed(stages["sft"], stages["sft"]["config"][preset])
    served = parsed(stages["evaluate"], stages["evaluate"]["config"][preset])
    assert served.serving.history == trained.history
    assert served.depth <= served.serving.beams


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("preset", ["demo", "bench", "production"])
def test_a_stage_reads_only_what_stages_of_its_preset_wrote_before_it(pipeline: str, preset: str) -> None:
    everywhere = {stage["name"] for stage in PIPELINES[pipeline]}
    before: set[str] = set()
    for stage in PIPELINES[pipeline]:
        if preset in stage["config"]:
            config = parsed(stage, stage["config"][preset])
            named = {getattr(config, name, None) for name in ("start", "codes")} & everywhere
            named |= {part for pair in getattr(config, "models", {}).items() for part in pair}
            assert named <= before & set(stage["reads"]["artifacts"])
            before |= {stage["name"]} if stage["writes"]["artifact"] else set()
        assert set(stage["reads"]["artifacts"]) <= everywhere


@pytest.mark.parametrize("stage", [stage for _, stage in STAGES], ids=[f"{p}-{s['name']}" for p, s in STAGES])
def test_every_stage_says_all_that_the_builder_needs(stage: dict[str, Any]) -> None:
    assert set(stage) - {"module"} == {"name", "reads", "writes", "gpu", "time_limit_minutes", "retry", "config"}
    assert stage["gpu"]["class"] in {"none", "small", "large"}
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
