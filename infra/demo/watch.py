"""Follows the chain of DAG runs that the trigger set off, until all are done or one fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from common.pipelines import promotion
from infra.airflow_client import AirflowApiError, AirflowClient
from infra.errors import EXIT_BUG, PlumblineError
from infra.processes import COMMAND_MARK
from infra.profile import Profile
from infra.systems import declared_systems

_LINES = 25
_AIRFLOWS_REMARK = "Task failed with exception"  # before the reason of a task that runs no command
_TOLD_CODE = re.compile(r"\(exit code (\d+)\)")


class RunFailed(PlumblineError):
    """A task of the chain failed; the exit code is its command's own, where the log tells it."""

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        super().__init__(what, where=where, why=why, do=do)
        told = _TOLD_CODE.findall(why)
        self.exit_code = int(told[-1]) if told else EXIT_BUG


@dataclass(frozen=True)
class Task:
    """One task of a run as the scheduler last saw it."""

    dag: str
    task: str
    state: str
    queued: datetime | None
    started: datetime | None
    ended: datetime | None
    tries: int

    def seconds(self, now: datetime) -> float:
        """Run time so far."""
        return ((self.ended or now) - self.started).total_seconds() if self.started else 0.0

    @property
    def waited(self) -> float:
        """Seconds from the queue to the start: what the scheduler and its worker take."""
        return (self.started - self.queued).total_seconds() if self.started and self.queued else 0.0


@dataclass
class Chain:
    """The newest run of each of the `dags` since the trigger, for the trigger's partition: others are not ours.

    `makers`: the tasks of a DAG that others of the chain wait for.
    """

    since: datetime
    partition_key: str
    dags: tuple[str, ...]
    makers: Mapping[str, Collection[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, list[Task]] = field(default_factory=dict)

    def refresh(self, client: AirflowClient) -> None:
        """Ask the API server."""
        for run in client.runs(since=self.since):
            if run["dag_id"] in self.dags and run["partition_key"] == self.partition_key:
                self.states[run["dag_id"]] = run["state"]
                self.runs[run["dag_id"]] = run["dag_run_id"]
        for dag, run_id in self.runs.items():
            if dag not in self.tasks or self.states[dag] != "success" or any(not t.ended for t in self.tasks[dag]):
                self.tasks[dag] = [_task(dag, row) for row in client.task_instances(dag, run_id)]

    @property
    def in_order(self) -> list[str]:
        """Those that have begun, in that order, then the others."""
        return [*self.runs, *(dag for dag in self.dags if dag not in self.runs)]

    @property
    def over(self) -> set[str]:
        """The DAGs whose runs have ended."""
        return {dag for dag, state in self.states.items() if state in ("success", "failed")}

    @property
    def done(self) -> bool:
        """Every DAG of the chain is over, and none of them stopped the rest."""
        return self.over.issuperset(self.dags) and not self.stopped

    @property
    def failed(self) -> list[str]:
        """The DAGs whose runs failed."""
        return [dag for dag, state in self.states.items() if state == "failed"]

    @property
    def stopped(self) -> str | None:
        """The DAG that failed before it had made what others wait for, if one did."""
        return next((dag for dag in self.failed if not self._made(dag)), None)

    def _made(self, dag: str) -> bool:
        done = {task.task for task in self.tasks[dag] if task.state == "success"}
        return dag in self.makers and done.issuperset(self.makers[dag])


def tagged(client: AirflowClient, name: str) -> tuple[str, ...]:
    """The DAGs with a tag."""
    return tuple(dag["dag_id"] for dag in client.dags() if name in {tag["name"] for tag in dag["tags"]})


def clocked(profile: Profile) -> dict[str, set[str]]:
    """The jobs of the clock, which does not run here, with what decides on the models that they ask: once for each,
    when that is over."""
    jobs = (job for system in declared_systems(profile)[0] for job in system.jobs if not job.after)
    return {job.name: {promotion(model) for model in job.stage.reads.models} for job in jobs}


def _task(dag: str, row: dict[str, Any]) -> Task:
    def moment(name: str) -> datetime | None:
        return datetime.fromisoformat(row[name]) if row[name] else None

    return Task(
        dag,
        row["task_id"],
        row["state"] or "waiting",
        moment("queued_when"),
        moment("start_date"),
        moment("end_date"),
        row["try_number"],
    )


def follow(
    client: AirflowClient, chain: Chain, show: Callable[[Chain], None], check: Callable[[], None]
) -> RunFailed | None:
    """Poll until the chain is done; `check` raises when a service has gone. Returns what failed and stopped nothing.

    Raises:
        RunFailed: a task failed that others wait for; carries its own last log lines.
    """
    while not chain.done:
        check()
        try:
            chain.refresh(client)
        except AirflowApiError:
            time.sleep(1.0)  # one slow answer of a busy machine is no failure; `check` notices a dead server
            continue
        show(chain)
        if chain.stopped:
            raise _failure(client, chain, chain.stopped)
        time.sleep(1.0)
    return _failure(client, chain, chain.failed[0]) if chain.failed else None


def _failure(client: AirflowClient, chain: Chain, dag: str) -> RunFailed:
    culprit = next((task for task in chain.tasks[dag] if task.state == "failed"), None)
    if culprit is None:
        return RunFailed(f"The run of {dag} failed before a task did.", do="`make up` and open it in Airflow.")
    lines = _last_lines(client, chain.runs[dag], culprit)
    return RunFailed(
        f"Task {dag}.{culprit.task} failed.",
        where=f"run {chain.runs[dag]}",
        why="its own last lines:\n    " + "\n    ".join(lines),
        do="Mend the cause and run `make demo` again: what is committed is not done twice. `make report` shows what "
        "came in, and what was refused or left out; docs/runbook.md has more.",
    )


def _last_lines(client: AirflowClient, run_id: str, task: Task) -> list[str]:
    """What the command of the last try wrote: the tries before it may have failed for another reason."""
    try:
        lines = client.log(task.dag, run_id, task.task, max(1, task.tries))
    except AirflowApiError as error:
        return [f"(its log could not be read: {error.what} {error.why})"]
    own = [line for line in lines if not line.startswith(("::", "ALERT "))]  # Airflow's folding marks, and our alert
    start = next((at for at, line in enumerate(own) if line.startswith((COMMAND_MARK, _AIRFLOWS_REMARK))), 0)
    told = "\n".join(own[start:]).replace(f"{_AIRFLOWS_REMARK}\nAirflowFailException: ", "").splitlines()
    return told[-_LINES:]
