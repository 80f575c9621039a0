"""Two processes over gloo train as one does with twice the micro-batches, whatever is learnt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infra.errors import TransientError
from infra.launch import launch

from . import two_processes

ROOT = Path(__file__).parents[3]
TIMES = {"tokens_per_second", "rollout_seconds"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of the runs by how they were done; one process is this one, which has imported all it needs."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    threads = torch.get_num_threads()
    two_processes.main(one, 1)
    torch.set_num_threads(threads)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    script = [two_processes.__file__, str(two), "2"]
    subprocess.run([*torchrun, *script], check=True, env=environment, cwd=two, timeout=900)
    return {"one": one, "two": two, "sharded": two / "sharded"}


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


KINDS = ["next_token", "resumed", "diverged", "preference", "contrastive", "resumed_lora"]
KINDS += ["policy", "policy_guided", "policy_resumed", "policy_lora"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("started", ["two", "sharded"])
def test_two_processes_have_the_metrics_of_one_with_twice_the_micro_batches(
    runs: dict[str, Path], kind: str, started: str
) -> None:
    one, two = metrics(runs["one"] / kind), metrics(runs[started] / kind)
    assert len(two) == len(one) > 4
    for left, right in zip(two, one, strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() - TIMES:
            assert left[name] == pytest.approx(right[name], rel=1e-4, abs=1e-6), name


def test_a_policy_that_is_guided_has_retried_somewhere(runs: dict[str, Path]) -> None:
    lines = metrics(runs["two"] / "policy_guided")
    for name in ("agrl/retried", "agrl/triggered", "agrl/accepted_2", "agrl/once_guided_accuracy"):
        assert any(line.get(name, 0.0) > 0 for line in lines), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("started", ["two", "sharded"])
def test_they_end_with_its_weights(runs: dict[str, Path], kind: str, started: str) -> None:
    one, two = (load_file(runs[name] / kind / "ended.safetensors") for name in ("one", started))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_with_fsdp_a_process_holds_half_of_everything_and_nothing_whole(runs: dict[str, Path], kind: str) -> None:
    """Weights, two moments of those that learn, and for a policy with a reference those once more."""
    found = {name: json.loads((runs[name] / kind / "held.json").read_text()) for name in ("two", "sharded")}
    weights, learn = found["sharded"]["weights"], found["sharded"]["learn"]
    everything = weights + (3 if kind.startswith("policy") else 2) * learn
    assert found["two"]["held"] >= everything  # the count sees what is whole
    assert found["sharded"]["held"] <= 0.5 * everything + 0.2 * weights


@pytest.mark.parametrize("started", ["two", "sharded"])
def test_each_process_draws_dropout_masks_of_its_own(runs: dict[str, Path], started: str) -> None:
    first, second = json.loads((runs[started] / "dropped" / "masks.json").read_text())
    assert first != second
    assert 0 < sum(first) < len(first)


@pytest.mark.parametrize("started", ["one", "two", "sharded"])
def test_a_resumed_run_draws_the_masks_of_a_straight_one(runs: dict[str, Path], started: str) -> None:
    straight, again = (load_file(runs[started] / kind / "ended.safetensors") for kind in ("dropped", "dropped_resumed"))
    assert {name for name, weight in straight.items() if not torch.equal(weight, again[name])} == set()


def test_the_launcher_of_several_processes_tells_that_the_system_killed_one(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        "import os, signal, time\nos.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    with pytest.raises(TransientError, match="killed by the system, most likely out of memory"):
        launch(torchrun, tmp_path, lambda line: None)


@pytest.mark.parametrize("started", ["one", "two", "sharded"])
def test_a_loss_that_is_not_a_number_in_one_process_ends_all_and_leaves_a_checkpoint_to_go_on_from(
    runs: dict[str, Path], started: str
) -> None:
    straight, again = (metrics(runs[started] / kind) for kind in ("next_token", "diverged"))
    assert [line["loss"] for line in again if "loss" in line] == [line["loss"] for line in straight if "loss" in line]
