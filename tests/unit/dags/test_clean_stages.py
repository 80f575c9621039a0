"""Cleaning the folders of stages: what may be in use, or is still needed, stays; the rest goes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.pipelines import Pipeline, Preset, load_pipeline, systems
from dags.steps import _folders, clean_stages
from dags.steps._folders import JOBS, MODELS, PINS, hold, opened
from dags.steps._publish import publish_rows
from dags.steps._runs import close_run, open_job, open_run
from dags.steps.clean_stages import IN_USE, clean
from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake
from infra.profile import Profile
from tests.pipeline_kit import declared
from training.core.embeddings import SUFFIX, kept_vectors

TABLE = "item_codes"
DAY, NOW = date(2018, 1, 5), datetime.now(UTC)
KEEP, PATIENCE = 2, timedelta(days=30)


@pytest.fixture
def profile(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """With two folders of each kind to keep, and a registry in which nothing stands."""
    monkeypatch.setattr(clean_stages, "_standing", lambda profile, pipeline, root: {})
    return profile.model_copy(update={"stages": profile.stages.model_copy(update={"keep": KEEP})})


@pytest.fixture
def pipeline(profile: Profile) -> Pipeline:
    """One stage that reads a table, which is published."""
    rows = [{"run_date": DAY, "item_id": "a", "codes": [1, 2, 3]}]
    publish_rows(profile, TABLE, pa.Table.from_pylist(rows, schema=arrow_schema(load_contract(TABLE))))
    stage = {"name": "fit", "reads": {"tables": [TABLE]}, "writes": {}, "time_limit_minutes": 5, "retry": "transient"}
    night = {**stage, "name": "list", "reads": {}, "config": {}}
    job = {"name": "nightly", "notes": "### Nightly", "deadline_minutes": 60, "after": ["events"], "stage": night}
    return declared(stages=[{**stage, "config": {}}], jobs=[job])


def age(folder: Path, days: float) -> Path:
    """As if it had been opened for the last time so many days ago."""
    moment = (NOW - timedelta(days=days)).timestamp()
    os.utime(folder, (moment, moment))
    return folder


def run(profile: Profile, pipeline: Pipeline, number: int, days: float, *, finished: bool = True) -> Path:
    """The folder of a training run."""
    made = open_run(profile, replace(pipeline, seed=number), f"run {number}", DAY)
    (made.folder / "fit").mkdir()
    (made.folder / "fit" / "model.safetensors").write_bytes(b"x" * 1000)
    if finished:
        close_run(profile, made)
    return age(made.folder, days)


def left(profile: Profile, pipeline: Pipeline) -> set[str]:
    """What lies there after a clean-up."""
    clean(profile, pipeline, NOW)
    root = profile.home / "stages" / "toy"
    found = [*root.iterdir(), *root.glob(f"{MODELS}/*/*"), *root.glob(f"{JOBS}/*/*")]
    return {path.name for path in found} - {MODELS, JOBS, "lock", "runs"}


def night(profile: Profile, pipeline: Pipeline, day: date, days: float) -> Path:
    """The folder of a day of the job."""
    return age(open_job(profile, pipeline, pipeline.jobs[0], day).folder, days)


def test_the_newest_runs_and_days_of_a_job_stay(profile: Profile, pipeline: Pipeline) -> None:
    runs = [run(profile, pipeline, number, days=10 + number).name for number in range(4)]
    for days in range(4):
        night(profile, pipeline, DAY - timedelta(days), days + 10)
    assert left(profile, pipeline) == {*runs[:KEEP], "nightly-2018-01-05", "nightly-2018-01-04"}


def test_what_was_left_before_jobs_and_models_had_folders_of_their_own_stops_nothing(
    profile: Profile, pipeline: Pipeline
) -> None:
    newest = run(profile, pipeline, 1, days=2)
    (newest / PINS).write_text(json.dumps({"last": "2018-01-05", "pins": {}}))
    (unpacked := newest.parent / MODELS / "v1").mkdir(parents=True)
    (file := unpacked / "model.safetensors").write_bytes(b"x")
    age(file, 400)
    assert left(profile, pipeline) >= {newest.name}
    assert file.is_file()


def test_an_unfinished_run_can_be_taken_up_again_for_a_month(profile: Profile, pipeline: Pipeline) -> None:
    newest = [run(profile, pipeline, number, days=2) for number in range(KEEP)]
    waiting = run(profile, pipeline, 8, days=29, finished=False)
    given_up = run(profile, pipeline, 9, days=31, finished=False)
    tagged = {tag for version in Lake(profile).history(TABLE) for tag in version.tags}
    assert tagged == {f"run-{waiting.name}", f"run-{given_up.name}"}
    assert left(profile, pipeline) == {*(path.name for path in newest), waiting.name}
    assert [version.tags for version in Lake(profile).history(TABLE)] == [(f"run-{waiting.name}",)]


def test_a_run_that_was_removed_begins_anew_when_it_is_asked_for(profile: Profile, pipeline: Pipeline) -> None:
    profile = profile.model_copy(update={"stages": profile.stages.model_copy(update={"keep": 0})})
    removed = run(profile, pipeline, 1, days=40)
    assert left(profile, pipeline) == set()
    again = open_run(profile, replace(pipeline, seed=1), "run 1", DAY)
    assert (again.folder, list(again.folder.iterdir())) == (removed, [removed / PINS])


def test_what_an_attempt_opens_is_safe_from_the_next_clean_up(profile: Profile, pipeline: Pipeline) -> None:
    for number in range(KEEP):
        run(profile, pipeline, number, days=2)
        night(profile, pipeline, DAY - timedelta(number), 2)
    old = {seed: run(profile, pipeline, seed, days=400, finished=seed == 7) for seed in (6, 7, 8)}
    nights = [night(profile, pipeline, DAY - timedelta(days), 400) for days in (50, 51)]
    for seed in (6, 7):  # cleared in Airflow, and running again
        open_run(profile, replace(pipeline, seed=seed), f"run {seed}", DAY)
    open_job(profile, pipeline, pipeline.jobs[0], DAY - timedelta(50))
    stayed = left(profile, pipeline)
    assert {old[6].name, old[7].name, nights[0].name} <= stayed
    assert (old[6] / "fit" / "model.safetensors").is_file()
    assert {old[8].name, nights[1].name} & stayed == set()


def test_a_folder_that_is_opened_while_the_clean_up_waits_is_not_chosen(
    profile: Profile, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = profile.model_copy(update={"stages": profile.stages.model_copy(update={"keep": 0})})
    folder, waits, real = run(profile, pipeline, 1, days=400), Event(), fcntl.flock

    def flock(file: Any, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            waits.set()
        real(file, operation)

    monkeypatch.setattr(_folders.fcntl, "flock", flock)
    with ThreadPoolExecutor(1) as pool:
        with hold(folder.parent):
            cleaning = pool.submit(clean, profile, pipeline, NOW)
            assert waits.wait(60)
            opened(folder)
        (found,) = cleaning.result()
    assert found.why == "opened within a day"
    assert folder.is_dir()


def test_a_kill_in_the_middle_leaves_no_half_a_run(
    profile: Profile, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's folder that lacks some files would pass for a finished one."""
    profile = profile.model_copy(update={"stages": profile.stages.model_copy(update={"keep": 0})})
    folder = run(profile, pipeline, 1, days=400)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        clean(profile, pipeline, NOW)
    assert not folder.exists()
    (leftover,) = folder.parent.glob("removed-*")
    age(leftover, 2)
    assert left(profile, pipeline) == set()


