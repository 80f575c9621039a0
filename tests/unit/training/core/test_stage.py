"""A stage's spec, its config, its result, its exit codes."""

import contextlib
import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from common.config import parse_config
from common.errors import PlumblineError
from training.__main__ import main
from training.core.errors import DataError, LeftOut, Preempted
from training.core.preemption import deferred
from training.core.stage import CHECKPOINTS, MetricsLog, StageResult, StageSpec, resolve_config, run_stage


def spec_file(folder: Path, **changes: Any) -> Path:
    spec = {"system": "generative_rec", "stage": "sft", "out": str(folder / "out"), "seed": 17}
    path = folder / "spec.json"
    path.write_text(json.dumps({**spec, **changes}))
    return path


def test_a_spec_file_is_read_with_its_tables(tmp_path: Path) -> None:
    tables = {"items": {"files": ["/a.parquet"], "snapshot": 3, "origin": "simulated"}}
    spec = StageSpec.load(spec_file(tmp_path, tables=tables, config={"x": 1}))
    assert (spec.seed, spec.tables["items"].files, spec.tables["items"].origin) == (17, ("/a.parquet",), "simulated")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sedd": 1}, "unknown config key 'sedd'"),
        ({"seed": "x"}, "wrong type"),
        ({"tables": {"items": {"file": []}}}, "unknown config key 'file'"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        StageSpec.load(spec_file(tmp_path, **changes))


def test_a_spec_without_a_seed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"system": "s", "stage": "t", "out": "o"}')
    with pytest.raises(DataError, match="'seed' is missing"):
        StageSpec.load(path)


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for place in ("taken", "taken/out"):
        spec = StageSpec.load(spec_file(tmp_path, out=str(tmp_path / place)))
        with pytest.raises(PlumblineError, match=r"(?s)A folder could not be made.*taken.*do:"):
            run_stage(spec, lambda _: StageResult({}))


def test_the_hash_of_a_spec_ignores_only_its_place(tmp_path: Path) -> None:
    spec = StageSpec.load(spec_file(tmp_path))
    assert StageSpec.load(spec_file(tmp_path, out="/elsewhere")).hash == spec.hash
    assert StageSpec.load(spec_file(tmp_path, seed=18)).hash != spec.hash


def test_a_stage_with_too_little_data_is_done_with_its_reason_and_whoever_needs_it_is_left_out(tmp_path: Path) -> None:
    def too_small(_: StageSpec) -> StageResult:
        raise LeftOut("the shop is too small", why="one item", do="wait")

    spec = StageSpec.load(spec_file(tmp_path))
    assert run_stage(spec, too_small) and not run_stage(spec, too_small)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["left_out"], result["tables"]) == ("the shop is too small: one item", {})
    record = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert record == {"accepted": False, "reason": "the shop is too small: one item"}
    next_one = StageSpec.load(spec_file(tmp_path, out=str(tmp_path / "next"), artifacts={"sft": str(tmp_path / "out")}))
    with pytest.raises(LeftOut, match="it needs sft, which was left out"):
        next_one.artifact("sft")
    assert next_one.left_out("sft") and not next_one.left_out("another")


def test_a_finished_stage_is_not_run_again_and_a_changed_spec_is(tmp_path: Path) -> None:
    runs = []

    def stage(spec: StageSpec) -> StageResult:
        runs.append(spec.seed)
        return StageResult({"loss": 1.5}, {"scores": ("tables/scores/part-0.parquet",)})

    spec = StageSpec.load(spec_file(tmp_path))
    assert [run_stage(spec, stage), run_stage(spec, stage)] == [True, False]
    assert run_stage(StageSpec.load(spec_file(tmp_path, seed=18)), stage)
    assert runs == [17, 18]
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["metrics"] == {"loss": 1.5} and result["tables"] == {"scores": ["tables/scores/part-0.parquet"]}
    assert result["resumed_from"] is None and result["seconds"] >= 0


def test_a_stage_runs_again_after_one_that_it_reads_was_run_with_another_config(tmp_path: Path) -> None:
    def ids(rows: int) -> StageSpec:
        return StageSpec("shop", "ids", str(tmp_path / "ids"), 17, config={"rows": rows})

    def made(_: StageSpec) -> StageResult:
        return StageResult({})

    sft = StageSpec("shop", "sft", str(tmp_path / "sft"), 17, artifacts={"ids": str(tmp_path / "ids")})
    assert [run_stage(spec, made) for spec in (ids(1), sft, ids(1), sft)] == [True, True, False, False]
    assert [run_stage(spec, made) for spec in (ids(2), sft)] == [True, True]


def checkpointed(folder: Path) -> list[Path]:
    """A last checkpoint with what a kill left of another one, and one of a part of the stage."""
    files = [folder / CHECKPOINTS / "last" / "weights", folder / CHECKPOINTS / ".last.x" / "weights"]
    files.append(folder / "leave_one_out" / CHECKPOINTS / "best.safetensors")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("heavy")
    return files


def test_checkpoints_go_when_the_result_is_written_and_nothing_else_does(tmp_path: Path) -> None:
    files: list[Path] = []

    def stage(spec: StageSpec) -> StageResult:
        files.extend(checkpointed(spec.out_dir))
        (spec.out_dir / "model").mkdir()
        (spec.out_dir / "model" / "weights").write_text("kept")
        return StageResult({})

    run_stage(StageSpec.load(spec_file(tmp_path)), stage)
    left = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert left == ["model/weights", "result.json"]


