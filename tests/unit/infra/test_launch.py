"""How a stage is launched: the exact command, the pod, and whose exit code counts."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands import launch as accelerate_launch
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.launcher.api import LaunchConfig

from infra import launch
from infra.errors import EXIT_BUG, EXIT_TRANSIENT, PlumblineError, TransientError
from infra.profile import CHECKOUT, Profile
from training.core.environment import CPU_SETTINGS
from training.core.stage import CHECKPOINTS


@pytest.fixture
def cluster(profile: Profile) -> Profile:
    """The local profile, with pods as its launcher."""
    pods = {"kind": "kubernetes", "image": "registry.example/plumbline@sha256:abc", "namespace": "plumbline"}
    launcher = profile.launcher.model_copy(update=pods)
    return profile.model_copy(update={"launcher": launcher, "home": Path("/var/lib/plumbline")})


def test_without_a_gpu_one_process_runs_on_the_cpu(profile: Profile) -> None:
    assert launch.build_command("generative_rec.sft", "/a b/spec.json", profile) == [
        sys.executable, "-m", "training", "generative_rec.sft", "--spec", "/a b/spec.json",
    ]  # fmt: skip


def test_with_one_gpu_the_stage_itself_is_the_process_that_gets_the_signals(profile: Profile) -> None:
    without = launch.build_command("generative_rec.sft", "/s/spec.json", profile)
    assert launch.build_command("generative_rec.sft", "/s/spec.json", profile, gpus=1) == without


def test_the_launcher_of_several_processes_waits_for_a_checkpoint_and_gives_up_before_its_pod(
    cluster: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    assert name not in launch.build_environment(gpus=1)
    monkeypatch.setenv(name, launch.build_environment(gpus=2)[name])
    waits = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2).shutdown_timeout
    pod = launch.pod_spec("a.b", "/s.json", cluster, gpus=2, gpu_class="large")
    assert 500 < waits < pod["spec"]["terminationGracePeriodSeconds"]


def test_with_four_gpus_four_processes_run(cluster: Profile) -> None:
    assert launch.build_command("intent.rg_sft", "/s/spec.json", cluster, gpus=4) == [
        "python", "-m", "accelerate.commands.launch", "--config_file", "infra/accelerate/several_gpus.yaml",
        "--num_processes", "4", "--num_machines", "1", "--mixed_precision", "bf16", "--dynamo_backend", "no",
        "-m", "training", "intent.rg_sft", "--spec", "/s/spec.json",
    ]  # fmt: skip


def test_accelerate_understands_the_command_for_several_gpus_as_fsdp(
    cluster: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its launcher reads the command where there seem to be two GPUs; its plugin reads what that hands on."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setattr(accelerate_launch, "is_bf16_available", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    command = launch.build_command("a.b", "/s.json", cluster, gpus=2)
    given, *_ = accelerate_launch._validate_launch_command(
        accelerate_launch.launch_command_parser().parse_args(command[3:])
    )
    assert (given.use_fsdp, given.num_processes, given.mixed_precision) == (True, 2, "bf16")
    assert (given.training_script, given.training_script_args) == ("training", ["a.b", "--spec", "/s.json"])
    environment = {k: v for k, v in prepare_multi_gpu_env(given).items() if "FSDP" in k or "ACCELERATE" in k}
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.cpu_ram_efficient_loading) == (2, True, False)
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy


def test_a_training_process_keeps_its_memory_and_phones_nobody() -> None:
    environment = launch.build_environment()
    assert CPU_SETTINGS.items() <= environment.items()
    assert environment["HF_HUB_OFFLINE"] == environment["DO_NOT_TRACK"] == "1"


def test_a_stage_that_asks_for_no_gpu_sees_none() -> None:
    assert launch.build_environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in launch.build_environment(gpus=1)


def test_launcher_and_training_room_agree_on_the_allocator() -> None:
    assert launch.CPU_SETTINGS == CPU_SETTINGS


def test_launcher_and_training_room_agree_on_where_checkpoints_are() -> None:
    assert launch.CHECKPOINTS == CHECKPOINTS


def test_the_pod_of_a_two_gpu_stage(cluster: Profile) -> None:
    pod = launch.pod_spec("generative_rec.sft", "/var/lib/plumbline/s/spec.json", cluster, gpus=2, gpu_class="large")
    command = launch.build_command("generative_rec.sft", "/var/lib/plumbline/s/spec.json", cluster, 2)
    non_root = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    amounts = {"memory": "128Gi", "nvidia.com/gpu": "2"}
    labels = {"app.kubernetes.io/part-of": "plumbline", "plumbline/stage": "generative_rec.sft"}
    assert pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "generative-rec-sft", "namespace": "plumbline", "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 600,
            "securityContext": {**non_root, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "base",
                    "image": "registry.example/plumbline@sha256:abc",
                    "command": command,
                    "env": [
                        {"name": k, "value": v}
                        for k, v in {
                            **launch.build_environment(gpus=2),
                            "HOME": "/tmp",
                            "PLUMBLINE__HOME": "/var/lib/plumbline",
                        }.items()
                    ],
                    "resources": {"requests": {"cpu": "16", **amounts}, "limits": amounts},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "state", "mountPath": "/var/lib/plumbline"},
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "shm", "mountPath": "/dev/shm"},
                    ],
                }
            ],
            "volumes": [
                {"name": "state", "persistentVolumeClaim": {"claimName": "plumbline-state"}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
            ],
            "nodeSelector": {"plumbline/gpu-class": "large"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    }


def test_a_stage_without_a_gpu_asks_for_none_and_for_no_special_node(cluster: Profile) -> None:
    pod = launch.pod_spec("generative_rec.semantic_ids", "/s.json", cluster, gpus=0, gpu_class="none")
    assert "nvidia.com/gpu" not in str(pod["spec"]["containers"][0]["resources"])
    assert not {"nodeSelector", "tolerations"} & set(pod["spec"])


def script(code: int, left: str = "") -> list[str]:
    """A stand-in for accelerate: prints, may leave the stage's own code in the current stage folder, and ends."""
    return [sys.executable, "-c", f"import sys\nprint('one')\nprint('two')\n{left}\nsys.exit({code})"]


