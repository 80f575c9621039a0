"""The real scheduler: retry classes, partitions out of order, an approval and a rejection, a missed deadline."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from infra.airflow_client import AirflowApiError
from infra.airflow_env import Pool
from infra.profile import CHECKOUT

DAYS = [date(2018, 1, 1) + timedelta(days=n) for n in range(30)]


def test_only_transient_and_preempted_are_retried(airflow: Any) -> None:
    codes = {"transient": "75", "preempted": "75 75", "data": "65", "bug": "70"}
    for name, text in codes.items():
        (airflow.folder / name).write_text(text)
    run = airflow.client.trigger("retry_classes")["dag_run_id"]
    assert airflow.finish("retry_classes", run) == "failed"
    tasks = {task["task_id"]: task for task in airflow.client.task_instances("retry_classes", run)}
    assert {name: (task["state"], task["try_number"]) for name, task in tasks.items()} == {
        "transient": ("success", 2),
        "preempted": ("success", 3),
        "data": ("failed", 1),
        "bug": ("failed", 1),
    }
    log = "\n".join(airflow.client.log("retry_classes", run, "data"))
    assert "the data, a setting or a name is wrong (exit code 65); not retried" in log
    told = {alert["task"] for alert in airflow.alerts if alert["run"] == run}
    assert told == {"data", "bug"}


def test_30_days_triggered_out_of_order_reach_the_next_dag_and_none_is_lost(airflow: Any) -> None:
    order = DAYS.copy()
    random.Random(3).shuffle(order)
    for day in order:
        airflow.client.trigger("root", day, {"from": (day - timedelta(days=2)).isoformat()})
    leaves = lambda: [run for run in airflow.client.runs("leaf") if run["state"] == "success"]  # noqa: E731
    airflow.until(lambda: len(leaves()) >= len(DAYS), "30 runs of the next DAG")
    assert {run["partition_key"] for run in leaves()} == {day.isoformat() for day in DAYS}
    noted = {path.read_text() for path in (airflow.folder / "ranges").iterdir()}
    assert noted == {f"--from {day - timedelta(days=2)} --partition {day}" for day in DAYS}


def test_a_run_that_follows_the_clock_is_for_the_day_on_which_it_starts(airflow: Any) -> None:
    before = datetime.now(UTC).date()
    assert airflow.finish("clock", airflow.client.trigger("clock")["dag_run_id"]) == "success"
    (noted,) = [path.read_text() for path in (airflow.folder / "todays").iterdir()]
    assert noted in {f"--partition {day}" for day in (before, datetime.now(UTC).date())}


def _answer(airflow: Any, option: str) -> str:
    run = airflow.client.trigger("ask")["dag_run_id"]
    asked = lambda: {request["task_instance"]["dag_run_id"] for request in airflow.client.approvals()}  # noqa: E731
    airflow.until(lambda: run in asked(), "the question")
    # An answer before the scheduler has seen the asking worker end fails the task: Airflow takes that end for a crash.
    airflow.until(lambda: airflow.scheduler_saw_the_end_of("approve", run), "the end of the worker that asked")
    airflow.client.answer("ask", run, "approve", option, {"reason": "because", "override": False})
    assert airflow.finish("ask", run) == "success"
    return next(text for path in (airflow.folder / "answers").iterdir() if run in (text := path.read_text()))


def test_an_approval_and_a_rejection_both_reach_the_next_task_with_who_gave_them(airflow: Any) -> None:
    assert _answer(airflow, "Approve").startswith("Approve admin ")
    assert _answer(airflow, "Reject").startswith("Reject admin ")


def test_a_run_that_hangs_past_its_deadline_is_told(airflow: Any) -> None:
    run = airflow.client.trigger("stuck")["dag_run_id"]
    airflow.until(lambda: any(alert["run"] == run for alert in airflow.alerts), "the alert")
    (alert,) = [alert for alert in airflow.alerts if alert["run"] == run]
    assert alert["text"] == "Plumbline: stuck missed its deadline of 0.05 minutes"
    assert airflow.state("stuck", run) == "running"


def test_a_second_start_finds_its_pools_and_may_change_them(airflow: Any) -> None:
    def pools() -> dict[str, int]:
        return {pool["name"]: pool["slots"] for pool in airflow.client._call("GET", "/api/v2/pools")["pools"]}

    before = pools()
    wanted = Pool(name="gpu", slots=before["gpu"] + 3, description="more", include_deferred=True)
    airflow.client.ensure_pools([wanted])
    assert pools() == {**before, "gpu": wanted["slots"]}
    airflow.client.ensure_pools([{**wanted, "slots": before["gpu"]}])
    assert pools() == before


def by_hand(airflow: Any, dag_id: str, body: dict[str, Any]) -> str:
    """A run as a person triggers it through the API, without our client; its id."""
    return str(airflow.client._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])


def test_the_call_of_the_documentation_starts_a_run_of_its_days(airflow: Any) -> None:
    text = (CHECKOUT / "dags" / "README.md").read_text()
    (body,) = re.findall(r"`POST \.\.\./dagRuns ({.*?})`", text, re.DOTALL)
    asked = json.loads(body)
    assert airflow.finish("leaf", by_hand(airflow, "leaf", asked)) == "success"
    noted = {path.read_text() for path in (airflow.folder / "ranges").iterdir()}
    assert f"--from {asked['conf']['from']} --partition {asked['partition_key']}" in noted


@pytest.mark.parametrize("dag_id", ["root", "leaf"])
@pytest.mark.parametrize(
    ("key", "conf", "said"),
    [
        ("2018-01-05", {"form": "2018-01-01"}, "unknown key: form"),
        ("2018-01-05", {"from": "2018-01-06"}, "The range runs backwards: from 2018-01-06 to 2018-01-05"),
        ("2024-13-45", {}, "'2024-13-45' is not a day"),
        ("20240105", {}, "'20240105' is not a day"),
    ],
)
def test_a_run_that_makes_no_sense_fails_at_its_first_task_in_words_and_is_not_retried(
    airflow: Any, dag_id: str, key: str, conf: dict[str, str], said: str
) -> None:
    run = by_hand(airflow, dag_id, {"logical_date": None, "partition_key": key, "conf": conf})
    assert airflow.finish(dag_id, run) == "failed"
    (task,) = airflow.client.task_instances(dag_id, run)
    assert (task["state"], task["try_number"]) == ("failed", 1)
    log = "\n".join(airflow.client.log(dag_id, run, task["task_id"]))
    assert said in log and "(exit code 65); not retried" in log


def test_a_first_day_that_is_none_is_refused_before_a_run_is_made(airflow: Any) -> None:
    with pytest.raises(AirflowApiError, match="Invalid input for param from: '2018-13-01' is not a 'date'") as refusal:
        by_hand(airflow, "root", {"logical_date": None, "partition_key": "2018-01-05", "conf": {"from": "2018-13-01"}})
    assert refusal.value.status == 400
