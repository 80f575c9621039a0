"""How a training stage runs: as a local process, under `accelerate launch` with several GPUs, or as a Kubernetes pod.

A stage needs nothing but its spec file and the folders that the spec names; both launchers run the same module.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

from infra import endings, warm
from infra.profile import CHECKOUT, Profile
from infra.telemetry import TELEMETRY_OFF

# glibc gives large blocks back after each use, and the page faults that follow cost more than half of a CPU run;
# OpenMP's waiting threads spin, and lose their time slices to whatever else runs on the cores.
CPU_SETTINGS: dict[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
}
STATE_CLAIM = "plumbline-state"
EXIT_CODE_FILE = "exit_code"
_PROCESS_KILLED = "Signal 9 (SIGKILL) received by PID"  # in the report of the launcher of several processes
_AGAIN = (
    "Run it again: it goes on from its last checkpoint. If it is killed again, give it more memory, run less beside it "
    "or train less at once: fewer rows and tokens in its pipeline.yaml, or a smaller preset "
    "(PLUMBLINE__TRAINING_PRESET; `python -m training check` says what a preset needs)."
)
CHECKPOINTS = "checkpoints"  # the folder in which a stage keeps what nobody needs once it is done
SEVERAL_GPUS = "infra/accelerate/several_gpus.yaml"
# How long a stage that is taken away may take to save its checkpoint: weights and moments of the largest preset are
# gathered on one process and written in some minutes. The launcher of several processes must be the more impatient
# one: what ends it from outside would leave no exit code.
_GRACE_SECONDS = 600
_LAUNCHER_GRACE_SECONDS = 570
_GPU_LABEL = "plumbline/gpu-class"
_USER = 1000


def build_command(stage: str, spec_path: str | Path, profile: Profile, gpus: int = 0) -> list[str]:
    """The command line of `stage` (`system.stage`), the interpreter first; it runs in the root of the checkout.

    Several GPUs have a process each, under FSDP. One process, on the CPU or a GPU, is started as it is: a launcher
    would cost seconds, and as the first process of a pod it would keep SIGTERM from the stage. On Kubernetes `python`
    is the image's own.
    """
    python = sys.executable if profile.launcher.kind == "local" else "python"
    train = ["-m", "training", stage, "--spec", str(spec_path)]
    if gpus < 2:
        return [python, *train]
    launch = [python, "-m", "accelerate.commands.launch", "--config_file", SEVERAL_GPUS, "--num_processes", str(gpus)]
    return [*launch, "--num_machines", "1", "--mixed_precision", "bf16", "--dynamo_backend", "no", *train]


def local_gpus() -> int:
    """How many GPUs this machine has, as its driver says; importing torch for that would cost seconds."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def build_environment(gpus: int = 0) -> dict[str, str]:
    """What a training process needs on top of its machine's environment; one without a GPU sees none."""
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    patience = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_LAUNCHER_GRACE_SECONDS)} if gpus > 1 else {}
    return {**TELEMETRY_OFF, **CPU_SETTINGS, **hidden, **patience, "PYTHONUNBUFFERED": "1"}


def pod_environment(state: str, gpus: int) -> dict[str, str]:
    """As `build_environment`, where nothing but `/tmp` and `state` may be written: compilers and caches look for a
    home, and models that are kept for all runs for the profile's."""
    return {**build_environment(gpus), "HOME": "/tmp", "PLUMBLINE__HOME": state}  # noqa: S108 - in the pod


def launch(argv: Sequence[str], out: Path, emit: Callable[[str], object], gpus: int = 0) -> int:
    """Run a stage's command, hand on its output line by line, and return the STAGE's exit code.

    An exit code that an earlier try left in `out` must be gone.

    Raises:
        PlumblineError: a signal ended the stage, or one of its processes, before it could say anything (`endings`).
    """
    environment = {**os.environ, **build_environment(gpus)}
    killed: list[str] = []

    def hear(line: str) -> None:
        emit(line)
        killed.extend([line] if _PROCESS_KILLED in line else [])

    code = endings.follow(warm.start("training", argv, CHECKOUT, environment), hear)
    explain_stage(out, -SIGKILL if killed else code)
    return stage_exit_code(out, code)


def explain_stage(out: Path, code: int, held: str = "") -> None:
    """Say what ended a stage that could not say it; nothing where it left a code of its own in `out`.

    A process that was killed is heard all the same: the others only say that they have lost it.

    Raises:
        PlumblineError: as `endings.explain`.
    """
    if endings.signal_of(code) == SIGKILL or not (out / EXIT_CODE_FILE).is_file():
        endings.explain(f"Training stage {out.name!r}", code, where=str(out), held=held, do=_AGAIN)


def stage_exit_code(out: Path, returncode: int) -> int:
    """`accelerate launch` answers 1 for every failure; the stage leaves its own code in its folder."""
    left = out / EXIT_CODE_FILE
    return int(left.read_text()) if returncode != 0 and left.is_file() else returncode


def pod_spec(stage: str, spec_path: str, profile: Profile, *, gpus: int, gpu_class: str) -> dict[str, Any]:
    """The pod that runs `stage`: no privileges, no token, nothing writable but the state volume and `/tmp`."""
    home = str(profile.home)
    mounts = {"state": home, "tmp": "/tmp"}  # noqa: S108 - in the pod
    volumes: list[dict[str, Any]] = [
        {"name": "state", "persistentVolumeClaim": {"claimName": STATE_CLAIM}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if gpus > 1:  # they talk through shared memory, of which a container has 64 MB by default
        mounts["shm"] = "/dev/shm"  # noqa: S108 - in the pod
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    container = {
        "name": "base",
        "image": profile.launcher.image,
        "command": build_command(stage, spec_path, profile, gpus),
        "env": [{"name": name, "value": value} for name, value in pod_environment(home, gpus).items()],
        "resources": _resources(gpus),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    name = re.sub(r"[^a-z0-9-]", "-", stage.lower())
    labels = {"app.kubernetes.io/part-of": "plumbline", "plumbline/stage": stage}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": profile.launcher.namespace, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes,
            **_placement(gpus, gpu_class),
        },
    }


def _resources(gpus: int) -> dict[str, dict[str, str]]:
    asked = {"cpu": "4", "memory": "16Gi"} if gpus == 0 else {"cpu": str(8 * gpus), "memory": f"{64 * gpus}Gi"}
    limits = {"memory": asked["memory"], **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {"requests": {**asked, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}, "limits": limits}


def _placement(gpus: int, gpu_class: str) -> dict[str, Any]:
    if gpus == 0:
        return {}
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    return {"nodeSelector": {_GPU_LABEL: gpu_class}, "tolerations": [taint]}
