"""The client of the API server, against a server on loopback that answers as Airflow does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from infra.airflow_client import AirflowApiError, AirflowClient
from infra.airflow_env import Pool
from infra.profile import load_profile

ASSETS = [{"name": "toy_decision", "id": 7}, {"name": "toy_decision_old", "id": 8}]


class Server(HTTPServer):
    """Remembers the calls; `tokens` are the logins it will accept a call from."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[tuple[str, str, Any]] = []
        self.logins = 0
        self.expired: set[str] = set()
        self.locked = 0
        self.runs = [{"dag_run_id": f"r{n}"} for n in range(250)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    do_PATCH = do_POST

    def _serve(self, body: Any) -> None:
        url = urlparse(self.path)
        self.server.calls.append((self.command, self.path, body))
        if url.path == "/auth/token":
            self.server.logins += 1
            return self._answer(201, {"access_token": f"token-{self.server.logins}"})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token or token in self.server.expired:
            return self._answer(401, {"detail": "Invalid token"})
        if self.server.locked:
            self.server.locked -= 1
            return self._answer(500, {"detail": {"reason": "Database error", "orig_error": "hidden"}})
        if self.command != "GET":
            return self._answer(200, {"dag_run_id": "new"})
        if url.path == "/api/v2/dags/gone/dagRuns":
            return self._answer(404, {"detail": "The Dag with ID gone was not found"})
        query = {key: int(value[0]) for key, value in parse_qs(url.query).items() if key in ("limit", "offset")}
        page = self.server.runs[query["offset"] : query["offset"] + query["limit"]]
        self._answer(
            200,
            {"dag_runs": page, "pools": [{"name": "gpu"}], "assets": ASSETS, "total_entries": len(self.server.runs)},
        )

    def _answer(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def client(server: Server) -> AirflowClient:
    return AirflowClient(f"http://127.0.0.1:{server.server_port}", "admin", "pa$$")


def test_it_logs_in_once_for_many_calls(server: Server, client: AirflowClient) -> None:
    client.unpause("ingest")
    client.unpause("features")
    assert server.logins == 1
    assert server.calls[0] == ("POST", "/auth/token", {"username": "admin", "password": "pa$$"})


def test_an_expired_token_is_renewed_and_the_call_repeated(server: Server, client: AirflowClient) -> None:
    client.unpause("ingest")
    server.expired.add("token-1")
    assert client.trigger("ingest")["dag_run_id"] == "new"
    assert server.logins == 2


def test_a_call_that_airflow_rolled_back_is_repeated(server: Server, client: AirflowClient) -> None:
    server.locked = 2
    assert client.trigger("ingest")["dag_run_id"] == "new"
    assert [path for _, path, _ in server.calls].count("/api/v2/dags/ingest/dagRuns") == 3


def test_a_database_that_stays_locked_is_told(server: Server, client: AirflowClient) -> None:
    server.locked = 100
    with pytest.raises(AirflowApiError, match="Database error"):
        client.trigger("ingest")


def test_all_pages_are_read(server: Server, client: AirflowClient) -> None:
    assert client.runs() == server.runs


def test_a_run_is_triggered_for_a_partition_and_without_a_logical_date(server: Server, client: AirflowClient) -> None:
    client.trigger("ingest", date(2018, 1, 5), {"from": "2016-10-01"})
    body = {"logical_date": None, "conf": {"from": "2016-10-01"}, "partition_key": "2018-01-05"}
    assert server.calls[-1] == ("POST", "/api/v2/dags/ingest/dagRuns", body)


def test_an_asset_is_announced_for_a_partition(server: Server, client: AirflowClient) -> None:
    client.announce("toy_decision", date(2018, 1, 5))
    body = {"asset_id": 7, "partition_key": "2018-01-05"}
    assert server.calls[-1] == ("POST", "/api/v2/assets/events", body)


def test_an_asset_that_airflow_does_not_know_is_an_error(client: AirflowClient) -> None:
    with pytest.raises(AirflowApiError, match="knows no asset 'toy'"):
        client.announce("toy", date(2018, 1, 5))


def test_an_airflow_that_was_never_started_is_told_as_one_that_does_not_answer(tmp_path: Path) -> None:
    profile = load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path)})
    with pytest.raises(AirflowApiError, match="never started here"):
        AirflowClient.of(profile)


def test_times_are_sent_in_utc(server: Server, client: AirflowClient) -> None:
    client.runs(since=datetime(2026, 1, 2, 3, tzinfo=UTC))
    assert parse_qs(urlparse(server.calls[-1][1]).query)["run_after_gte"] == ["2026-01-02T03:00:00+00:00"]


def test_names_are_quoted(server: Server, client: AirflowClient) -> None:
    client.answer("promote", "asset__2026-01-01T00:00:00+00:00/x", "approve", "Reject", {"reason": "no"})
    path = (
        "/api/v2/dags/promote/dagRuns/asset__2026-01-01T00%3A00%3A00%2B00%3A00%2Fx/taskInstances/approve/-1/hitlDetails"
    )
    assert server.calls[-1] == ("PATCH", path, {"chosen_options": ["Reject"], "params_input": {"reason": "no"}})


def test_a_pool_that_is_there_is_changed_and_another_is_made(server: Server, client: AirflowClient) -> None:
    server.runs = []
    pools = [Pool(name=name, slots=2, description="", include_deferred=True) for name in ("gpu", "heavy")]
    client.ensure_pools(pools)
    assert [(verb, path) for verb, path, _ in server.calls[-2:]] == [
        ("PATCH", "/api/v2/pools/gpu"),
        ("POST", "/api/v2/pools"),
    ]


def test_a_refused_call_says_which_and_why(client: AirflowClient) -> None:
    with pytest.raises(AirflowApiError, match="The Dag with ID gone was not found") as caught:
        client.runs("gone")
    assert caught.value.status == 404
    assert caught.value.where.endswith("/api/v2/dags/gone/dagRuns")


def test_a_server_that_is_down_is_a_transient_error() -> None:
    with pytest.raises(AirflowApiError, match="did not answer") as caught:
        AirflowClient("http://127.0.0.1:1", "admin", "x").health()
    assert (caught.value.status, caught.value.exit_code) == (0, 75)


def test_a_profile_that_names_an_api_server_is_asked_there_with_its_own_login(server: Server) -> None:
    api = f"{{url: 'http://127.0.0.1:{server.server_port}/', user: ana, password: pw}}"
    profile = load_profile("local", environ={"PLUMBLINE__AIRFLOW__API": api})
    AirflowClient.of(profile).runs("daily")
    assert server.calls[0] == ("POST", "/auth/token", {"username": "ana", "password": "pw"})