def test_output_is_handed_on_line_by_line(tmp_path: Path) -> None:
    lines: list[str] = []
    assert launch.launch(script(0), tmp_path, lines.append) == 0
    assert lines == ["one", "two"]


@pytest.mark.parametrize("own", [65, 70, 75])
def test_the_stages_own_exit_code_counts_where_the_launcher_hides_it(tmp_path: Path, own: int) -> None:
    left = f"open({str(tmp_path / 'exit_code')!r}, 'w').write('{own}')"
    assert launch.launch(script(1, left), tmp_path, lambda line: None) == own


def killed(number: signal.Signals) -> list[str]:
    """A stage that a signal ends, holding half a GiB."""
    return [sys.executable, "-c", f"import os; held = b'x' * 2**29; os.kill(os.getpid(), {number})"]


def test_a_stage_that_the_system_kills_may_be_tried_again_and_says_what_it_held_and_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        launch.launch(killed(signal.SIGKILL), tmp_path / "sft", lambda line: None)
    said = caught.value
    assert said.what == "Training stage 'sft' was killed by the system, most likely out of memory."
    (held,) = re.findall(r"signal 9 \(SIGKILL\); it held (\d\.\d) GiB at its peak", said.why)
    assert float(held) >= 0.5
    assert "pipeline.yaml" in said.do and "python -m training check" in said.do


@pytest.mark.parametrize(
    ("number", "code", "what"),
    [(signal.SIGTERM, EXIT_TRANSIENT, "stopped"), (signal.SIGSEGV, EXIT_BUG, r"crashed \(SIGSEGV\)")],
)
def test_any_signal_that_ends_a_stage_is_told(tmp_path: Path, number: signal.Signals, code: int, what: str) -> None:
    with pytest.raises(PlumblineError, match=what) as caught:
        launch.launch(killed(number), tmp_path, lambda line: None)
    assert caught.value.exit_code == code


@pytest.mark.parametrize("left", ["", "open({file!r}, 'w').write('70')"])
def test_one_of_several_processes_that_is_killed_is_heard_above_those_that_lost_it(tmp_path: Path, left: str) -> None:
    """The launcher's own words; `test_two_processes` has them from the launcher itself."""
    report = "print('  traceback : Signal 9 (SIGKILL) received by PID 17')\n"
    command = script(1, report + left.format(file=str(tmp_path / "exit_code")))
    with pytest.raises(TransientError, match="killed by the system"):
        launch.launch(command, tmp_path, lambda line: None)


def test_a_launcher_that_fails_by_itself_is_heard(tmp_path: Path) -> None:
    assert launch.launch(script(1), tmp_path, lambda line: None) == 1


def _objects(value: Any, kind: str) -> None:
    """Check a value of a Kubernetes object against its OpenAPI type, as the client's models carry it."""
    import kubernetes.client as k8s

    if kind.startswith("list["):
        assert isinstance(value, list)
        for member in value:
            _objects(member, kind[5:-1])
    elif kind.startswith("dict"):
        assert all(isinstance(key, str) for key in value)
    elif kind in ("str", "int", "bool"):
        assert type(value).__name__ == kind
    else:
        model = getattr(k8s, kind)
        names = {model.attribute_map[name]: declared for name, declared in model.openapi_types.items()}
        assert set(value) <= set(names), f"{kind} has no {set(value) - set(names)}"
        for name, member in value.items():
            _objects(member, names[name])


@pytest.mark.parametrize(("gpus", "gpu_class"), [(0, "none"), (1, "small"), (8, "large")])
def test_every_pod_fits_the_kubernetes_schema(cluster: Profile, gpus: int, gpu_class: str) -> None:
    _objects(launch.pod_spec("a.b", "/s.json", cluster, gpus=gpus, gpu_class=gpu_class), "V1Pod")


def test_the_schema_check_finds_a_misspelt_field(cluster: Profile) -> None:
    pod = launch.pod_spec("a.b", "/s.json", cluster, gpus=0, gpu_class="none")
    pod["spec"]["restartpolicy"] = "Never"
    with pytest.raises(AssertionError, match=r"V1PodSpec has no .*restartpolicy"):
        _objects(pod, "V1Pod")
