"""SIGTERM to the command that a launcher starts, as a pod sends it to its first process: a checkpoint, and code 75."""

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path

from infra import launch
from infra.profile import CHECKOUT, Profile
from tests.unit.training.generative_rec.stages.test_sft import spec as sft_spec
from training.core.checkpoint import places, read_cursor
from training.core.stage import StageSpec

__all__ = ["sft_spec"]


def test_the_command_of_one_gpu_answers_sigterm_with_a_checkpoint(
    sft_spec: StageSpec, profile: Profile, tmp_path: Path
) -> None:
    endless = {**sft_spec.config, "loop": {**sft_spec.config["loop"], "epochs": 100_000, "patience": 100_000}}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(sft_spec, config=endless))))
    command = launch.build_command("generative_rec.sft", file, profile, gpus=1)
    environment = {**os.environ, **launch.build_environment(gpus=1), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("training: ") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 75, said
    assert "checkpoint saved" in said
    cursor = read_cursor(places(sft_spec.out_dir)[0])
    assert cursor is not None and cursor["step"] > 0
