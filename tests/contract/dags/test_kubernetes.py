"""With pods as the launcher, the same declaration becomes the same graph, whose stages train in pods."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from common.pipelines import Preset, load_pipeline
from infra.launch import SEVERAL_GPUS, pod_spec


@pytest.fixture
def cluster(bag: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The builder as a cluster has it; `bag` keeps Airflow's own imports off the real home."""
    from dags import builder

    pods = {"kind": "kubernetes", "image": "registry.example/plumbline:1", "namespace": "plumbline", "gpu_slots": 8}
    launcher = builder.PROFILE.launcher.model_copy(update=pods)
    cluster = builder.PROFILE.model_copy(update={"launcher": launcher, "training_preset": "bench"})
    monkeypatch.setattr(builder, "PROFILE", cluster)
    return builder


def train(builder: Any, preset: Preset) -> Any:
    """The training DAG as the builder's profile has it under a preset."""
    builder.PROFILE = builder.PROFILE.model_copy(update={"training_preset": preset})
    return builder.training_dag(load_pipeline("generative_rec", preset))


@pytest.fixture
def dag(cluster: Any) -> Any:
    """The training DAG as a cluster builds it."""
    return train(cluster, "bench")


@pytest.mark.parametrize("preset", get_args(Preset))
def test_a_cluster_has_the_graph_of_one_machine(cluster: Any, monkeypatch: pytest.MonkeyPatch, preset: Preset) -> None:
    pods = train(cluster, preset)
    launcher = cluster.PROFILE.launcher.model_copy(update={"kind": "local"})
    monkeypatch.setattr(cluster, "PROFILE", cluster.PROFILE.model_copy(update={"launcher": launcher}))
    processes = train(cluster, preset)
    limits = ("retries", "retry_delay", "execution_timeout", "upstream_task_ids")
    assert [[task.task_id, *(getattr(task, name) for name in limits)] for task in pods.tasks] == [
        [task.task_id, *(getattr(task, name) for name in limits)] for task in processes.tasks
    ]
    assert len(pods.tasks) <= 25, "more than a page of Airflow shows at a glance"


def test_a_stage_is_prepared_and_finished_by_the_worker(dag: Any) -> None:
    task = dag.get_task("sft")
    assert task.prepare[:5] == ["-m", "dags.steps.run_stage", "prepare", "--stage", "sft"]
    assert task.finish[:5] == ["-m", "dags.steps.run_stage", "finish", "--stage", "sft"]
    assert task.prepare[5:] == task.finish[5:]
    assert {"prepare", "finish"} <= set(task.template_fields)


def test_a_job_is_such_a_task_too(cluster: Any) -> None:
    pipeline = load_pipeline("generative_rec", "bench")
    (task,) = cluster.job_dag(pipeline, pipeline.job("nightly_recommend")).tasks
    step = ["-m", "dags.steps.run_stage", "finish", "--job", "nightly_recommend"]
    assert (task.task_id, task.finish[:5]) == ("recommend", step)
    assert [asset.name for asset in task.outlets] == ["recommendations"]
    assert command(task.pod_of("/s/spec.json"))[-3:] == ["generative_rec.recommend", "--spec", "/s/spec.json"]


def command(template: dict[str, Any]) -> list[str]:
    """The command line of a pod."""
    return list(template["spec"]["containers"][0]["command"])


def test_a_gpu_stage_waits_deferred_and_holds_its_slots_of_the_gpu_pool(dag: Any) -> None:
    pod = dag.get_task("sft")
    assert (pod.deferrable, pod.reattach_on_restart, pod.pool, pod.pool_slots) == (True, True, "gpu", 1)
    assert (pod.retries, pod.execution_timeout.total_seconds()) == (10, 120 * 60)


def test_production_trains_the_language_model_on_several_gpus_and_decodes_on_one(cluster: Any) -> None:
    stages = {task.task_id: task for task in train(cluster, "production").tasks}
    for name, gpus in {"sft": 4, "sp_easy": 4, "rf_hard": 4, "collaborative": 1, "evaluate": 1}.items():
        pod = stages[name].pod_of("/s/spec.json")
        assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == str(gpus)
        assert (f"--num_processes {gpus}" in " ".join(command(pod))) == (gpus > 1)
        assert stages[name].pool_slots == gpus
        assert (SEVERAL_GPUS in command(pod)) == (gpus > 1)
    assert stages["evaluate"].pod_of("/s/spec.json")["spec"]["nodeSelector"] == {"plumbline/gpu-class": "large"}


