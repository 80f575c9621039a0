from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from infra.airflow_client import AirflowApiError, AirflowClient
from infra.airflow_env import DAILY_CHAIN
from infra.demo.watch import Chain, RunFailed, clocked, follow, tagged
from infra.profile import Profile

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
DAGS = ("ingest", "quality_report")


class FailedOnItsThirdTry(AirflowClient):
    """A chain whose first task has failed for good, after two tries that failed for another reason."""

    def __init__(self, log_answers: bool = True) -> None:
        super().__init__("http://127.0.0.1:1", "admin", "")
        self.log_answers = log_answers

    def runs(self, dag_id: str = "~", since: datetime | None = None) -> list[dict[str, Any]]:
        return [{"dag_id": "ingest", "partition_key": "2018-01-05", "state": "failed", "dag_run_id": "r1"}]

    def task_instances(self, dag_id: str = "~", run_id: str = "~") -> list[dict[str, Any]]:
        times = {
            "queued_when": None,
            "start_date": "2026-01-01T00:00:00+00:00",
            "end_date": "2026-01-01T00:01:00+00:00",
        }
        return [{"task_id": "events", "state": "failed", "try_number": 3, **times}]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[str]:
        if not self.log_answers:
            raise AirflowApiError("Airflow did not answer.", where="GET", why="connection refused")
        ours = ["$ python -m spark_jobs events", "error: There is no landing file.", "  do:    Put one there."]
        return ["::group::Pre Execute", f"try {try_number}", "Worker startup", "::endgroup::", *ours, "::group::Post"]


def _followed(client: AirflowClient) -> RunFailed:
    with pytest.raises(RunFailed) as failure:
        follow(client, Chain(SINCE, date(2018, 1, 5).isoformat(), DAGS), lambda chain: None, lambda: None)
    return failure.value


def test_a_failed_task_is_explained_by_what_its_command_wrote() -> None:
    failure = _followed(FailedOnItsThirdTry())
    assert failure.what == "Task ingest.events failed."
    assert [line.strip() for line in failure.why.splitlines()[1:]] == [
        "$ python -m spark_jobs events",
        "error: There is no landing file.",
        "do:    Put one there.",
    ]


def test_a_failed_task_is_explained_by_its_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailedOnItsThirdTry, "log", lambda self, dag, run, task, number: [f"lines of try {number}"])
    assert "lines of try 3" in _followed(FailedOnItsThirdTry()).why


def test_a_log_that_cannot_be_read_does_not_hide_which_task_failed() -> None:
    failure = _followed(FailedOnItsThirdTry(log_answers=False))
    assert failure.what == "Task ingest.events failed."
    assert "connection refused" in failure.why


def test_the_exit_code_is_the_one_that_the_tasks_log_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _followed(FailedOnItsThirdTry()).exit_code == 70
    told = [
        "$ python -m spark_jobs events",
        "python -m spark_jobs events: the data, a setting or a name is wrong (exit code 65); not retried.",
    ]
    monkeypatch.setattr(FailedOnItsThirdTry, "log", lambda *asked: told)
    assert _followed(FailedOnItsThirdTry()).exit_code == 65


def test_the_chain_is_done_when_all_of_its_dags_are() -> None:
    chain = Chain(SINCE, "2018-01-05", DAGS, states=dict.fromkeys(DAGS, "success"))
    assert chain.done
    for dag in DAGS:
        assert not Chain(SINCE, "2018-01-05", DAGS, states=chain.states | {dag: "running"}).done


class Tagged(AirflowClient):
    """Has these DAGs, with these tags."""

    def dags(self) -> list[dict[str, Any]]:
        tags = {"ingest": [DAILY_CHAIN], "maintenance": [], "align_toy": ["training", DAILY_CHAIN]}
        return [{"dag_id": dag, "tags": [{"name": tag} for tag in tags[dag]]} for dag in tags]


def test_the_demo_follows_the_dags_that_carry_the_tag() -> None:
    assert tagged(Tagged("http://127.0.0.1:1", "admin", ""), DAILY_CHAIN) == ("ingest", "align_toy")


class FailedAfterItHadMade(AirflowClient):
    """`ingest` has made what others wait for, and its last task is red; the others are done two refreshes later."""

    def __init__(self, landed: str) -> None:
        super().__init__("http://127.0.0.1:1", "admin", "")
        self.landed, self.refreshed = landed, 0

    def runs(self, dag_id: str = "~", since: datetime | None = None) -> list[dict[str, Any]]:
        self.refreshed += 1
        states = {"ingest": "failed", "quality_report": "success" if self.refreshed > 2 else "running"}
        return [
            {"dag_id": dag, "partition_key": "2018-01-05", "state": state, "dag_run_id": "r"}
            for dag, state in states.items()
        ]

    def task_instances(self, dag_id: str = "~", run_id: str = "~") -> list[dict[str, Any]]:
        times = dict.fromkeys(("queued_when", "start_date", "end_date"))
        states = {"landed": self.landed, "refused": "failed"} if dag_id == "ingest" else {"report": "success"}
        return [{"task_id": task, "state": state, "try_number": 1, **times} for task, state in states.items()]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[str]:
        why = f"{task_id} says why (exit code 65); not retried."
        return ["Worker startup parse complete", "Task failed with exception", why]


def _chain() -> Chain:
    return Chain(SINCE, "2018-01-05", DAGS, {"ingest": {"landed"}})


def test_a_dag_that_fails_after_it_has_made_what_others_wait_for_stops_nothing_and_is_told_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    client, chain = FailedAfterItHadMade(landed="success"), _chain()
    failure = follow(client, chain, lambda chain: None, lambda: None)
    assert chain.done
    assert client.refreshed == 3
    assert failure is not None
    assert (failure.what, failure.exit_code) == ("Task ingest.refused failed.", 65)
    assert "startup" not in failure.why


def test_a_dag_that_fails_before_it_has_made_what_others_wait_for_stops_the_chain() -> None:
    with pytest.raises(RunFailed, match=r"ingest\.landed|ingest\.refused"):
        follow(FailedAfterItHadMade(landed="failed"), _chain(), lambda chain: None, lambda: None)


def test_what_has_begun_stands_first_on_the_screen() -> None:
    chain = Chain(SINCE, "2018-01-05", ("a", "b", "c"), runs={"c": "r", "a": "r"})
    assert chain.in_order == ["c", "a", "b"]


def test_a_job_of_the_clock_waits_for_what_decides_on_its_models(profile: Profile) -> None:
    assert clocked(profile) == {"nearline_hints": {"promote_query_rec"}}
    assert clocked(profile.model_copy(update={"systems": ("generative_rec",)})) == {}


def test_a_dag_is_over_whether_it_has_failed_or_not() -> None:
    states = {"a": "success", "b": "failed", "c": "running"}
    assert Chain(SINCE, "2018-01-05", tuple(states), states=states).over == {"a", "b"}
