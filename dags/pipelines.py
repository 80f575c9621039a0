"""Stage declarations: `training/<system>/pipeline.yaml`, typed. The builder makes tasks of them, the steps run them.

A preset has the stages that name it: the others are no part of its DAG, and nobody reads what they would have written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import PlumblineError
from infra.profile import CHECKOUT

_ROOT = CHECKOUT / "training"
Preset = Literal["demo", "bench", "production"]
RetryClass = Literal["transient", "preempted", "data", "bug"]


class PipelineError(PlumblineError):
    """A pipeline.yaml is missing, has an unknown key, lacks a preset, or reads what no earlier stage writes."""


class _Declaration(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reads(_Declaration):
    """Lake tables, and earlier stages whose folders the stage reads."""

    tables: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


class Writes(_Declaration):
    """Lake tables that the stage's result is published to, and whether later stages read its folder."""

    tables: tuple[str, ...] = ()
    artifact: bool = False


class Gpu(_Declaration):
    """What the stage wants where there are GPUs."""

    kind: Literal["none", "small", "large"] = Field("none", alias="class")
    count: int = 0


class Stage(_Declaration):
    """One stage of a system. `retry` is a ceiling: the exit code decides whether a retry happens at all.

    `module` is the code that it runs, where several stages run the same with other configs; without one, its name.
    """

    name: str
    module: str | None = None
    reads: Reads
    writes: Writes
    gpu: Gpu = Gpu.model_validate({})
    # What a preset wants in place of `gpu`; a pipeline under a preset has it there.
    gpu_for: dict[Preset, Gpu] = Field(default_factory=dict, exclude=True)
    time_limit_minutes: int
    retry: RetryClass
    config: dict[Preset, dict[str, Any]]


class Pipeline(_Declaration):
    """The stages of one system in their order, the DAG that runs them and the model that they make."""

    system: str
    dag: str
    model: str
    seed: int = 17
    stages: tuple[Stage, ...]
    # No part of a training run, and so not of what names one: it decodes with whatever is registered.
    nightly: Stage | None = Field(None, exclude=True)

    @model_validator(mode="after")
    def _artifacts_come_from_earlier_stages(self) -> Self:
        seen: set[str] = set()
        for stage in self.stages:
            if unknown := set(stage.reads.artifacts) - seen:
                raise ValueError(f"stage {stage.name} reads {sorted(unknown)}, which no earlier stage writes")
            seen |= {stage.name} if stage.writes.artifact else set()
        return self

    def under(self, preset: Preset) -> Pipeline:
        """The pipeline as the preset has it; PipelineError where no stage names it."""
        kept = {stage.name for stage in self.stages if preset in stage.config}
        if not kept:
            raise PipelineError(f"{self.system} has no stage under the preset {preset!r}.", do="Choose another preset.")
        stages = tuple(_under(stage, preset, kept) for stage in self.stages if stage.name in kept)
        nightly = self.nightly and _wanted(self.nightly, preset)
        return self.model_copy(update={"stages": stages, "nightly": nightly})

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises PipelineError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise PipelineError(f"{self.system} has no stage {name!r}.", do=f"Choose one of: {known}.")

    def nightly_stage(self) -> Stage:
        """The stage that the nightly DAG runs. Raises PipelineError if there is none."""
        if self.nightly is None:
            raise PipelineError(f"{self.system} has no nightly stage.", do="Declare one as `nightly` in pipeline.yaml.")
        return self.nightly

    def tables(self) -> set[str]:
        """Every lake table that comes from outside the pipeline: what a run pins when it starts."""
        written = {table for stage in self.stages for table in stage.writes.tables}
        return {table for stage in self.stages for table in stage.reads.tables} - written


def _under(stage: Stage, preset: Preset, kept: set[str]) -> Stage:
    """With the one preset's config, so that a change of another is not a change of this run."""
    artifacts = tuple(name for name in stage.reads.artifacts if name in kept)
    reads = stage.reads.model_copy(update={"artifacts": artifacts})
    return _wanted(stage, preset).model_copy(update={"reads": reads, "config": {preset: stage.config[preset]}})


def _wanted(stage: Stage, preset: Preset) -> Stage:
    return stage.model_copy(update={"gpu": stage.gpu_for.get(preset, stage.gpu), "gpu_for": {}})


def systems(root: Path = _ROOT) -> list[str]:
    """Every system that declares stages."""
    return sorted(path.parent.name for path in root.glob("*/pipeline.yaml"))


def load_pipeline(system: str, preset: Preset, root: Path = _ROOT) -> Pipeline:
    """Read `<root>/<system>/pipeline.yaml` as the preset has it. Raises PipelineError with the first fault."""
    path = root / system / "pipeline.yaml"
    if not path.is_file():
        raise PipelineError(f"There is no pipeline {system!r}.", where=str(path))
    try:
        declared = Pipeline(system=system, **yaml.safe_load(path.read_text()))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise PipelineError("The pipeline does not fit.", where=str(path), why=f"{place}: {fault['msg']}") from error
    return declared.under(preset)
