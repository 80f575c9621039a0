"""The alert hook: a task failed, or a DAG missed its deadline. To the log, and to a webhook if the profile names one.

An alert says what, where and how to look; it carries no log text, no parameters and no environment, so no secret.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from http.client import HTTPException
from typing import Any

from infra.profile import load_profile

_log = logging.getLogger("plumbline.alerts")
_SECONDS = 10


def on_failure(context: Any) -> None:
    """Airflow calls this in the worker when a task has failed for good."""
    task = context["task_instance"]
    send(f"{task.dag_id}.{task.task_id} failed", {"dag": task.dag_id, "task": task.task_id, "run": task.run_id})


def missed_deadline(dag: str, minutes: int, context: dict[str, Any]) -> None:
    """Airflow calls this when a run of `dag` is not done `minutes` after it was queued."""
    send(f"{dag} missed its deadline of {minutes} minutes", {"dag": dag, "run": context["dag_run"]["dag_run_id"]})


def send(title: str, facts: dict[str, str]) -> None:
    """Log the alert, and post it to the webhook; one that is down or misspelt must not fail the task a second time."""
    _log.error("ALERT %s %s", title, json.dumps(facts))
    webhook = load_profile().airflow.alert_webhook
    if webhook:
        try:
            urllib.request.urlopen(request(webhook, title, facts), timeout=_SECONDS).close()  # noqa: S310 - from the profile
        except (OSError, HTTPException, ValueError) as error:
            _log.error("The alert could not be posted: %s", type(error).__name__)


def request(webhook: str, title: str, facts: dict[str, str]) -> urllib.request.Request:
    """The POST of an alert, in the shape that chat systems take (`text`), with the facts beside it."""
    body = json.dumps({"text": f"Plumbline: {title}", **facts}).encode()
    return urllib.request.Request(webhook, body, {"Content-Type": "application/json"})  # noqa: S310 - from the profile