def test_a_stage_asks_for_no_more_slots_than_its_pool_has(cluster: Any) -> None:
    launcher = cluster.PROFILE.launcher.model_copy(update={"gpu_slots": 2})
    cluster.PROFILE = cluster.PROFILE.model_copy(update={"launcher": launcher})
    assert train(cluster, "production").get_task("sft").pool_slots == 2


def test_a_stage_without_a_gpu_takes_no_slot_of_the_gpu_pool(dag: Any) -> None:
    assert dag.get_task("semantic_ids").pool == "default_pool"


def test_the_pod_is_the_launchers(dag: Any) -> None:
    from dags.builder import PROFILE

    expected = pod_spec("generative_rec.sft", "/s/spec.json", PROFILE, gpus=1, gpu_class="large")
    assert dag.get_task("sft").pod_of("/s/spec.json") == expected


def test_the_task_keeps_the_launchers_restrictions_when_airflow_builds_the_pod(dag: Any) -> None:
    """Airflow lays its own defaults over the template; none of them may lift a restriction."""
    task = dag.get_task("sft")
    task.pod_template_dict = task.pod_of("/s/spec.json")
    spec = task.build_pod_request_obj(dry_run=True).spec
    assert spec.automount_service_account_token is False
    assert spec.security_context.run_as_non_root is True
    assert spec.containers[0].security_context.read_only_root_filesystem is True
    assert spec.containers[0].command[-2:] == ["--spec", "/s/spec.json"]
    assert len(spec.containers) == 1


class Kubernetes:
    """An API server with at most one pod, which ends in the phase that the test says."""

    def __init__(self) -> None:
        self.pod: Any = None
        self.is_in_cluster = False

    def create(self, pod: Any) -> Any:
        """As `PodManager.create_pod`."""
        from kubernetes.client import models as k8s

        pod.status = k8s.V1PodStatus(phase="Pending")
        self.pod = pod
        return pod

    def end(self, phase: str, code: int = 1, reason: str = "Error") -> dict[str, Any]:
        """The pod ends; returns the trigger's event."""
        from kubernetes.client import models as k8s

        code = 0 if phase == "Succeeded" else code
        ended = k8s.V1ContainerState(terminated=k8s.V1ContainerStateTerminated(exit_code=code, reason=reason))
        facts = {"image": "i", "image_id": "i", "ready": False, "restart_count": 0}
        status = k8s.V1ContainerStatus(name="base", state=ended, **facts)
        self.pod.status = k8s.V1PodStatus(phase=phase, container_statuses=[status])
        outcome = "success" if phase == "Succeeded" else "failed"
        names = {"name": self.pod.metadata.name, "namespace": self.pod.metadata.namespace}
        return {"status": outcome, "message": f"pod {phase}", **names}

    def get_pod(self, name: str, namespace: str) -> Any:
        """As the hook's: the pod of that name."""
        assert (name, namespace) == (self.pod.metadata.name, self.pod.metadata.namespace)
        return self.pod


