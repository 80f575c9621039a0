"""What a cluster is given agrees with the profile, the launcher and the locked environment; nothing here runs one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.airflow_env import airflow_environment
from infra.launch import STATE_CLAIM, pod_spec
from infra.profile import CHECKOUT, Profile, load_profile

DEPLOY = CHECKOUT / "infra" / "deploy"
SETUP = (CHECKOUT / "scripts" / "setup.sh").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
IN_THE_IMAGE = {"PLUMBLINE_CODE_COMMIT"}


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture
def settings() -> dict[str, str]:
    """The keys of the Secret, with values that parse."""
    (secret,) = _documents("settings.yaml")
    return {name: "sqlite:///x.db" if name.endswith("_URI") else "x" for name in secret["stringData"]}


@pytest.fixture
def cluster(settings: dict[str, str]) -> Profile:
    return load_profile("cluster", {**settings, **dict.fromkeys(IN_THE_IMAGE, "abc")})


def test_the_secret_names_exactly_what_the_profile_takes_from_the_environment(settings: dict[str, str]) -> None:
    text = (CHECKOUT / "infra" / "profiles" / "cluster.yaml").read_text()
    assert set(re.findall(r"\$\{env:(\w+)\}", text)) == set(settings) | IN_THE_IMAGE
    assert all(f"{name}=" in DOCKERFILE for name in IN_THE_IMAGE)


def test_the_set_up_and_the_read_me_name_one_size() -> None:
    (told,) = re.findall(r"minutes, ([\d.]+ GB)\)\"", SETUP)
    assert f"{told})" in (CHECKOUT / "README.md").read_text()


def test_the_secret_that_is_committed_holds_no_value() -> None:
    (secret,) = _documents("settings.yaml")
    assert set(secret["stringData"].values()) == {""}


def test_the_volume_is_the_one_that_pods_mount_where_the_profile_keeps_its_state(cluster: Profile) -> None:
    namespace, claim = _documents("state.yaml")
    (values,) = _documents("airflow-values.yaml")
    assert namespace["metadata"]["name"] == claim["metadata"]["namespace"] == cluster.launcher.namespace
    assert claim["metadata"]["name"] == STATE_CLAIM
    assert values["volumes"] == [{"name": "state", "persistentVolumeClaim": {"claimName": STATE_CLAIM}}]
    assert values["volumeMounts"] == [{"name": "state", "mountPath": str(cluster.home)}]


def test_the_image_runs_as_the_user_of_the_pods(cluster: Profile) -> None:
    pod = pod_spec("a.b", "/spec.json", cluster, gpus=1, gpu_class="small")
    user = pod["spec"]["securityContext"]["runAsUser"]
    (values,) = _documents("airflow-values.yaml")
    assert f"USER {user}:{user}" in DOCKERFILE
    assert (values["uid"], values["gid"]) == (user, user)


def test_the_chart_finds_our_dags_as_the_local_airflow_does(cluster: Profile) -> None:
    (values,) = _documents("airflow-values.yaml")
    given = {entry["name"]: entry["value"] for entry in values["env"]}
    local = airflow_environment(load_profile("local", {}))
    same = set(given) - {"AIRFLOW__CORE__DAGS_FOLDER"}
    assert {name: given[name] for name in same} == {name: local[name] for name in same}
    assert given["AIRFLOW__CORE__DAGS_FOLDER"] == f"{_workdir()}/{Path(local['AIRFLOW__CORE__DAGS_FOLDER']).name}"
    assert given["AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE"] == "False"


def test_versions_are_those_of_the_lock_and_of_the_set_up() -> None:
    (values,) = _documents("airflow-values.yaml")
    assert f'"apache-airflow=={values["airflowVersion"]}"' in (CHECKOUT / "pyproject.toml").read_text()
    (torch,) = re.findall(r"^torch_version=(.+)$", SETUP, re.MULTILINE)
    assert f"torch=={torch};" in DOCKERFILE


def _workdir() -> str:
    return re.findall(r"^WORKDIR (.+)$", DOCKERFILE, re.MULTILINE)[0]
