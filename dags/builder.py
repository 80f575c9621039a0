"""Builds every DAG: the policies they all keep to, the few kinds of task, and training DAGs from stage declarations.

A DAG file holds its triage notes (its docstring), names its tasks, and imports nothing but this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import (  # type: ignore[attr-defined]  # its stub file lags behind
    DAG,
    Asset,
    BaseOperator,
    CronPartitionTimetable,
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    SyncCallback,
    chain,
)

from dags.alerts import missed_deadline, on_failure
from dags.commands import range_of
from dags.operators import Approval, RunCommand
from dags.partitions import KEY_FORMAT
from dags.pipelines import Pipeline, Stage, load_pipeline
from dags.policies import RETRIES
from infra.airflow_env import HEAVY_POOL
from infra.launch import pod_spec
from infra.profile import load_profile

__all__ = ["chain"]

PROFILE = load_profile()

EVENTS = Asset("events", uri="plumbline://lake/events")
SAMPLES = Asset("next_item_samples", uri="plumbline://lake/next_item_samples")
TRAINING_SET = Asset("next_item_training_set", uri="plumbline://lake/next_item_training_set")
CHALLENGER = Asset("generative_rec_challenger", uri="plumbline://registry/generative_rec/challenger")
RECOMMENDATIONS = Asset("recommendations", uri="plumbline://lake/recommendations")
DECISION = Asset("generative_rec_decision", uri="plumbline://registry/generative_rec/decision")

_SPAN = "days(partition_key, params, triggering_asset_events)"
FIRST = f"{{{{ {_SPAN}.first }}}}"
LAST = f"{{{{ {_SPAN}.last }}}}"
RANGE = ("--from", FIRST, "--partition", LAST)

# Else Airflow would run a tick of the last hours at once on a fresh installation, before anything has landed.
_NEVER_OVERDUE = timedelta(0)


def daily(hour: int) -> CronPartitionTimetable | PartitionedAtRuntime:
    """Every day at `hour` UTC, for the partition of the day before; where nobody follows the clock, when triggered."""
    if not PROFILE.airflow.follow_clock:
        return PartitionedAtRuntime()
    cron: dict[str, Any] = {"timezone": "UTC", "run_immediately": _NEVER_OVERDUE}
    return CronPartitionTimetable(f"0 {hour} * * *", run_offset=-1, key_format=KEY_FORMAT, **cron)


def nightly(hour: int) -> CronTriggerTimetable | None:
    """Every day at `hour` UTC, for no partition; where nobody follows the clock, when triggered."""
    if not PROFILE.airflow.follow_clock:
        return None
    return CronTriggerTimetable(f"0 {hour} * * *", timezone="UTC", run_immediately=_NEVER_OVERDUE)


def after(*assets: Asset) -> PartitionedAssetTimetable:
    """When any of `assets` has a new partition, for the same partition."""
    condition = assets[0]
    for asset in assets[1:]:
        condition = condition | asset
    return PartitionedAssetTimetable(assets=condition)


def new_dag(dag_id: str, doc: str, *, schedule: Any, owner: str, tags: Sequence[str], deadline_minutes: int) -> DAG:
    """A DAG with everything that all DAGs share; the heading of `doc` is its description in the list of DAGs."""
    first_day = Param(None, type=["null", "string"], format="date", description="First day of the range.")
    # No start date: a fresh installation waits for its first night instead of running the last one at once.
    shared: dict[str, Any] = {"catchup": False, "max_active_runs": 1}
    shared |= {"params": {"from": first_day}, "user_defined_macros": {"days": range_of}}
    defaults = {"owner": owner, "on_failure_callback": on_failure}
    shared |= {"doc_md": doc, "description": doc.splitlines()[0].removeprefix("### ")}
    deadline = _deadline(dag_id, deadline_minutes)
    return DAG(dag_id, schedule=schedule, tags=list(tags), default_args=defaults, deadline=deadline, **shared)


def _deadline(dag_id: str, minutes: int) -> DeadlineAlert:
    """From the time a run is queued, so that a run which hangs before its first task is noticed too."""
    callback = SyncCallback(missed_deadline, {"dag": dag_id, "minutes": minutes})
    return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(minutes=minutes), callback, name=dag_id)


def command(task_id: str, *arguments: str, minutes: int, retry: str = "transient", **options: Any) -> RunCommand:
    """A task that runs `python <arguments>` within `minutes`."""
    return RunCommand(task_id=task_id, arguments=arguments, **_limits(minutes, retry), **options)


def _limits(minutes: int, retry: str) -> dict[str, Any]:
    chosen = RETRIES[retry]
    return {
        "execution_timeout": timedelta(minutes=minutes),
        "retries": chosen.retries,
        "retry_delay": chosen.delay,
    }


def module(task_id: str, name: str, *arguments: str, minutes: int, **options: Any) -> RunCommand:
    """A light task: `python -m <name> <arguments>`."""
    return command(task_id, "-m", name, *arguments, minutes=minutes, **options)


def heavy(task_id: str, name: str, *arguments: str, minutes: int, **options: Any) -> RunCommand:
    """As `module`, for Spark and whatever else fills the machine: one at a time."""
    return module(task_id, name, *arguments, minutes=minutes, pool=HEAVY_POOL, **options)


def approval(task_id: str, subject: str, body: str, version: str) -> Approval:
    """Ask a person. No answer within a day is a rejection, so that the next day's model finds its turn."""
    form = {
        "reason": Param("", type="string", description="Why; kept in the promotion ledger."),
        "override": Param(False, type="boolean", description="Promote although the gate failed."),
    }
    question: dict[str, Any] = {"subject": subject, "body": body, "params": form, "version": version}
    patience: dict[str, Any] = {"response_timeout": timedelta(days=1), "defaults": "Reject"}
    # Airflow fails a task whose answer comes within a second of the question; the retry asks again.
    again: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=5)}
    return Approval(task_id=task_id, by_flag=PROFILE.airflow.approve_by_flag, **question, **patience, **again)


