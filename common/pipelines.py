"""What a system is: `training/<system>/pipeline.yaml`, typed. DAGs, steps and training read it here and nowhere else.

A system has stages, which a training run goes through; models, each the folder that one stage leaves, registered under
a name; and jobs, stages that run outside of training runs with what is registered. A preset has the stages and jobs
that name it: the others are no part of its DAGs, and nobody reads what they would have written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.config import parse_config, read_yaml
from common.errors import DataError
from common.faults import faults_of

SYSTEMS = Path(__file__).resolve().parents[1] / "training"
Preset = Literal["demo", "bench", "production"]
RetryClass = Literal["transient", "preempted", "data", "bug"]
T = TypeVar("T")
_HELP = "Correct it; common/README.md has every key."
_INTERVAL = re.compile(r"([1-9]\d*)(m|h)")


@dataclass(frozen=True)
class Query:
    """DuckDB SQL in a `file` of the system's folder over `tables`; the stage reads its rows as the table of its stem.

    `days`: it sees the partitions of so many days up to the day of the run; None: all up to it. `$day` is that day.
    `features`: each row has a `user_id` of its own, and is given what the models that the stage reads take of the
    feature store, as of the end of the day. `optional`: those of the tables that a shop may never have filled, or not
    for the day; what is not there has no rows.
    """

    file: str
    tables: tuple[str, ...]
    days: int | None = None
    features: bool = False
    optional: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """What the stage knows the rows as."""
        return Path(self.file).stem


@dataclass(frozen=True)
class Reads:
    """Lake tables, folders of earlier stages, registered models by name (each version with a role), and a query."""

    tables: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    query: Query | None = None

    @property
    def lake(self) -> tuple[str, ...]:
        """Every table of the lake that is read, by the stage or by its query."""
        return (*self.tables, *(self.query.tables if self.query else ()))


@dataclass(frozen=True)
class Writes:
    """Lake tables that the stage's result is published to, and whether later stages read its folder."""

    tables: tuple[str, ...] = ()
    artifact: bool = False


@dataclass(frozen=True)
class Gpu:
    """What a stage wants where there are GPUs."""

    kind: Literal["none", "small", "large"] = "none"
    count: int = 0


def promotion(model: str) -> str:
    """The DAG that promotes this model."""
    return f"promote_{model}"


def stage_module(system: str, code: str) -> str:
    """The import name of a stage's module: it has the stage's `Config` and `main(spec)`."""
    return f"training.{system}.stages.{code}"


@dataclass(frozen=True)
class Stage:
    """One stage of a system. `retry` is a ceiling: the exit code decides whether a retry happens at all.

    `module` is the code that it runs, where several stages run the same with other configs; without one, its name.
    `gpu_for`: what a preset wants in place of `gpu`.
    """

    name: str
    time_limit_minutes: int
    retry: RetryClass
    config: Mapping[Preset, Mapping[str, Any]]
    module: str | None = None
    reads: Reads = Reads()
    writes: Writes = Writes()
    gpu: Gpu = Gpu()
    gpu_for: Mapping[Preset, Gpu] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The module in the system's folder `stages` that it runs."""
        return self.module or self.name

    def under(self, preset: Preset, kept: Collection[str]) -> Stage:
        """With the one preset's config and GPUs, so that a change of another is not a change of this run."""
        reads = replace(self.reads, artifacts=tuple(name for name in self.reads.artifacts if name in kept))
        config: dict[Preset, Mapping[str, Any]] = {preset: self.config.get(preset, {})}
        return replace(self, reads=reads, config=config, gpu=self.gpu_for.get(preset, self.gpu), gpu_for={})


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """What sets a DAG off, how long a run may take, and its triage notes (Markdown; the heading says what it does).

    `after`: any of these assets (see `common.assets`); `every`: a time, such as `15m`.
    """

    notes: str
    deadline_minutes: int
    after: tuple[str, ...] = ()
    every: str = ""

    @property
    def minutes(self) -> int:
        """The time of `every`; 0 where assets are waited for."""
        match = _INTERVAL.fullmatch(self.every)
        return int(match[1]) * (60 if match[2] == "h" else 1) if match else 0


