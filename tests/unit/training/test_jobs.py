"""Bench jobs: the specs they make of a pipeline, what they skip, what they refuse, and going on when time is up."""

from __future__ import annotations

import json
import signal
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.pipeline_kit import TRAINING
from training import jobs
from training.__main__ import main
from training.core.errors import EXIT_BUG, EXIT_INTERRUPTED, DataError, Preempted
from training.core.stage import StageResult, StageSpec
from training.jobs import Job, load_job, merged, stage_specs

LIMITS = {"time_limit_minutes": 5, "retry": "transient", "writes": {"artifact": True}}
STAGES = [
    {"name": "codes", "reads": {"tables": ["items"]}, "config": {"demo": {}, "bench": {"levels": 3}}, **LIMITS},
    {"name": "easy", "module": "stage", "reads": {"artifacts": ["codes"]}, "config": {"bench": {}}, **LIMITS},
    {"name": "only_demo", "config": {"demo": {}}, **LIMITS},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "shop"
    (folder / "jobs").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"training": TRAINING, "stages": STAGES}))
    (folder / "jobs" / "all_stages.yaml").write_text("system: shop\nconfig: {codes: {width: 8, loop: {rows: 2}}}\n")
    pq.write_table(pa.table({"item_id": []}), tmp_path / "items.parquet")
    return tmp_path / "root"


def test_a_job_is_the_pipelines_preset_with_its_own_values_over_it(root: Path, tmp_path: Path) -> None:
    first, second = stage_specs(load_job("all_stages", root), tmp_path, tmp_path / "out", 5, root)
    assert (first.stage, first.config) == ("codes", {"levels": 3, "width": 8, "loop": {"rows": 2}})
    assert first.tables["items"].files == (str(tmp_path / "items.parquet"),)
    assert (second.stage, second.module, second.seed) == ("easy", "stage", 5)
    assert second.artifacts == {"codes": str(tmp_path / "out" / "codes")}


def test_the_rows_of_a_query_are_read_where_the_folder_has_them(root: Path, tmp_path: Path) -> None:
    query = {"file": "bids.sql", "tables": ["bids"], "optional": ["bids"]}
    stages = [{**STAGES[0], "reads": {"tables": ["items"], "query": query}}]
    (root / "shop" / "pipeline.yaml").write_text(yaml.safe_dump({"training": TRAINING, "stages": stages}))
    (without,) = stage_specs(Job("shop"), tmp_path, tmp_path, 1, root)
    assert set(without.tables) == {"items"}
    pq.write_table(pa.table({"bid": [1.0]}), tmp_path / "bids.parquet")
    (found,) = stage_specs(Job("shop"), tmp_path, tmp_path, 1, root)
    assert found.tables["bids"].files == (str(tmp_path / "bids.parquet"),)


def test_a_job_like_another_one_is_that_job_with_its_own_values_over_it(root: Path) -> None:
    own = "like: all_stages\nstages: [codes]\nconfig: {codes: {width: null, levels: null, loop: {epochs: 1}}}\n"
    (root / "shop" / "jobs" / "small.yaml").write_text(own)
    job = load_job("small", root)
    assert (job.system, job.preset, job.stages) == ("shop", "bench", ("codes",))
    (root.parent / "samples").mkdir()
    pq.write_table(pa.table({"item_id": []}), root.parent / "samples" / "items.parquet")
    # What it takes out is taken out of the preset too.
    assert stage_specs(job, root.parent / "samples", root, 1, root)[0].config == {"loop": {"rows": 2, "epochs": 1}}


def test_a_job_like_one_that_is_not_there_lists_the_known(root: Path) -> None:
    (root / "shop" / "jobs" / "small.yaml").write_text("like: chess\n")
    with pytest.raises(DataError, match=r"(?s)no job chess.*all_stages"):
        load_job("small", root)


def test_a_stage_that_the_preset_leaves_out_runs_where_the_job_names_it(root: Path, tmp_path: Path) -> None:
    specs = stage_specs(Job("shop", config={"only_demo": {"rows": 3}}), tmp_path, tmp_path, 1, root)
    assert [(spec.stage, spec.config) for spec in specs][-1] == ("only_demo", {"rows": 3})


def test_what_a_stage_outside_the_job_would_have_made_is_not_there(root: Path, tmp_path: Path) -> None:
    (easy,) = stage_specs(Job("shop", stages=("easy",)), tmp_path, tmp_path, 1, root)
    assert easy.artifacts == {} and easy.left_out("codes") == ""


def test_values_are_merged_to_any_depth() -> None:
    assert merged({"a": {"b": 1, "c": {"d": 2}}, "e": 3}, {"a": {"c": {"d": 4}}, "e": {"f": 5}}) == {
        "a": {"b": 1, "c": {"d": 4}},
        "e": {"f": 5},
    }


def test_null_takes_a_value_out_and_keeps_the_others() -> None:
    assert merged({"a": {"b": 1, "c": None}, "d": 2}, {"a": {"b": None}}) == {"a": {"c": None}, "d": 2}
    assert merged({"d": 2}, {"a": {"b": None, "c": {"e": None, "f": 1}}}) == {"a": {"c": {"f": 1}}, "d": 2}
    assert merged({}, {"a": {"b": None}}, nulls=True) == {"a": {"b": None}}


