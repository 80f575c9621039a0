"""The real Airflow, once for the tier: API server, scheduler and DAG processor over the DAGs of `dags/scratch.py`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra import airflow_env, processes
from infra.airflow_client import AirflowApiError, AirflowClient
from infra.processes import Service
from infra.profile import load_profile
from infra.services import wait_until

DAGS = Path(__file__).parent / "dags"


@dataclass(frozen=True)
class RunningAirflow:
    """A started Airflow: its client, the folder that its tasks write to, and what its alerts posted."""

    client: AirflowClient
    folder: Path
    alerts: list[dict[str, str]]
    services: list[Service]

    def until(self, ready: Callable[[], object], what: str) -> None:
        """Poll until `ready` is true."""
        wait_until(lambda: bool(ready()), self.services, what)

    def state(self, dag_id: str, run_id: str) -> str:
        """The state of a run."""
        return next(run["state"] for run in self.client.runs(dag_id) if run["dag_run_id"] == run_id)

    def finish(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run; returns its state."""
        self.until(lambda: self.state(dag_id, run_id) in ("success", "failed"), f"the end of {dag_id}")
        return self.state(dag_id, run_id)

    def scheduler_saw_the_end_of(self, task_id: str, run_id: str) -> bool:
        """Whether the scheduler's log has the event of the executor that this task's worker ended."""
        log = next(service.log for service in self.services if service.name == "scheduler").read_text()
        events = (line for line in log.splitlines() if "Received executor event with state success" in line)
        return any(f"task_id='{task_id}', run_id='{run_id}'" in line for line in events)


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook on loopback: its address, and what was posted to it."""
    bodies: list[dict[str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", bodies
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, webhook: tuple[str, list[dict[str, str]]]
) -> Iterator[RunningAirflow]:
    folder = tmp_path_factory.mktemp("airflow")
    home = {"PLUMBLINE__HOME": str(folder / "home"), "PLUMBLINE__PORTS__AIRFLOW": str(processes.free_port(0))}
    profile = load_profile("local", environ=home)
    environment = {
        **airflow_env.airflow_environment(profile),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "PLUMBLINE_TEST_FOLDER": str(folder),
        "PLUMBLINE__AIRFLOW__ALERT_WEBHOOK": webhook[0],
        "PLUMBLINE__AIRFLOW__FOLLOW_CLOCK": "false",  # as in the demo: only what a test triggers runs
    }
    airflow_env.prepare(profile)
    migrate = processes.start("migrate", airflow_env.migrate_command(), environment, folder / "logs")
    wait_until(lambda: not migrate.alive(), [], "the database")
    names = ("api-server", "scheduler", "dag-processor")
    argv = airflow_env.commands()
    services = [processes.start(name, argv[name], environment, folder / "logs") for name in names]
    try:
        client = AirflowClient.of(profile)
        wait_until(lambda: _ready(client), services, "Airflow")
        client.ensure_pools(airflow_env.pools(profile))
        yield RunningAirflow(client, folder, webhook[1], services)
    finally:
        processes.stop([service.pid for service in services])


def _ready(client: AirflowClient) -> bool:
    try:
        return client.health()["scheduler"]["status"] == "healthy" and len(client.dags()) == 6
    except AirflowApiError:
        return False
