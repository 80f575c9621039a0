"""The declaration against the code: every preset is a config that its stage takes, every stage's inputs exist."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.config import parse_config
from common.pipelines import SYSTEMS, Preset, load_pipeline, read_pipeline, stage_module, systems
from training.core.stage import StageSpec
from training.jobs import load_job, stage_specs

ALL = {system: read_pipeline(system) for system in systems()}
STAGES = [
    (system, stage)
    for system, pipeline in ALL.items()
    for stage in (*pipeline.stages, *(j.stage for j in pipeline.jobs))
]
PRESETS = [(system, stage, preset) for system, stage in STAGES for preset in stage.config]
JOBS = sorted(path.stem for path in SYSTEMS.glob("*/jobs/*.yaml"))


def parsed(system: str, code: str, config: Mapping[str, Any]) -> Any:
    return parse_config(importlib.import_module(stage_module(system, code)).Config, config)


@pytest.mark.parametrize(
    ("system", "stage", "preset"), PRESETS, ids=[f"{system}-{stage.name}-{key}" for system, stage, key in PRESETS]
)
def test_every_preset_is_a_config_of_its_stage(system: str, stage: Any, preset: str) -> None:
    assert dataclasses.is_dataclass(parsed(system, stage.code, stage.config[preset]))


@pytest.mark.parametrize("preset", get_args(Preset))
def test_what_is_served_reads_as_much_history_as_was_trained(preset: Preset) -> None:
    pipeline = load_pipeline("generative_rec", preset)
    trained, served = (
        parsed("generative_rec", name, pipeline.stage(name).config[preset]) for name in ("sft", "evaluate")
    )
    assert served.serving.history == trained.history
    assert served.depth <= served.serving.beams


@pytest.mark.parametrize("preset", get_args(Preset))
def test_a_stage_reads_only_what_stages_of_its_preset_wrote_before_it(preset: Preset) -> None:
    everywhere = {stage.name for stage in ALL["generative_rec"].stages}
    before: set[str] = set()
    for stage in load_pipeline("generative_rec", preset).stages:
        config = parsed("generative_rec", stage.code, stage.config[preset])
        named = {getattr(config, name, None) for name in ("start", "codes")} & everywhere
        named |= {part for pair in getattr(config, "models", {}).items() for part in pair}
        assert named <= before & set(stage.reads.artifacts)
        before |= {stage.name} if stage.writes.artifact else set()


def specs_of(job: str, folder: Path) -> list[StageSpec]:
    """The stages of a job on tables without rows."""
    for table in sorted({table for pipeline in ALL.values() for one in pipeline.stages for table in one.reads.tables}):
        pq.write_table(pa.table({"item_id": pa.array([], pa.string())}), folder / f"{table}.parquet")
    return stage_specs(load_job(job), folder, folder / "out", seed=1)


@pytest.mark.parametrize("job", JOBS)
def test_every_bench_job_is_made_of_configs_that_its_stages_take(job: str, tmp_path: Path) -> None:
    specs = specs_of(job, tmp_path)
    written = {spec.stage for spec in specs}
    for spec in specs:
        config = parsed(spec.system, spec.module or spec.stage, spec.config)
        named = [getattr(config, name, None) for name in ("start", "codes")]
        named += [part for pair in getattr(config, "models", {}).items() for part in pair]
        assert {name for name in named if isinstance(name, str)} <= written


BESIDE = {"grpo_ranked": "grpo", "rank_easy": "sp"}
OF_THE_RANKER = {"ranker", "source", "level"}
OF_TWO_REWARDS = {"fusion", "judged_share"}


def aligned_with_the_ranker(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By row, the settings in which it differs from the row that it stands beside: without the ranker's own."""
    found = {}
    for row, other in BESIDE.items():
        if row in configs:
            own, plain = (dict(configs[name]) for name in (row, other))
            settings = (own.keys() | plain.keys()) - OF_THE_RANKER
            found[row] = {name: own.get(name) for name in settings if own.get(name) != plain.get(name)}
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_row_that_is_aligned_with_the_ranker_differs_from_its_neighbour_in_that_alone(
    job: str, tmp_path: Path
) -> None:
    specs = specs_of(job, tmp_path)
    found = aligned_with_the_ranker({spec.stage: spec.config for spec in specs})
    assert not any(found.values()), found
    if job in ("office_cpu", "office_cpu_leave_one_out", "beauty_cpu", "office_bench"):
        assert found.keys() == BESIDE.keys()


@pytest.mark.parametrize("job", [*JOBS, None])
def test_rows_of_two_rewards_differ_in_how_they_are_learnt_from_alone(job: str | None, tmp_path: Path) -> None:
    if job:
        configs = [spec.config for spec in specs_of(job, tmp_path) if (spec.module or spec.stage) == "a2po"]
    else:
        rows = [one.config for one in ALL["generative_rec"].stages if one.code == "a2po"]
        configs = [one["bench"] for one in rows if "bench" in one]
        assert len(rows) == 8
    shared = [{name: value for name, value in one.items() if name not in OF_TWO_REWARDS} for one in configs]
    assert all(one == shared[0] for one in shared)
    own = [tuple(one.get(name) for name in sorted(OF_TWO_REWARDS)) for one in configs]
    assert len(set(own)) == len(own)
    if job == "a2po_office":
        assert len(own) == 8


def test_the_check_of_neighbours_can_fail() -> None:
    plain = {"loop": {"epochs": 2}, "beams": 16}
    other = {**plain, "loop": {"epochs": 3}, "ranker": 1.0}
    assert aligned_with_the_ranker({"grpo": plain, "grpo_ranked": other}) == {"grpo_ranked": {"loop": {"epochs": 3}}}