class Stage:
    """One stage in a pod, with commands that write down that they ran, and Airflow's side of a task made by hand."""

    def __init__(self, folder: Path, builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from dags.pods import StagePod

        self.folder, self.said, self.cluster, self.xcom = folder, folder / "said", Kubernetes(), dict[str, Any]()
        spec = str(folder / "spec.json")
        prepare = ("-c", f"{self._say('prepare')}; from infra.results import hand_on; hand_on({{'spec': {spec!r}}})")
        (folder / "code").write_text("0")
        finish = ("-c", f"{self._say('finish')}; raise SystemExit(int(open({str(folder / 'code')!r}).read()))")
        pod = partial(pod_spec, "a.b", profile=builder.PROFILE, gpus=1, gpu_class="small")
        asset = builder.asset("recommendations")
        self.event = SimpleNamespace(extra=None)
        self.run = {"partition_key": "2018-01-05", "params": {"from": "2018-01-01"}, "triggering_asset_events": {}}
        self.run["outlet_events"] = {asset: self.event}
        self.task = StagePod(task_id="b", prepare=prepare, finish=finish, pod=pod, outlets=[asset], get_logs=False)
        same = {"read_pod": lambda pod: pod, "await_pod_completion": lambda pod, *_: pod}
        manager = SimpleNamespace(create_pod=self.cluster.create, **same)
        monkeypatch.setattr(StagePod, "hook", self.cluster)
        monkeypatch.setattr(StagePod, "client", None)
        monkeypatch.setattr(StagePod, "pod_manager", manager)
        for name in ("find_pod", "process_pod_deletion", "patch_already_checked", "_read_pod_events"):
            monkeypatch.setattr(StagePod, name, lambda *_, **__: None)

    def _say(self, word: str) -> str:
        return f"print({word!r}, file=open({str(self.said)!r}, 'a'))"

    @property
    def context(self) -> dict[str, Any]:
        """What Airflow gives a task; the same XComs on both sides of the wait."""
        ti = SimpleNamespace(dag_id="d", task_id="b", map_index=-1, try_number=1, start_date=None)
        ti.xcom_push = lambda key, value: self.xcom.__setitem__(key, value)
        ti.xcom_pull = lambda key: self.xcom[key]
        return {"ti": ti, "run_id": "r", "dag": SimpleNamespace(), **self.run}

    def start(self) -> None:
        """Up to the wait."""
        from airflow.sdk.exceptions import TaskDeferred

        with pytest.raises(TaskDeferred):
            self.task.execute(self.context)

    def end(self, phase: str, *how: Any) -> None:
        """From the wait on."""
        self.task.trigger_reentry(self.context, self.cluster.end(phase, *how))


@pytest.fixture
def stage(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, cluster, monkeypatch)


def test_a_stage_prepares_trains_what_it_prepared_and_finishes(stage: Stage) -> None:
    stage.start()
    assert stage.said.read_text().split() == ["prepare"]
    assert stage.cluster.pod.spec.containers[0].command[-1] == str(stage.folder / "spec.json")
    assert stage.event.extra is None, "what is said before the wait is lost"
    stage.end("Succeeded")
    assert stage.said.read_text().split() == ["prepare", "finish"]
    assert stage.event.extra == {"from": "2018-01-01", "to": "2018-01-05"}


@pytest.mark.parametrize(("code", "again"), [("65", False), ("70", False), ("75", True), (None, True)])
def test_a_pod_is_tried_again_only_if_its_stage_says_so_or_can_say_nothing(
    stage: Stage, code: str | None, again: bool
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    stage.start()
    if code is not None:
        (stage.folder / "exit_code").write_text(code)
    with pytest.raises(AirflowException) as caught:
        stage.end("Failed")
    assert isinstance(caught.value, AirflowFailException) is not again
    assert stage.said.read_text().split() == ["prepare"], "a stage that failed was finished"


@pytest.mark.parametrize("ended", [(137, "Error"), (137, "OOMKilled"), (1, "OOMKilled")])
@pytest.mark.parametrize("left", [None, "70"])
def test_a_pod_that_was_killed_is_tried_again_and_its_limit_is_told(
    stage: Stage, ended: tuple[int, str], left: str | None
) -> None:
    """Of several processes, those that were left may have said that they lost the one."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    stage.start()
    if left is not None:
        (stage.folder / "exit_code").write_text(left)
    with pytest.raises(AirflowException, match=r"most likely out of memory; the limit of its pod is 64Gi") as caught:
        stage.end("Failed", *ended)
    assert not isinstance(caught.value, AirflowFailException)
    assert "(exit code 75)" in str(caught.value)


@pytest.mark.parametrize(("code", "again"), [("65", False), ("75", True)])
def test_a_finish_that_fails_fails_the_task_as_any_command_does(stage: Stage, code: str, again: bool) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    stage.start()
    (stage.folder / "code").write_text(code)
    with pytest.raises(AirflowException) as caught:
        stage.end("Succeeded")
    assert isinstance(caught.value, AirflowFailException) is not again