@dataclass(frozen=True, kw_only=True)
class Training(Trigger):
    """The training runs of a system. `dag`: the name of their DAG, where it is another than `align_<system>`."""

    dag: str = ""


@dataclass(frozen=True, kw_only=True)
class Job(Trigger):
    """A stage outside of training runs: its DAG has the job's name.

    `builds`: tables that Spark brings up to date before it, where one of the models that the stage reads may be used.
    `online`: views of the feature store that are told afterwards of what is new in their tables.
    """

    name: str
    stage: Stage
    builds: tuple[str, ...] = ()
    online: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """All that is declared of one system. `models`: registered name to the stage whose folder is registered."""

    system: str
    training: Training
    stages: tuple[Stage, ...]
    models: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[Job, ...] = ()
    seed: int = 17

    @property
    def dag(self) -> str:
        """The DAG of its training runs."""
        return self.training.dag or f"align_{self.system}"

    @property
    def dags(self) -> list[str]:
        """Every DAG that is made of it: of its training runs, its jobs, and the promotion of its models."""
        return [self.dag, *(job.name for job in self.jobs), *map(promotion, self.models)]

    @property
    def presets(self) -> set[Preset]:
        """Those that a stage of its training runs names."""
        return {preset for stage in self.stages for preset in stage.config}

    def under(self, preset: Preset, also: Collection[str] = ()) -> Pipeline:
        """As the preset has it, with the stages `also`; DataError where no stage names it."""
        kept = {stage.name for stage in self.stages if preset in stage.config or stage.name in also}
        if not kept:
            do = f"Choose {' or '.join(sorted(self.presets))}."
            raise DataError(f"{self.system} has no stage under the preset {preset!r}.", do=do)
        return replace(
            self,
            stages=tuple(stage.under(preset, kept) for stage in self.stages if stage.name in kept),
            models={model: stage for model, stage in self.models.items() if stage in kept},
            jobs=tuple(
                replace(job, stage=job.stage.under(preset, kept)) for job in self.jobs if preset in job.stage.config
            ),
        )

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises DataError if there is none."""
        return _named(name, {stage.name: stage for stage in self.stages}, f"{self.system} has no stage")

    def job(self, name: str) -> Job:
        """The job of that name. Raises DataError if there is none."""
        return _named(name, {job.name: job for job in self.jobs}, f"{self.system} has no job")

    def maker(self, model: str) -> str:
        """The stage whose folder is registered as this model. Raises DataError if there is none."""
        return _named(model, self.models, f"{self.system} makes no model")

    def tables(self) -> set[str]:
        """Every lake table that comes from outside the stages: what a training run pins when it starts."""
        written = {table for stage in self.stages for table in stage.writes.tables}
        return {table for stage in self.stages for table in stage.reads.lake} - written

    def optional_tables(self) -> set[str]:
        """Those of `tables` that may never have been filled: each that reads one says so."""
        reads = [stage.reads for stage in self.stages]
        said = {table for one in reads if one.query for table in one.query.optional}
        needed = {table for one in reads for table in one.tables}
        needed |= {table for one in reads if one.query for table in set(one.query.tables) - set(one.query.optional)}
        return said - needed

    def foreign_models(self) -> set[str]:
        """Every registered model that a training run reads: it pins their versions as it does tables."""
        return {model for stage in self.stages for model in stage.reads.models}

    def before(self, stage: Stage) -> set[str]:
        """The stages whose folders or tables it reads, without those that are before one of these."""
        writers = {table: one.name for one in self.stages for table in one.writes.tables}
        read = {name for name in stage.reads.artifacts if name in {one.name for one in self.stages}}
        read |= {writers[table] for table in stage.reads.lake if table in writers}
        return read - {earlier for name in read for earlier in self._all_before(name)}

    def _all_before(self, name: str) -> Iterator[str]:
        for one in self.before(self.stage(name)):
            yield one
            yield from self._all_before(one)

    def made_by(self) -> Mapping[str, Any]:
        """What a change of makes other training runs: not when they start, and nothing of models and jobs."""
        return {"system": self.system, "seed": self.seed, "stages": [asdict(stage) for stage in self.stages]}


def systems(root: Path = SYSTEMS) -> list[str]:
    """Every system that there is."""
    return sorted(folder.name for folder in root.iterdir() if os.path.lexists(folder / "pipeline.yaml"))


def read_pipeline(system: str, root: Path = SYSTEMS) -> Pipeline:
    """Read `<root>/<system>/pipeline.yaml`; DataError that names the first fault, or the systems that there are."""
    path = root / system / "pipeline.yaml"
    if not os.path.lexists(path):
        known = ", ".join(systems(root)) or "(none)"
        raise DataError(f"There is no system {system!r}.", where=str(path), do=f"Choose one of: {known}.")
    try:
        values = read_yaml(path)
    except OSError as error:
        do = "Put it where it is looked for, or take the folder away."
        raise DataError("The declaration cannot be read.", where=str(path), why=str(error.strerror), do=do) from error
    if not isinstance(values, dict) or "system" in values:
        why = "its folder names the system" if isinstance(values, dict) else "it holds no `key: value` lines"
        raise DataError("The declaration is none of a system.", where=str(path), why=why, do=_HELP)
    declared = parse_config(Pipeline, {"system": system, **values}, str(path))
    if found := list(faults_of(declared, path.parent)):
        raise DataError("The declaration does not fit together.", where=str(path), why="; ".join(found), do=_HELP)
    return declared


def read_pipelines(
    chosen: Sequence[str], root: Path = SYSTEMS, taken: Mapping[str, str] | None = None
) -> tuple[list[Pipeline], list[DataError]]:
    """Read these systems; returns those that can be used, and why each of the others cannot (see `read_pipeline`).

    Two DAGs of one name would be one to Airflow: of the `chosen`, the first that asks for a name keeps it, and the
    others are refused; so is whoever asks for one that is `taken` (name to where).
    """
    found, faults, owners = list[Pipeline](), list[DataError](), dict(taken or {})
    for system in chosen:
        try:
            declared = read_pipeline(system, root)
            for dag in declared.dags:
                if dag in owners:
                    raise DataError(
                        f"Two places make a DAG {dag!r}.",
                        where=f"{owners[dag]} and {root / system}",
                        why=f"{owners[dag]} keeps it: a file of dags/, else who has run here, else the first.",
                        do=f"Rename the job or the model in {root / system}.",
                    )
        except DataError as fault:
            faults.append(fault)
        else:
            owners |= dict.fromkeys(declared.dags, str(root / system))
            found.append(declared)
    return found, faults


def load_pipeline(system: str, preset: Preset, root: Path = SYSTEMS) -> Pipeline:
    """The system as the preset has it. Raises DataError as `read_pipeline` and `Pipeline.under` do."""
    return read_pipeline(system, root).under(preset)


def owner(model: str, chosen: Sequence[str], root: Path = SYSTEMS) -> str:
    """Which of these systems makes the registered model of this name (see `read_pipelines`).

    Raises:
        DataError: none does, or perhaps one whose declaration cannot be used.
    """
    found, faults = read_pipelines(chosen, root)
    makers = {name: declared.system for declared in found for name in declared.models}
    if model not in makers and faults:
        raise faults[0]
    return _named(model, makers, "There is no model")


def _named(name: str, known: Mapping[str, T], what: str) -> T:
    if name not in known:
        raise DataError(f"{what} {name!r}.", do=f"Choose one of: {', '.join(known) or '(none)'}.")
    return known[name]
