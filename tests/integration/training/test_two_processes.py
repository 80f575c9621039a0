"""Two processes over gloo train as one does with twice the micro-batches, whatever is learnt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = SCRIPT.parents[3]
TIMES = {"tokens_per_second", "rollout_seconds"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folder of the runs by their number of processes."""
    return {processes: launch(tmp_path_factory.mktemp("runs"), processes) for processes in (1, 2)}


def launch(out: Path, processes: int) -> Path:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*torchrun, str(SCRIPT), str(out), str(processes)]
    subprocess.run(command, check=True, env=environment, cwd=out, timeout=300)
    return out


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["next_token", "preference", "policy"])
def test_two_processes_have_the_metrics_of_one_with_twice_the_micro_batches(runs: dict[int, Path], kind: str) -> None:
    one, two = metrics(runs[1] / kind), metrics(runs[2] / kind)
    assert len(two) == len(one) > 4
    for left, right in zip(two, one, strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() - TIMES:
            assert left[name] == pytest.approx(right[name], rel=1e-4, abs=1e-6), name
