"""Airflow's environment: loopback only, secrets in files of their owner."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from infra.airflow_env import airflow_environment, base_url, commands, lanes, password, pools, prepare
from infra.profile import Profile, load_profile


def test_everything_listens_on_loopback(profile: Profile) -> None:
    environment = airflow_environment(profile)
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert base_url(profile) == environment["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8080"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].startswith("http://127.0.0.1:8080/")


def test_log_servers_which_cannot_be_bound_to_loopback_are_off() -> None:
    assert all("--skip-serve-logs" in commands()[name] for name in ("scheduler", "triggerer"))


def test_secrets_are_readable_by_their_owner_alone(profile: Profile) -> None:
    prepare(profile)
    files = list((profile.airflow.home / "secrets").iterdir())
    assert {path.name for path in files} == {"fernet_key", "jwt_secret", "secret_key", "passwords.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_secrets_are_made_once_and_differ_between_installations(profile: Profile, tmp_path: Path) -> None:
    other = load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path / "other")})
    prepare(profile)
    first = password(profile)
    prepare(profile)
    prepare(other)
    assert password(profile) == first != password(other)
    assert len(first) >= 24


def test_no_secret_is_in_the_environment_and_every_command_prints_one(profile: Profile) -> None:
    prepare(profile)
    environment = airflow_environment(profile)
    secret = {path.read_text() for path in (profile.airflow.home / "secrets").iterdir()}
    assert not secret & set(environment.values())
    printed = {
        subprocess.run(shlex.split(value), capture_output=True, text=True, check=True).stdout
        for name, value in environment.items()
        if name.endswith("_CMD")
    }
    assert printed | {json.dumps({"admin": password(profile)})} == secret


def test_a_home_with_spaces_works(tmp_path: Path) -> None:
    profile = load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path / "my shop's home")})
    prepare(profile)
    command = airflow_environment(profile)["AIRFLOW__CORE__FERNET_KEY_CMD"]
    assert len(subprocess.run(shlex.split(command), capture_output=True, check=True).stdout) == 44


def test_tasks_find_the_profile_that_airflow_was_started_with(profile: Profile) -> None:
    ports = profile.ports.model_copy(update={"airflow": 18999})
    airflow = profile.airflow.model_copy(update={"approve_by_flag": True})
    changed = profile.model_copy(update={"ports": ports, "airflow": airflow})
    found = load_profile(environ=airflow_environment(changed))
    assert (found.home, found.ports.airflow, found.airflow.approve_by_flag) == (profile.home, 18999, True)


def test_the_gpu_pool_counts_deferred_tasks(profile: Profile) -> None:
    by_name = {pool["name"]: pool for pool in pools(profile)}
    assert by_name["heavy"]["slots"] == lanes()
    assert by_name["gpu"]["include_deferred"] is True


@pytest.mark.parametrize(("cores", "gib", "expected"), [(2, 24, 2), (2, 12, 1), (1, 64, 1), (8, 32, 4), (2, 4, 1)])
def test_heavy_tasks_share_a_machine_as_far_as_cores_and_memory_go(cores: int, gib: int, expected: int) -> None:
    assert lanes(cores, gib * 2**30) == expected
