"""Alerts: always in the log, to the webhook where there is one, never with a secret."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from dags import alerts

CONTEXT = {
    "task_instance": SimpleNamespace(dag_id="ingest", task_id="events", run_id="r1"),
    "exception": RuntimeError("password=hunter2"),
    "params": {"token": "hunter2"},
}


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """A webhook on loopback, and what was posted to it."""
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
    monkeypatch.setenv("PLUMBLINE__AIRFLOW__ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook")
    yield bodies
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_failed_task_is_told_with_dag_task_and_run(posted: list[dict[str, str]]) -> None:
    alerts.on_failure(CONTEXT)
    facts = {"dag": "ingest", "task": "events", "run": "r1"}
    assert posted == [{"text": "Plumbline: ingest.events failed", **facts}]


def test_a_missed_deadline_is_told(posted: list[dict[str, str]]) -> None:
    alerts.missed_deadline("ingest", 120, {"dag_run": {"dag_run_id": "r1"}})
    assert posted[0]["text"] == "Plumbline: ingest missed its deadline of 120 minutes"


def test_an_alert_carries_no_parameter_and_no_exception_text(
    posted: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    alerts.on_failure(CONTEXT)
    assert "hunter2" not in json.dumps(posted) + caplog.text


def test_without_a_webhook_the_log_has_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("PLUMBLINE__AIRFLOW__ALERT_WEBHOOK", raising=False)
    alerts.on_failure(CONTEXT)
    assert "ALERT ingest.events failed" in caplog.text


@pytest.mark.parametrize("webhook", ["http://127.0.0.1:1/secret-token", "secret-token", "http://secret-token:x/"])
def test_a_webhook_that_is_down_or_misspelt_fails_nothing_and_its_address_is_not_logged(
    webhook: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLUMBLINE__AIRFLOW__ALERT_WEBHOOK", webhook)
    with caplog.at_level(logging.ERROR):
        alerts.on_failure(CONTEXT)
    assert "could not be posted" in caplog.text
    assert "secret-token" not in caplog.text
