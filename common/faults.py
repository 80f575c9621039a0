"""What is wrong with a declaration that has all its keys, in sentences. `common.pipelines` refuses one with a fault."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common import assets
from common.errors import DataError
from common.truth import forbidden

if TYPE_CHECKING:
    from common.pipelines import Pipeline, Stage, Trigger

# What is at once a DAG, a task, an asset, a Python module, a folder and a registered model.
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_MOST = 1_000_000  # minutes: two years
_OF_A_MODEL = (assets.challenger, assets.decision)


def faults_of(pipeline: Pipeline, folder: Path) -> Iterator[str]:
    """Every fault that the declaration of the system in `folder` shows by itself."""
    yield from _of_names(pipeline)
    yield from _of_numbers(pipeline)
    yield from _of_gpus(pipeline)
    yield from _of_reads(pipeline)
    yield from _of_models(pipeline)
    yield from _of_triggers(pipeline)
    yield from _of_jobs(pipeline)
    yield from _of_files(pipeline, folder)


def unknown_assets(pipeline: Pipeline, models: Collection[str] | None, tables: Collection[str]) -> Iterator[str]:
    """Everything that a system waits for, reads or writes in vain: it is none of the models of all systems (None: they
    are not known) and the tables of the lake."""
    known = {*map(assets.table, tables), *(of(model) for model in models or () for of in _OF_A_MODEL)}
    for who, stage in _stages(pipeline):
        for table in sorted({*stage.reads.lake, *stage.writes.tables} - set(tables)):
            yield f"{who} names the table {table!r}, which has no contract"
        for model in sorted(set(stage.reads.models) - set(models if models is not None else stage.reads.models)):
            yield f"{who} reads the model {model!r}, which no system makes"
    for who, trigger in _triggers(pipeline):
        for awaited in trigger.after:
            if assets.parse(awaited) not in known and (models is not None or "(" not in awaited):
                yield f"{who} waits for {awaited}, which is no table, nor of a model that a system makes"


def _triggers(pipeline: Pipeline) -> list[tuple[str, Trigger]]:
    return [("training", pipeline.training), *((f"job {job.name}", job) for job in pipeline.jobs)]


def _stages(pipeline: Pipeline) -> list[tuple[str, Stage]]:
    own = [(f"stage {stage.name}", stage) for stage in pipeline.stages]
    return [*own, *((f"job {job.name}", job.stage) for job in pipeline.jobs)]


def _of_names(pipeline: Pipeline) -> Iterator[str]:
    stages = [stage for _, stage in _stages(pipeline)]
    names = {
        "system": [pipeline.system],
        "stage": [stage.name for stage in stages],
        "module": [stage.module for stage in stages if stage.module],
        "model": pipeline.models,
        "job": [job.name for job in pipeline.jobs],
        "DAG": [pipeline.dag],
    }
    for kind, given in names.items():
        for name in given:
            if not _NAME.fullmatch(name):
                yield f"the {kind} {name!r} is no name: up to 100 of A to Z, a to z, 0 to 9 and _ are allowed"
    registrations = {"register", *(f"register_{model}" for model in pipeline.models)}
    for name in sorted(registrations & {stage.name for stage in pipeline.stages}):
        yield f"a stage is called {name}, as the task that registers a model is"


def _of_numbers(pipeline: Pipeline) -> Iterator[str]:
    numbers = [(who, "deadline_minutes", trigger.deadline_minutes) for who, trigger in _triggers(pipeline)]
    for who, stage in _stages(pipeline):
        numbers.append((who, "time_limit_minutes", stage.time_limit_minutes))
        if stage.reads.query and stage.reads.query.days is not None:
            numbers.append((who, "query.days", stage.reads.query.days))
    numbers += [(who, "minutes in `every`", trigger.minutes) for who, trigger in _triggers(pipeline) if trigger.minutes]
    for who, key, number in numbers:
        if not 1 <= number <= _MOST:
            yield f"{who} has {number} {key}, where 1 to {_MOST} are allowed"


def _of_gpus(pipeline: Pipeline) -> Iterator[str]:
    for who, stage in _stages(pipeline):
        wanted = {"gpu": stage.gpu, **{f"gpu_for.{preset}": gpu for preset, gpu in stage.gpu_for.items()}}
        for key, gpu in wanted.items():
            fits = gpu.count == 0 if gpu.kind == "none" else gpu.count > 0
            if not fits:
                allowed = "0 are" if gpu.kind == "none" else "1 or more are"
                yield f"{who} has {gpu.count} GPUs of the kind {gpu.kind} ({key}), where {allowed} allowed"


def _of_reads(pipeline: Pipeline) -> Iterator[str]:
    """Of the order of stages: each reads what one before it has written."""
    if not pipeline.presets:
        yield "no stage names a preset in its `config`, so none would ever run"
    for who, stage in _stages(pipeline):
        if truth := forbidden(stage.reads.lake, stage.name):
            yield f"{who} reads {', '.join(truth)}: the market's truth, which only what measures may know"
        if stage.reads.query and stage.reads.query.features and not stage.reads.models:
            yield f"{who} asks for features of the store, and reads no model that could take any"
    seen: dict[str, Stage] = {}
    written = {table for stage in pipeline.stages for table in stage.writes.tables}
    for stage in pipeline.stages:
        if stage.name in seen:
            yield f"two stages are called {stage.name}"
        written_before = {table for one in seen.values() for table in one.writes.tables}
        if ahead := sorted((written - written_before) & set(stage.reads.lake)):
            yield f"stage {stage.name} reads {', '.join(ahead)}, which it or a later stage writes"
        if unknown := sorted(set(stage.reads.artifacts) - {one.name for one in seen.values() if one.writes.artifact}):
            yield f"stage {stage.name} reads {', '.join(unknown)}, which no earlier stage writes"
        seen[stage.name] = stage


def _of_models(pipeline: Pipeline) -> Iterator[str]:
    makers = {stage.name for stage in pipeline.stages if stage.writes.artifact}
    for model, maker in pipeline.models.items():
        if maker not in makers:
            yield f"model {model} is made by {maker}, which is no stage that writes an artifact"


def _of_triggers(pipeline: Pipeline) -> Iterator[str]:
    for who, trigger in _triggers(pipeline):
        if not trigger.notes.strip():
            yield f"{who} has no notes, which say in Airflow what it does and what to check when it is red"
        if bool(trigger.after) == bool(trigger.every):
            yield f"{who} needs either `after: [asset, ...]` or `every: 15m`"
        if trigger.every and not trigger.minutes:
            yield f"{who} runs every {trigger.every!r}, where 1 or more minutes or hours are allowed, as 15m or 2h"
        for awaited in trigger.after:
            try:
                assets.parse(awaited)
            except DataError as error:
                yield f"{who} waits for an asset that is none: {error.what} {error.do}"


def _of_jobs(pipeline: Pipeline) -> Iterator[str]:
    if twice := sorted(dag for dag, count in Counter(pipeline.dags).items() if count > 1):
        yield f"two DAGs would be called {', '.join(twice)}"
    for job in pipeline.jobs:
        if job.stage.reads.artifacts:
            yield f"job {job.name} reads artifacts; outside of a training run there are none"
        # It takes tables as they stand: each try would be another run, and each run would set off the next. What
        # follows the clock sets off nothing, and may ask which rows it has answered already.
        asked = set(job.stage.reads.query.tables) if job.every and job.stage.reads.query else set[str]()
        if own := sorted(({*job.stage.reads.lake, *job.after} - asked) & set(job.stage.writes.tables)):
            yield f"job {job.name} reads or waits for {', '.join(own)}, which it writes itself"


def _of_files(pipeline: Pipeline, folder: Path) -> Iterator[str]:
    if not (folder / "stages").is_dir():
        return  # a declaration without its code, as one is drafted
    for who, stage in _stages(pipeline):
        query = stage.reads.query
        for file in (f"stages/{stage.code}.py", *([query.file] if query else ())):
            if not (folder / file).is_file():
                yield f"{who} needs {file}, which is not there"
