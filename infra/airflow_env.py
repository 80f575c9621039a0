"""Airflow on this machine: the environment of its processes, its secrets, its pools. Nothing here starts a process.

Everything listens on loopback. The log servers of the scheduler and the triggerer cannot be bound to an address, so
they are off (`--skip-serve-logs`): the API server reads the log files itself. Secrets are made once, are readable by
their owner alone, and reach Airflow through files, never through the environment.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import TypedDict

import psutil

from common.folders import make_folder
from infra.profile import CHECKOUT, Profile

HOST = "127.0.0.1"
USER = "admin"
HEAVY_POOL = "heavy"
FIRST_DAG = "ingest"
NO_DAG = "declarations.py"
"""The one DAG file that makes none."""
DAILY_CHAIN = "daily chain"
"""The tag of the DAGs that a new day of data sets off, one by the other, from `FIRST_DAG` on; the demo follows them."""
NEARLINE = "nearline"
"""The tag of the jobs that run every so many minutes."""
# What the largest stage of a large shop holds (docs/LOG.md), with room for the services beside it.
_LANE_BYTES = 8 * 2**30
_SECRETS = {"fernet_key": ("CORE", 32), "jwt_secret": ("API_AUTH", 64), "secret_key": ("API", 64)}


class Pool(TypedDict):
    """One Airflow pool, in the words of its REST API."""

    name: str
    slots: int
    description: str
    include_deferred: bool


def airflow_environment(profile: Profile) -> dict[str, str]:
    """The variables that every Airflow process of this profile needs, on top of the caller's own environment."""
    home, url = profile.airflow.home, base_url(profile)
    settings = {
        "CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAG_DISCOVERY_SAFE_MODE": "False",  # our DAG files never say "airflow", which the safe mode looks for
        "CORE__DAGBAG_IMPORT_ERROR_TRACEBACKS": "False",  # people read the sentence; the log has the trace
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:ADMIN",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_password_file(profile)),
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "API__HOST": HOST,
        "API__PORT": str(profile.ports.airflow),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "API__EXPOSE_CONFIG": "False",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    for name, (section, _) in _SECRETS.items():
        settings[f"{section}__{name.upper()}_CMD"] = shlex.join(["cat", str(_secret_file(profile, name))])
    variables = {f"AIRFLOW__{key}": value for key, value in settings.items()}
    return {"AIRFLOW_HOME": str(home), **variables, **_plumbline_overrides(profile)}


def _plumbline_overrides(profile: Profile) -> dict[str, str]:
    """Tasks load the profile by themselves: they must find the same one, whatever made it differ from the file."""
    return {
        "PLUMBLINE_PROFILE": profile.name,
        "PLUMBLINE__HOME": str(profile.home),
        "PLUMBLINE__LANDING": str(profile.landing),
        "PLUMBLINE__LANDING_ORIGIN": profile.landing_origin,
        "PLUMBLINE__SAMPLES__VALID_FROM": str(profile.samples.valid_from),
        "PLUMBLINE__SAMPLES__TEST_FROM": str(profile.samples.test_from),
        "PLUMBLINE__SYSTEMS": json.dumps(profile.systems),
        "PLUMBLINE__PORTS__AIRFLOW": str(profile.ports.airflow),
        "PLUMBLINE__AIRFLOW__APPROVE_BY_FLAG": str(profile.airflow.approve_by_flag).lower(),
        "PLUMBLINE__AIRFLOW__FOLLOW_CLOCK": str(profile.airflow.follow_clock).lower(),
    }


def dag_files() -> list[Path]:
    """The files of the checkout that Airflow parses."""
    folder = CHECKOUT / "dags"
    ignored = (folder / ".airflowignore").read_text().split()
    return sorted(path for path in folder.glob("*.py") if path.name not in ignored)


def prepare(profile: Profile) -> None:
    """Make Airflow's home, its secrets and the password of `admin`, each only if it is not there."""
    make_folder(profile.airflow.home)
    (profile.airflow.home / "secrets").mkdir(parents=True, exist_ok=True, mode=0o700)
    fernet = base64.urlsafe_b64encode(os.urandom(_SECRETS["fernet_key"][1])).decode()
    _write_once(_secret_file(profile, "fernet_key"), fernet)
    for name in ("jwt_secret", "secret_key"):
        _write_once(_secret_file(profile, name), secrets.token_urlsafe(_SECRETS[name][1]))
    _write_once(_password_file(profile), json.dumps({USER: secrets.token_urlsafe(18)}))


def commands() -> dict[str, list[str]]:
    """The long-running processes by name; `airflow db migrate` comes first (see `migrate_command`)."""
    airflow = [sys.executable, "-m", "airflow"]
    return {
        "api-server": [*airflow, "api-server"],
        "scheduler": [*airflow, "scheduler", "--skip-serve-logs"],
        "dag-processor": [*airflow, "dag-processor"],
        "triggerer": [*airflow, "triggerer", "--skip-serve-logs"],
    }


def migrate_command() -> list[str]:
    """The command that makes or upgrades Airflow's database."""
    return [sys.executable, "-m", "airflow", "db", "migrate"]


def pools(profile: Profile) -> list[Pool]:
    """The pools that the DAGs name. Deferred pods count: they hold a GPU while no worker waits for them."""
    return [
        Pool(
            name=HEAVY_POOL,
            slots=lanes(),
            description="Spark and local training: as many side by side as cores and memory allow",
            include_deferred=True,
        ),
        Pool(
            name=profile.launcher.gpu_pool,
            slots=profile.launcher.gpu_slots,
            description="One slot per GPU",
            include_deferred=True,
        ),
    ]


def lanes(cores: int | None = None, memory: int | None = None) -> int:
    """How many heavy tasks run side by side on this machine: one for each core, each with `_LANE_BYTES` of memory."""
    cores = cores or os.cpu_count() or 1
    memory = psutil.virtual_memory().total if memory is None else memory
    return max(1, min(cores, memory // _LANE_BYTES))


def base_url(profile: Profile) -> str:
    """Where the API server of this profile listens."""
    return f"http://{HOST}:{profile.ports.airflow}"


def password(profile: Profile) -> str:
    """The generated password of `admin`. Raises FileNotFoundError before `prepare`."""
    return str(json.loads(_password_file(profile).read_text())[USER])


def _secret_file(profile: Profile, name: str) -> Path:
    return profile.airflow.home / "secrets" / name


def _password_file(profile: Profile) -> Path:
    return _secret_file(profile, "passwords.json")


def _write_once(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
