"""Which files of a stage's folder are hashed, and which are worth a look in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.launch import CHECKPOINTS
from registry import runs
from training.core.stage import CHECKPOINTS as WRITTEN


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished stage's folder with all kinds of files."""
    names = {
        "result.json": 2,
        "gate.json": 2,
        "model/config.json": 2,
        "model/weights.safetensors": 9,
        "leave_one_out/report.md": 2,
        "tables/eval_values/part-0.parquet": 9,
        "big.jsonl": runs._SMALL_BYTES + 1,
        f"{CHECKPOINTS}/last/weights.safetensors": 9,
        f"model_leave_one_out/{CHECKPOINTS}/cursor.json": 9,
        ".model.k3x/config.json": 9,
        "model/.part": 9,
    }
    for name, size in names.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    return tmp_path


def named(out: Path, files: list[Path]) -> set[str]:
    return {file.relative_to(out).as_posix() for file in files}


def test_the_folder_that_training_writes_its_state_to_is_the_one_that_is_left_out() -> None:
    assert WRITTEN == CHECKPOINTS


def test_all_files_are_hashed_but_the_training_state_and_what_a_killed_write_left(out: Path) -> None:
    assert named(out, runs._files(out)) == {
        "result.json",
        "gate.json",
        "model/config.json",
        "model/weights.safetensors",
        "leave_one_out/report.md",
        "tables/eval_values/part-0.parquet",
        "big.jsonl",
    }


def test_a_folder_above_that_has_a_hidden_name_hides_nothing(tmp_path: Path) -> None:
    inside = tmp_path / ".cache" / CHECKPOINTS / "stage"
    inside.mkdir(parents=True)
    (inside / "result.json").write_text("{}")
    assert named(inside, runs._files(inside)) == {"result.json"}


def test_small_files_outside_of_the_model_are_uploaded(out: Path) -> None:
    assert named(out, runs._small_files(out)) == {"result.json", "gate.json", "leave_one_out/report.md"}


def test_a_file_of_just_the_limit_is_still_small(out: Path) -> None:
    (out / "big.jsonl").write_bytes(b"x" * runs._SMALL_BYTES)
    assert "big.jsonl" in named(out, runs._small_files(out))
