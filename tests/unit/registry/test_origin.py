"""Whether a run is called real or simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.runs import StageRun


def _ran(folder: Path, origin: str, **artifacts: str) -> StageRun:
    spec: dict[str, Any] = {"stage": folder.name, "tables": {"items": {"origin": origin}}, "artifacts": artifacts}
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "result.json").write_text("{}")
    return StageRun.read(folder, folder)


@pytest.mark.parametrize("log", ["real", "simulated"])
def test_a_stage_on_a_real_catalogue_is_what_the_log_behind_its_artifacts_is(tmp_path: Path, log: str) -> None:
    _ran(tmp_path / "lists", log)
    _ran(tmp_path / "il_sft", "real", lists=str(tmp_path / "lists"))
    policy = _ran(tmp_path / "il_grpo", "real", il_sft=str(tmp_path / "il_sft"), gone=str(tmp_path / "gone"))

    assert policy.origin == log
