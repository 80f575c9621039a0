"""`make up` and `make down`: Airflow, MLflow, Feast's server and the report site, all on loopback."""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from common.folders import make_folder
from infra import airflow_env, processes, warm
from infra.airflow_client import AirflowApiError, AirflowClient
from infra.errors import exit_with_reason
from infra.launch import build_environment
from infra.processes import Service, ServiceFailed
from infra.profile import Profile, load_profile
from infra.systems import declared_systems
from infra.telemetry import TELEMETRY_OFF

_START_SECONDS = 180


def start_airflow(profile: Profile, logs: Path) -> list[Service]:
    """Prepare, migrate and start Airflow's processes; returns when scheduler and DAG files are ready.

    Raises:
        ServiceFailed: the profile is not of one machine, a process ended, a DAG file does not parse, or nothing was
            ready in time.
        DataError: the declaration of a system cannot be used, or the profile names one that there is not.
    """
    if profile.launcher.kind != "local":
        raise ServiceFailed(
            f"The profile {profile.name!r} is not run from here.",
            why="Its Airflow and MLflow are installations of their own; `make up` and `make demo` are for one machine.",
            do="PLUMBLINE_PROFILE=local, or see infra/deploy/README.md.",
        )
    if faults := declared_systems(profile)[1]:
        raise faults[0]
    airflow_env.prepare(profile)
    environment = {**TELEMETRY_OFF, **airflow_env.airflow_environment(profile)}
    services: list[Service] = []
    try:
        if profile.airflow.warm_starts:
            environment[warm.FOLDER] = str(profile.home / "run" / "warm")
            services += _warm_parents(environment, logs)
        _migrate(environment, logs)
        for name, argv in airflow_env.commands().items():
            services.append(processes.start(name, argv, environment, logs))
        client = AirflowClient.of(profile)
        began = datetime.now(UTC)
        wait_until(lambda: _ready(client, began), services, "Airflow")
        client.ensure_pools(airflow_env.pools(profile))
    except BaseException:
        processes.stop([service.pid for service in services])
        raise
    return services


def _warm_parents(environment: dict[str, str], logs: Path) -> list[Service]:
    """They import while Airflow starts. Nobody waits for them: what begins before they are ready starts cold."""
    settings = {"steps": {**TELEMETRY_OFF, "PYTHONUNBUFFERED": "1"}, "training": build_environment()}
    parents = [
        processes.start(
            f"warm-{kind}",
            processes.python("infra.warm", kind, environment[warm.FOLDER]),
            {**environment, **own},
            logs,
        )
        for kind, own in settings.items()
    ]
    return [replace(parent, needed=False) for parent in parents]