def test_an_unknown_job_stage_or_table_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no job chess.*all_stages"):
        load_job("chess", root)
    with pytest.raises(DataError, match="only_once"):
        stage_specs(Job("shop", config={"only_once": {}}), tmp_path, tmp_path, 1, root)
    with pytest.raises(DataError, match=r"items\.parquet"):
        stage_specs(Job("shop"), tmp_path / "nowhere", tmp_path, 1, root)


@dataclass(frozen=True)
class Rows:
    rows: int = 1


@dataclass(frozen=True)
class Config:
    levels: int = 1
    width: int = 1
    loop: Rows = field(default_factory=Rows)


def shop_job(root: Path, monkeypatch: pytest.MonkeyPatch, stage: Callable[[StageSpec], StageResult]) -> list[str]:
    """The command of a job whose stages all do `stage`."""
    for module in ("codes", "stage"):
        fake = types.ModuleType(module)
        fake.main, fake.Config = stage, Config  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"training.shop.stages.{module}", fake)
    monkeypatch.setattr(jobs, "load_job", lambda name: load_job(name, root))
    monkeypatch.setattr(jobs, "stage_specs", lambda *given, models: stage_specs(*given, root, models))  # type: ignore[misc]
    return ["bench", "--job", "all_stages", "--samples", str(root.parent), "--out", str(root.parent / "out")]


def untouched(spec: StageSpec) -> StageResult:
    raise AssertionError(f"{spec.stage} ran")


def test_a_config_that_the_last_stage_cannot_read_is_named_before_the_first_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "shop" / "jobs" / "all_stages.yaml").write_text("system: shop\nconfig: {easy: {widht: 8}}\n")
    assert main(shop_job(root, monkeypatch, untouched)) == DataError.exit_code
    assert "unknown config key 'widht'\n  where: shop.easy\n" in capsys.readouterr().err


def test_a_folder_with_a_run_of_another_seed_is_not_run_over(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*shop_job(root, monkeypatch, lambda spec: StageResult({"loss": 1.0})), "--seed", "1"]) == 0
    before = (root.parent / "out" / "codes" / "result.json").read_text()
    assert main([*shop_job(root, monkeypatch, untouched), "--seed", "2"]) == DataError.exit_code
    assert "seed 1, and this one has seed 2" in capsys.readouterr().err
    assert (root.parent / "out" / "codes" / "result.json").read_text() == before


def test_a_folder_that_cannot_be_used_is_named_without_a_traceback(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root.parent / "out").touch()
    assert main(shop_job(root, monkeypatch, untouched)) == EXIT_BUG
    assert f"A folder could not be made.\n  where: {root.parent / 'out' / 'codes'}\n" in capsys.readouterr().err


def test_ctrl_c_ends_a_job_with_130_and_a_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(spec: StageSpec) -> StageResult:
        raise KeyboardInterrupt

    assert main(shop_job(root, monkeypatch, interrupted)) == EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_a_job_whose_time_is_up_ends_with_75_and_goes_on_with_the_next_stage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def stage(spec: StageSpec) -> StageResult:
        ran.append(spec.stage)
        if ran == ["codes", "easy"]:
            jobs._out_of_time(signal.SIGALRM, None)  # what the timer does
        return StageResult({"loss": 1.0})

    command = shop_job(root, monkeypatch, stage)
    assert main(command) == Preempted.exit_code == 75
    assert main(command) == 0
    assert ran == ["codes", "easy", "easy"]
    written = json.loads((tmp_path / "out" / "job.json").read_text())
    assert list(written["stages"]) == ["codes", "easy"] and written["machine"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_stage_is_given_the_models_of_other_systems(root: Path, tmp_path: Path) -> None:
    declared = root / "shop" / "pipeline.yaml"
    stages = [{**STAGES[0], "reads": {"tables": ["items"], "models": ["ranker"]}}, *STAGES[1:]]
    declared.write_text(yaml.safe_dump({"training": TRAINING, "stages": stages}))
    first, second = stage_specs(load_job("all_stages", root), tmp_path, tmp_path / "out", 5, root, {"ranker": tmp_path})
    assert [one.folder for one in first.models["ranker"]] == [str(tmp_path)] and not second.models
    with pytest.raises(DataError, match="no such model folder"):
        stage_specs(load_job("all_stages", root), tmp_path, tmp_path, 5, root, {"ranker": tmp_path / "nowhere"})


def test_a_sample_table_tells_whether_it_is_simulated(root: Path, tmp_path: Path) -> None:
    def origin() -> str:
        return stage_specs(load_job("all_stages", root), tmp_path, tmp_path, 5, root)[0].tables["items"].origin

    assert origin() == "real"
    simulated = pa.table({"item_id": []}).replace_schema_metadata({"origin": "simulated"})
    pq.write_table(simulated, tmp_path / "items.parquet")
    assert origin() == "simulated"
    (tmp_path / "items.parquet").write_text("no table")
    with pytest.raises(DataError, match="cannot be read"):
        origin()
