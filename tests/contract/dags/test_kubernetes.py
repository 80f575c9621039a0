"""With pods as the launcher, the same declaration becomes groups of prepare, pod and finish."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dags.pipelines import load_pipeline
from infra.launch import pod_spec


@pytest.fixture
def cluster(bag: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The builder as a cluster has it."""
    from dags import builder

    pods = {"kind": "kubernetes", "image": "registry.example/plumbline:1", "namespace": "plumbline", "gpu_slots": 8}
    launcher = builder.PROFILE.launcher.model_copy(update=pods)
    cluster = builder.PROFILE.model_copy(update={"launcher": launcher, "training_preset": "bench"})
    monkeypatch.setattr(builder, "PROFILE", cluster)
    return builder


@pytest.fixture
def dag(cluster: Any) -> Any:
    """The training DAG as a cluster builds it."""
    facts = {"schedule": None, "outlet": cluster.CHALLENGER, "deadline_minutes": 240}
    return cluster.training_dag("notes", "generative_rec", **facts)


def test_every_stage_is_a_group_that_prepares_trains_and_finishes(dag: Any) -> None:
    stages = [stage.name for stage in load_pipeline("generative_rec", "bench").stages]
    steps = ("prepare", "train", "finish")
    assert set(dag.task_ids) == {*(f"{stage}.{step}" for stage in stages for step in steps), "register"}
    assert dag.get_task("sft.train").upstream_task_ids == {"sft.prepare"}
    for below, stage in pairwise(stages):
        assert dag.get_task(f"{stage}.prepare").upstream_task_ids == {f"{below}.finish"}


def test_the_nightly_stage_is_such_a_group_too(cluster: Any) -> None:
    facts = {"owner": "ml-engineering", "tags": ["registry"], "deadline_minutes": 60}
    with cluster.new_dag("twin", "notes", schedule=None, **facts) as dag:
        cluster.nightly_task("generative_rec")
    assert set(dag.task_ids) == {f"recommend.{step}" for step in ("prepare", "train", "finish")}
    assert dag.get_task("recommend.finish").arguments[:3] == ["-m", "dags.steps.recommend", "finish"]
    command = dag.get_task("recommend.train").pod_template_dict["spec"]["containers"][0]["command"]
    assert command[-3:-1] == ["generative_rec.recommend", "--spec"]


def test_a_gpu_stage_waits_deferred_and_holds_its_slots_of_the_gpu_pool(dag: Any) -> None:
    pod = dag.get_task("sft.train")
    assert (pod.deferrable, pod.reattach_on_restart, pod.pool, pod.pool_slots) == (True, True, "gpu", 1)
    assert (pod.retries, pod.execution_timeout.total_seconds()) == (10, 120 * 60)


def test_a_stage_without_a_gpu_takes_no_slot_of_the_gpu_pool(dag: Any) -> None:
    assert dag.get_task("semantic_ids.train").pool == "default_pool"


def test_the_pod_is_the_launchers_with_the_spec_that_prepare_wrote(dag: Any) -> None:
    from dags.builder import PROFILE

    path = "{{ ti.xcom_pull(task_ids='sft.prepare')['spec'] }}"
    expected = pod_spec("generative_rec.sft", path, PROFILE, gpus=1, gpu_class="large")
    assert dag.get_task("sft.train").pod_template_dict == expected


def test_the_group_keeps_the_launchers_restrictions_when_airflow_builds_the_pod(dag: Any) -> None:
    """Airflow lays its own defaults over the template; none of them may lift a restriction."""
    task = dag.get_task("sft.train")
    spec = task.build_pod_request_obj(dry_run=True).spec
    assert spec.automount_service_account_token is False
    assert spec.security_context.run_as_non_root is True
    assert spec.containers[0].security_context.read_only_root_filesystem is True
    assert spec.containers[0].command[-2] == "--spec"
    assert len(spec.containers) == 1


@pytest.mark.parametrize(("code", "action"), [("65", "fail"), ("70", "fail"), ("75", "default"), (None, "default")])
def test_a_pod_is_tried_again_only_if_its_stage_says_so_or_can_say_nothing(
    dag: Any, tmp_path: Path, code: str | None, action: str
) -> None:
    from dags.builder import PROFILE

    template = pod_spec("a.b", str(tmp_path / "spec.json"), PROFILE, gpus=1, gpu_class="small")
    if code is not None:
        (tmp_path / "exit_code").write_text(code)
    context = {"task": SimpleNamespace(pod_template_dict=template)}
    policy = dag.get_task("sft.train").retry_policy
    assert policy.evaluate(RuntimeError("pod failed"), 1, 10, context).action.value == action
