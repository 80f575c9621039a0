"""The policies as functions of one DAG: each returns what is wrong, in words; empty is good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dags.policies import OWNERS, TAGS
from infra.airflow_env import pools
from infra.profile import load_profile

MAX_TASKS = 25  # what a page of Airflow shows at a glance
SECTIONS = ("**Healthy when**", "**First three checks**", "**Rerun**", "**Owner**")
CLOCK = ("logical_date", "{{ ds", "data_interval", "ts_nodash", "execution_date")


def has_triage_notes(dag: Any) -> Iterator[str]:
    notes = dag.doc_md or ""
    yield from (f"its notes lack {section}" for section in SECTIONS if section not in notes)


def has_known_tags(dag: Any) -> Iterator[str]:
    if not dag.tags:
        yield "it has no tag"
    yield from (f"tag {tag!r} is not in the list" for tag in dag.tags if tag not in TAGS)


def has_known_owners(dag: Any) -> Iterator[str]:
    yield from (f"{t.task_id} is owned by {t.owner!r}" for t in dag.tasks if t.owner not in OWNERS)


def has_a_deadline(dag: Any) -> Iterator[str]:
    if not dag.deadline:
        yield "nobody hears of a run that hangs"


def alerts_on_failure(dag: Any) -> Iterator[str]:
    yield from (f"{t.task_id} fails in silence" for t in dag.tasks if not t.on_failure_callback)


def limits_every_task(dag: Any) -> Iterator[str]:
    """A question to a person is limited by its response timeout."""
    for task in dag.tasks:
        if not (task.execution_timeout or getattr(task, "response_timeout", None)):
            yield f"{task.task_id} has no time limit"


def waits_in_a_known_pool(dag: Any) -> Iterator[str]:
    """Airflow queues a task of a pool that nobody has made for ever, and says nothing."""
    known = {"default_pool", *(pool["name"] for pool in pools(load_profile()))}
    yield from (f"{t.task_id} waits in the pool {t.pool!r}" for t in dag.tasks if t.pool not in known)


def reads_no_clock(dag: Any) -> Iterator[str]:
    """A run that an asset triggered has no logical date: a partition comes from its key, never from the clock."""
    for task in dag.tasks:
        text = " ".join(str(getattr(task, name, "")) for name in task.template_fields)
        yield from (f"{task.task_id} reads {word}" for word in CLOCK if word in text)


def runs_without_a_shell(dag: Any) -> Iterator[str]:
    yield from (f"{t.task_id} is a {t.task_type}" for t in dag.tasks if t.task_type in ("BashOperator", "SSHOperator"))


def is_small_and_single(dag: Any) -> Iterator[str]:
    if len(dag.tasks) > MAX_TASKS:
        yield f"it has {len(dag.tasks)} tasks"
    if dag.max_active_runs != 1:
        yield f"{dag.max_active_runs} runs of it may be active at once"
    if dag.catchup:
        yield "it catches up by itself"


POLICIES: tuple[Callable[[Any], Iterator[str]], ...] = (
    has_triage_notes,
    has_known_tags,
    has_known_owners,
    has_a_deadline,
    alerts_on_failure,
    limits_every_task,
    waits_in_a_known_pool,
    reads_no_clock,
    runs_without_a_shell,
    is_small_and_single,
)