def _migrate(environment: dict[str, str], logs: Path) -> None:
    make_folder(logs)
    log = logs / "migrate.log"
    with log.open("ab") as output:
        done = subprocess.run(
            airflow_env.migrate_command(),
            env={**processes.inherited(), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise ServiceFailed(
            "Airflow's database could not be made.", where=str(log), do="Read the log; `make clean` helps."
        )


def _ready(client: AirflowClient, began: datetime) -> bool:
    """Whether Airflow is up and has read every DAG file: one that it has not would miss the event that it waits for.

    What it knew of them at an earlier start stands in its database, and counts for nothing.
    """
    try:
        health = client.health()
        states = [health[part]["status"] for part in ("metadatabase", "scheduler", "dag_processor", "triggerer")]
        if states != ["healthy"] * 4:
            return False
        errors = [error for error in client.import_errors() if _since(began, error["timestamp"])]
        read = {Path(dag["fileloc"]).name for dag in client.dags() if _since(began, dag["last_parsed_time"])}
    except AirflowApiError:
        return False
    if not errors:
        return {path.name for path in airflow_env.dag_files()} - {airflow_env.NO_DAG} <= read
    lines = errors[0]["stack_trace"].splitlines()
    last_of_code = max((n for n, line in enumerate(lines) if line.startswith("    ")), default=-1)
    raise ServiceFailed(
        "A DAG file does not parse.",
        where=errors[0]["filename"],
        why="\n".join(lines[last_of_code + 1 :]),
        do="Mend it; the whole trace is in airflow/logs/dag_processor of the state folder.",
    )


def _since(began: datetime, moment: str | None) -> bool:
    return moment is not None and datetime.fromisoformat(moment) >= began


def wait_until(ready: Callable[[], bool], services: Iterable[Service], what: str) -> None:
    """Poll `ready` until it is true; ServiceFailed when a service ends or it takes too long."""
    watched = list(services)
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        processes.check_alive(watched)
        if time.monotonic() > deadline:
            raise ServiceFailed(f"{what} was not ready after {_START_SECONDS} s.", where=str(watched[0].log.parent))
        time.sleep(0.5)


def _commands(profile: Profile) -> dict[str, tuple[list[str], str]]:
    """Beside Airflow: name to (command, address that answers when it is up)."""
    ports, python = profile.ports, processes.python
    site = ["--bind", airflow_env.HOST, "--directory", str(profile.home / "report"), str(ports.report)]
    return {
        "mlflow": (python("registry", "serve"), f"http://{airflow_env.HOST}:{ports.mlflow}/health"),
        "feast": (python("feature_store", "serve"), f"http://{airflow_env.HOST}:{ports.feast}/health"),
        "report": (python("http.server", *site), f"http://{airflow_env.HOST}:{ports.report}/"),
    }


def up(profile: Profile) -> int:
    """Start everything, print where it is, and return; `down` stops it."""
    with alone(profile):
        _check_ports(profile)
        _start_all(profile)
    _tell(profile)
    return 0


def _start_all(profile: Profile) -> None:
    logs = _state(profile).parent
    make_folder(profile.home / "report")
    services = start_airflow(profile, logs)
    try:
        for name, (argv, url) in _commands(profile).items():
            services.append(processes.start(name, argv, TELEMETRY_OFF, logs))
            wait_until(lambda url=url: _answers(url), services, name)  # type: ignore[misc]
    except BaseException:
        processes.stop([service.pid for service in services])
        raise
    _state(profile).write_text(json.dumps({service.name: [service.pid, service.born] for service in services}))


@contextmanager
def alone(profile: Profile) -> Iterator[None]:
    """Nothing else starts on this state meanwhile: of two schedulers on one database both would run every task.

    Raises:
        ServiceFailed: `up` has started services on it, or another start or demo is at work.
    """
    folder = _state(profile).parent
    make_folder(folder)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(profile, "Another `make demo` or `make up` is at work on it.", "Wait for it") from error
        if _running(profile):
            raise _taken(profile, "`make up` has started Airflow on it.", "`make down` first")
        yield


def _taken(profile: Profile, why: str, do: str) -> ServiceFailed:
    do = f"{do}, or name another state folder: PLUMBLINE__HOME=/path."
    return ServiceFailed("The state folder is in use.", where=str(profile.home), why=why, do=do)


def _check_ports(profile: Profile) -> None:
    for name, port in profile.ports.model_dump().items():
        if processes.free_port(port) != port:
            raise ServiceFailed(
                f"Port {port} ({name}) is taken.", do=f"Free it, or set PLUMBLINE__PORTS__{name.upper()} to another."
            )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (our own loopback addresses)
            return True
    except OSError:
        return False


def _tell(profile: Profile) -> None:
    host, ports = airflow_env.HOST, profile.ports
    lines = [
        f"Airflow   http://{host}:{ports.airflow}   user {airflow_env.USER}, {_password(profile)}",
        f"MLflow    http://{host}:{ports.mlflow}   at its top left choose: Model training",
        f"Feast     http://{host}:{ports.feast}   hints in the search box: /hints",
        f"Report    http://{host}:{ports.report}   {_report_state(profile)}".rstrip(),
        "Loopback only. `make down` stops all of it.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _report_state(profile: Profile) -> str:
    made = (profile.home / "report" / "index.html").is_file()
    return "" if made else "(none yet: the DAG quality_report makes it, or `make report`)"


def _password(profile: Profile) -> str:
    """The generated password, the first time that a person is told of it; afterwards where it is kept."""
    told = profile.airflow.home / "secrets" / "told"
    if told.exists():
        return f"password in {told.with_name('passwords.json')} (yours alone to read)"
    told.touch(mode=0o600)
    return f"password {airflow_env.password(profile)} (shown once)"


def down(profile: Profile) -> int:
    """Stop what `up` started; fine when nothing runs."""
    running = _running(profile)
    processes.stop([service.pid for service in running])
    _state(profile).unlink(missing_ok=True)
    sys.stdout.write(f"stopped: {', '.join(service.name for service in running) or 'nothing was running'}\n")
    return 0


def _state(profile: Profile) -> Path:
    return profile.home / "run" / "services.json"


def _running(profile: Profile) -> list[Service]:
    if not _state(profile).is_file():
        return []
    recorded = json.loads(_state(profile).read_text()).items()
    services = [Service(name, pid, born, _state(profile)) for name, (pid, born) in recorded]
    return [service for service in services if service.alive()]


def main() -> int:
    """`up` or `down`."""
    parser = argparse.ArgumentParser(prog="python -m infra.services", description=__doc__)
    parser.add_argument("action", choices=("up", "down"))
    actions = {"up": up, "down": down}
    return actions[parser.parse_args().action](load_profile())


if __name__ == "__main__":
    exit_with_reason(main)