def training_dag(doc: str, system: str, *, schedule: Any, outlet: Asset, deadline_minutes: int) -> DAG:
    """The stages of `training/<system>/pipeline.yaml` in their order, then the model's registration and gate."""
    pipeline = load_pipeline(system, PROFILE.training_preset)
    facts: dict[str, Any] = {"owner": "ml-engineering", "tags": ["training"], "deadline_minutes": deadline_minutes}
    dag = new_dag(pipeline.dag, doc, schedule=schedule, **facts)
    with dag:
        stages = [stage_task(pipeline, stage) for stage in pipeline.stages]
        register = module("register", "dags.steps.register", *_run(pipeline), minutes=20, outlets=[outlet])
        chain(*stages, register)
    return dag


def stage_task(pipeline: Pipeline, stage: Stage) -> BaseOperator:
    """One stage of a training run."""
    return _launched(pipeline, stage, "dags.steps.run_stage", "--stage", stage.name, *_run(pipeline))


def nightly_task(system: str, *, outlet: Asset) -> BaseOperator:
    """The stage that runs each night with what is registered."""
    pipeline = load_pipeline(system, PROFILE.training_preset)
    task = _launched(pipeline, pipeline.nightly_stage(), "dags.steps.recommend", *_run(pipeline))
    task.add_outlets([outlet])
    return task


def _launched(pipeline: Pipeline, stage: Stage, step: str, *arguments: str) -> BaseOperator:
    """A task that does all of a stage: as a process of its own, or, on Kubernetes, with a pod for the training."""
    if PROFILE.launcher.kind == "kubernetes":
        return _stage_pod(pipeline, stage, step, *arguments)
    limits: dict[str, Any] = {"pool": HEAVY_POOL, "minutes": stage.time_limit_minutes, "retry": stage.retry}
    return module(stage.name, step, "run", *arguments, **limits)


def _stage_pod(pipeline: Pipeline, stage: Stage, step: str, *arguments: str) -> BaseOperator:
    """It holds a slot of the GPU pool per GPU, from before its pod is there until its results are."""
    from dags.pods import StagePod  # see there why not above

    options, gpu = _limits(stage.time_limit_minutes, stage.retry), stage.gpu
    if gpu.count:
        # A task that wants more slots than its pool has never starts; one machine runs it with the GPUs that it has.
        slots = max(1, min(gpu.count, PROFILE.launcher.gpu_slots))
        options |= {"pool": PROFILE.launcher.gpu_pool, "pool_slots": slots}
    for action in ("prepare", "finish"):
        options[action] = ("-m", step, action, *arguments)
    name = f"{pipeline.system}.{stage.name}"
    options["pod"] = partial(pod_spec, name, profile=PROFILE, gpus=gpu.count, gpu_class=gpu.kind)
    return StagePod(task_id=stage.name, **options)


def _run(pipeline: Pipeline) -> tuple[str, ...]:
    return ("--system", pipeline.system, "--run-id", "{{ run_id }}", *RANGE)