def test_a_dry_run_lists_and_removes_nothing(
    profile: Profile, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [run(profile, pipeline, number, days=100 + number) for number in range(KEEP + 1)]
    monkeypatch.setattr(clean_stages, "load_profile", lambda: profile)
    monkeypatch.setattr(clean_stages, "systems", lambda: ["toy"])
    monkeypatch.setattr(clean_stages, "read_pipeline", lambda system: pipeline)
    for arguments, there in (["--dry-run"], True), ([], False):
        monkeypatch.setattr(sys, "argv", ["clean_stages", *arguments])
        assert clean_stages.main() == 0
        said = capsys.readouterr().out.splitlines()
        (line,) = [line for line in said if folders[-1].name in line]
        assert line.rstrip().endswith("would be removed" if there else "removed")
        assert folders[-1].is_dir() is there
    assert all(folder.is_dir() for folder in folders[:-1])


@dataclass(frozen=True)
class State:
    """A folder as the test makes it."""

    kind: str
    days: float
    finished: bool = True
    stands: bool = False

    def needed(self) -> bool:
        """Whether removing it would take something from somebody."""
        unfinished = self.kind == "run" and not self.finished and timedelta(days=self.days) < PATIENCE
        return timedelta(days=self.days) < IN_USE or unfinished or (self.stands and self.kind != "night")


STATES = st.builds(
    State,
    st.sampled_from(("run", "night", "model")),
    st.integers(0, 90).map(lambda n: n + 0.5),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(STATES, max_size=12), keep=st.integers(0, 3))
def test_whatever_the_folders_are_what_is_needed_and_the_newest_stay_and_nothing_else(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, states: list[State], keep: int
) -> None:
    root = profile.home / "stages" / "toy"
    shutil.rmtree(root, ignore_errors=True)
    made = {_make(root, number, state): state for number, state in enumerate(states)}
    unfinished = [path for path, state in made.items() if state.kind == "run" and not state.finished]
    monkeypatch.setattr(clean_stages, "_unfinished", lambda profile, runs: unfinished)
    stands = {path: "champion" for path, state in made.items() if state.stands and state.kind != "night"}
    monkeypatch.setattr(clean_stages, "_standing", lambda profile, pipeline, root: stands)
    monkeypatch.setattr(clean_stages, "close_run", lambda profile, run: None)
    profile = profile.model_copy(update={"stages": profile.stages.model_copy(update={"keep": keep})})
    clean(profile, declared(), NOW)
    for kind in ("run", "night", "model"):
        ranked = sorted((path for path, state in made.items() if state.kind == kind), key=lambda path: made[path].days)
        newest = [made[path].days for path in ranked[: 0 if kind == "model" else keep]]
        stayed = [path for path in ranked if path.is_dir()]
        assert {path for path in ranked if made[path].needed()} <= set(stayed)
        assert [made[path].days for path in stayed][: len(newest)] == newest
        assert len([path for path in stayed if not made[path].needed()]) <= len(newest)
    assert not list(root.glob("removed-*"))


def _make(root: Path, number: int, state: State) -> Path:
    night = f"{JOBS}/nightly/2018-01-{number + 1:02}"
    names = {"run": f"2018-01-05-{number}", "night": night, "model": f"{MODELS}/toy/v{number}"}
    folder = root / names[state.kind]
    folder.mkdir(parents=True)
    if state.kind == "run":
        (folder / PINS).write_text(json.dumps({"last": "2018-01-05", "pins": {}, "models": {}}))
    return age(folder, state.days)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_no_stage_may_run_for_longer_than_an_opened_folder_is_safe(preset: Preset) -> None:
    for system in systems():
        pipeline = load_pipeline(system, preset)
        stages = [*pipeline.stages, *(job.stage for job in pipeline.jobs)]
        assert all(timedelta(minutes=stage.time_limit_minutes) < IN_USE for stage in stages)


def test_vectors_that_nobody_uses_go_and_so_does_what_a_killed_write_has_left(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE__HOME", str(profile.home))
    shelf = kept_vectors() / "encoder-64-bfloat16"
    shelf.mkdir(parents=True)
    keep = profile.lake.keep_days
    whole = {f"{name}{SUFFIX}": days for name, days in (("used", 1), ("kept", keep - 1), ("gone", keep + 1))}
    old = {**whole, "now.partial": 0.1, "left.partial": 2}
    for name, days in old.items():
        (shelf / name).write_bytes(b"x")
        age(shelf / name, days)
    for dry_run in (True, False):
        found = clean_stages.clean_vectors(profile, NOW, dry_run)
        assert [folder.path.name for folder in found] == [f"gone{SUFFIX}", "left.partial"]
    assert sorted(file.name for file in shelf.iterdir()) == [f"kept{SUFFIX}", "now.partial", f"used{SUFFIX}"]