def test_a_stage_that_fails_keeps_its_checkpoints(tmp_path: Path) -> None:
    spec = StageSpec.load(spec_file(tmp_path))

    def stage(spec: StageSpec) -> StageResult:
        checkpointed(spec.out_dir)
        raise Preempted("taken away")

    with pytest.raises(Preempted):
        run_stage(spec, stage)
    assert len([file for file in spec.out_dir.rglob("*") if file.is_file()]) == 3


def test_a_stage_that_was_killed_between_result_and_clean_up_is_cleaned_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(spec: StageSpec) -> StageResult:
        checkpointed(spec.out_dir)
        return StageResult({})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    spec = StageSpec.load(spec_file(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("training.core.stage._remove_checkpoints", killed)
        run_stage(spec, stage)
    assert (spec.out_dir / CHECKPOINTS).is_dir() and (spec.out_dir / "result.json").is_file()
    assert not run_stage(spec, stage)
    assert not list(spec.out_dir.rglob(CHECKPOINTS))


def test_the_checkpoints_of_another_run_in_the_folder_of_a_finished_one_stay_until_it_is_done(tmp_path: Path) -> None:
    run_stage(StageSpec.load(spec_file(tmp_path)), lambda spec: StageResult({}))
    other = StageSpec.load(spec_file(tmp_path, seed=18))

    def stage(spec: StageSpec) -> StageResult:
        checkpointed(spec.out_dir)
        raise Preempted("taken away")

    with pytest.raises(Preempted):
        run_stage(other, stage)
    assert list(other.out_dir.rglob(CHECKPOINTS))


def test_a_stage_that_fails_leaves_no_result(tmp_path: Path) -> None:
    def stage(spec: StageSpec) -> StageResult:
        raise DataError("bad rows", do="write them again")

    with pytest.raises(DataError):
        run_stage(StageSpec.load(spec_file(tmp_path)), stage)
    assert not (tmp_path / "out/result.json").exists()


def test_sigterm_ends_a_stage_with_the_exit_code_of_a_retry(tmp_path: Path) -> None:
    def stage(spec: StageSpec) -> StageResult:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the stage went on after SIGTERM")

    with pytest.raises(Preempted) as caught:
        run_stage(StageSpec.load(spec_file(tmp_path)), stage)
    assert caught.value.exit_code == 75


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_deferred_stop_only_raises_a_flag(asked: signal.Signals) -> None:
    with deferred() as stop:
        os.kill(os.getpid(), asked)
        assert stop.wait(5)


def test_a_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), deferred() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on after the second Ctrl-C")


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    mode: Literal["a", "b"]
    inner: Inner = field(default_factory=Inner)
    sizes: tuple[int, ...] = ()
    path: str | None = None
    share: float | Literal["validation"] = "validation"


@pytest.mark.parametrize(("value", "read"), [("validation", "validation"), (1, 1.0), (0.5, 0.5)])
def test_a_number_or_a_word_is_read_as_what_it_is(value: object, read: object) -> None:
    assert parse_config(Outer, {"mode": "a", "share": value}).share == read
    with pytest.raises(DataError, match="wrong type"):
        parse_config(Outer, {"mode": "a", "share": "test"})


def test_a_config_is_read_with_nested_parts_and_written_resolved(tmp_path: Path) -> None:
    values = {"mode": "b", "inner": {"rate": 1}, "sizes": [2, 3], "path": None}
    config = resolve_config(StageSpec.load(spec_file(tmp_path, config=values)), Outer)
    assert config == Outer("b", Inner(1.0), (2, 3), None)
    assert yaml.safe_load((tmp_path / "out/config.yaml").read_text())["sizes"] == [2, 3]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mode": "c"}, "'c' is not allowed"),
        ({"mode": "a", "inner": {"rte": 1}}, "unknown config key 'rte'"),
        ({"mode": "a", "sizes": [True]}, "wrong type"),
        ({}, "'mode' is missing"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_config(Outer, values)


def test_the_metrics_log_forgets_the_steps_after_the_one_it_goes_back_to(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append(step, loss=float(step))
    log.rewind(2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]


def test_the_command_answers_bad_input_with_four_lines_and_exit_code_65(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generative_rec.sft", "--spec", str(tmp_path / "none.json")]) == 65
    assert main(["generative_rec.nothing", "--spec", str(spec_file(tmp_path, stage="nothing"))]) == 65
    assert main(["generative_rec.sft", "--spec", str(spec_file(tmp_path, stage="evaluate"))]) == 65
    assert "there is no stage generative_rec.nothing" in capsys.readouterr().err


def test_a_stage_runs_the_module_that_its_spec_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = spec_file(tmp_path, stage="sp_easy", module="nowhere")
    assert main(["generative_rec.sp_easy", "--spec", str(named)]) == 65
    assert "there is no stage generative_rec.nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("a bug"), "70"), (DataError("bad", do="mend"), "65")])
def test_a_stage_that_fails_leaves_its_exit_code_so_that_none_means_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("training.__main__.run_stage", fail)
    spec = spec_file(tmp_path)
    with contextlib.suppress(RuntimeError):
        main([f"generative_rec.{StageSpec.load(spec).stage}", "--spec", str(spec)])
    assert spec.with_name("exit_code").read_text() == code
