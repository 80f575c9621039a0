"""Builds every DAG: the policies they all keep to, the few kinds of task, and training DAGs from stage declarations.

A DAG file holds its triage notes (its docstring), names its tasks, and imports nothing but this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial, reduce
from operator import and_, or_
from typing import Any

from airflow.sdk import (  # type: ignore[attr-defined]  # its stub file lags behind
    DAG,
    Asset,
    BaseOperator,
    CronPartitionTimetable,
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    DeltaTriggerTimetable,
    Param,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    SyncCallback,
    TriggerRule,
    chain,
)

from common import assets
from common.errors import DataError
from common.pipelines import Job, Pipeline, Stage, Trigger, promotion
from dags.alerts import missed_deadline, on_failure
from dags.commands import range_of
from dags.operators import Approval, Refused, RunCommand
from dags.partitions import KEY_FORMAT
from dags.policies import RETRIES
from infra.airflow_env import DAILY_CHAIN, HEAVY_POOL, NEARLINE
from infra.launch import pod_spec
from infra.profile import load_profile
from infra.systems import declared_systems

__all__ = ["DAILY_CHAIN", "chain"]

PROFILE = load_profile()

# Lists, what they would do in the market, and how like real logs that one is.
PLAYED, REPLAY, VALIDITY = "recommendations", "market_replay", "market_validity"

_SPAN = "days(partition_key, params, triggering_asset_events)"
LAST_DAY = ("--partition", f"{{{{ {_SPAN}.last }}}}")
RANGE = ("--from", f"{{{{ {_SPAN}.first }}}}", *LAST_DAY)
# A run of every so many minutes is for the day on which it starts; where no clock is followed its key may name another.
TODAY = ("--partition", "{{ partition_key or dag_run.run_after.strftime('%Y-%m-%d') }}")

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


def pipelines() -> list[Pipeline]:
    """The systems of the profile that can be used, as its preset has them."""
    return declared_systems(PROFILE)[0]


def is_read(*tables: str) -> bool:
    """Whether a system that the profile names reads one of these tables. Where it names none, or one that cannot be
    used now, all are: what is not made of a day is missed when that system is there."""
    chosen, faults = declared_systems(PROFILE)
    if PROFILE.systems is None or faults:
        return True
    stages = [stage for pipeline in chosen for stage in (*pipeline.stages, *(job.stage for job in pipeline.jobs))]
    return any(not set(tables).isdisjoint(stage.reads.lake) for stage in stages)


def refuse_faulty_systems() -> None:
    """Raise what is wrong with the declarations of the others, for Airflow to show."""
    if faults := declared_systems(PROFILE)[1]:
        lines = [f"{fault.where}: {fault.what} {fault.why} {fault.do}".rstrip() for fault in faults]
        raise DataError("DAGs are missing, for these declarations cannot be used.", why="\n".join(lines))


def after(*written: str) -> PartitionedAssetTimetable:
    """When any of these assets (as declarations write them) has a new partition, for the same partition."""
    first, *others = map(asset, written)
    return PartitionedAssetTimetable(assets=reduce(or_, others, first))


def after_all(*written: str) -> PartitionedAssetTimetable:
    """When each of these assets has a new partition, for the same partition."""
    first, *others = map(asset, written)
    return PartitionedAssetTimetable(assets=reduce(and_, others, first))


def asset(written: str) -> Asset:
    """The asset of a table, or of what the registry says of a model (see `common.assets`)."""
    named = assets.parse(written)
    return Asset(named.name, uri=named.uri)


def every(minutes: int) -> DeltaTriggerTimetable | PartitionedAtRuntime:
    """Every so many minutes, for no partition; without a clock when triggered, for the day of its key."""
    return DeltaTriggerTimetable(timedelta(minutes=minutes)) if PROFILE.airflow.follow_clock else PartitionedAtRuntime()


def new_dag(dag_id: str, doc: str, *, schedule: Any, owner: str, tags: Sequence[str], deadline_minutes: int) -> DAG:
    """A DAG with everything that all DAGs share; the heading of `doc` is its description in the list of DAGs."""
    first_day = Param(None, type=["null", "string"], format="date", description="First day of the range.")
    callback = SyncCallback(missed_deadline, {"dag": dag_id, "minutes": deadline_minutes})
    # No start date: a fresh installation waits for its first night instead of running the last one at once.
    return DAG(
        dag_id,
        schedule=schedule,
        tags=list(tags),
        doc_md=doc,
        description=doc.splitlines()[0].removeprefix("### "),
        catchup=False,
        max_active_runs=1,
        params={"from": first_day},
        user_defined_macros={"days": range_of},
        default_args={"owner": owner, "on_failure_callback": on_failure},
        # From the time a run is queued, so that a run which hangs before its first task is noticed too.
        deadline=DeadlineAlert(
            DeadlineReference.DAGRUN_QUEUED_AT, timedelta(minutes=deadline_minutes), callback, name=dag_id
        ),
    )


def command(task_id: str, *arguments: str, minutes: int, retry: str = "transient", **options: Any) -> RunCommand:
    """A task that runs `python <arguments>` within `minutes`."""
    return RunCommand(task_id=task_id, arguments=arguments, **_limits(minutes, retry), **options)


def _limits(minutes: int, retry: str) -> dict[str, Any]:
    chosen = RETRIES[retry]
    return {"execution_timeout": timedelta(minutes=minutes), "retries": chosen.retries, "retry_delay": chosen.delay}


def module(task_id: str, name: str, *arguments: str, minutes: int, **options: Any) -> RunCommand:
    """A light task: `python -m <name> <arguments>`."""
    return command(task_id, "-m", name, *arguments, minutes=minutes, **options)


def heavy(task_id: str, name: str, *arguments: str, minutes: int, **options: Any) -> RunCommand:
    """As `module`, for Spark and whatever else fills the machine: as many at a time as it has lanes."""
    return module(task_id, name, *arguments, minutes=minutes, pool=HEAVY_POOL, **options)


def refused(task_id: str, of: str) -> Refused:
    """A task that is red where the task `of` went on without what it refused."""
    return Refused(task_id=task_id, of=of, **_limits(5, "data"))


def approval(task_id: str, subject: str, body: str, version: str) -> Approval:
    """Ask a person. No answer within a day is a rejection, so that the next day's model finds its turn."""
    return Approval(
        task_id=task_id,
        subject=subject,
        body=body,
        version=version,
        params={
            "reason": Param("", type="string", description="Why; kept in the promotion ledger."),
            "override": Param(False, type="boolean", description="Promote although the gate failed."),
        },
        by_flag=PROFILE.airflow.approve_by_flag,
        response_timeout=timedelta(days=1),
        defaults="Reject",
        # Airflow fails a task whose answer comes within a second of the question; the retry asks again.
        retries=2,
        retry_delay=timedelta(seconds=5),
    )


def training_dag(pipeline: Pipeline) -> DAG:
    """The stages of a system, each after those that it reads, and each model's registration and gate."""
    training = pipeline.training
    dag = new_dag(
        pipeline.dag,
        training.notes,
        schedule=_schedule(training),
        owner="ml-engineering",
        tags=["training", DAILY_CHAIN],
        deadline_minutes=training.deadline_minutes,
    )
    run = ("--system", pipeline.system, "--run-id", "{{ run_id }}", *RANGE)
    with dag:
        tasks = {stage.name: stage_task(pipeline, stage, "--stage", stage.name, *run) for stage in pipeline.stages}
        for stage in pipeline.stages:
            for earlier in pipeline.before(stage):
                tasks[earlier] >> tasks[stage.name]
        for model, maker in pipeline.models.items():
            registered = [asset(f"challenger({model})")]
            name = "register" if len(pipeline.models) == 1 else f"register_{model}"
            register = module(name, "dags.steps.register", "--model", model, *run, minutes=20, outlets=registered)
            tasks[maker] >> register
    return dag


def job_dag(pipeline: Pipeline, job: Job) -> DAG:
    """One stage outside of training runs. Its tables set off whatever waits for them, if it has a partition. Before it
    comes what Spark builds for it, which may find that there is nothing to do, and after it what is told online.

    A challenger whose lists are played does not set it off: that model's promotion makes them first (`trials`).
    """
    dag = new_dag(
        job.name,
        job.notes,
        schedule=_schedule(replace(job, after=_without_trials(job))),
        owner="ml-engineering",
        tags=["registry", "nightly", DAILY_CHAIN] if job.after else ["registry", NEARLINE],
        deadline_minutes=job.deadline_minutes,
    )
    with dag:
        day = RANGE if job.after else TODAY
        task = _job_task(pipeline, job, day)
        if job.after:
            task.add_outlets([asset(table) for table in job.stage.writes.tables])
        if job.builds:
            run = _job_run(pipeline, job, day)
            heavy("prepare", "dags.steps.prepare_job", *run, minutes=job.stage.time_limit_minutes) >> task
        if job.online:
            task >> module("online", "feature_store", "push", *job.online, minutes=job.stage.time_limit_minutes)
    return dag


def _job_task(pipeline: Pipeline, job: Job, day: Sequence[str]) -> BaseOperator:
    return stage_task(pipeline, job.stage, *_job_run(pipeline, job, day))


def _job_run(pipeline: Pipeline, job: Job, day: Sequence[str]) -> tuple[str, ...]:
    return ("--job", job.name, "--system", pipeline.system, "--run-id", "{{ run_id }}", *day)


def trials(model: str) -> list[tuple[Pipeline, Job]]:
    """The jobs that make lists of a challenger of `model` for the market: they wait for it, and are played."""
    jobs = [(pipeline, job) for pipeline in pipelines() for job in pipeline.jobs if PLAYED in job.stage.writes.tables]
    return [(pipeline, job) for pipeline, job in jobs if f"challenger({model})" in job.after]


def hearings() -> list[tuple[Pipeline, Job]]:
    """The jobs that say something of lists, as the judge's does: they follow them and read them."""
    jobs = [(pipeline, job) for pipeline in pipelines() for job in pipeline.jobs]
    return [(pipeline, job) for pipeline, job in jobs if PLAYED in job.after and PLAYED in job.stage.reads.lake]


def _without_trials(job: Job) -> tuple[str, ...]:
    played = PLAYED in job.stage.writes.tables
    return tuple(written for written in job.after if not (played and assets.is_challenger(written)))


def _schedule(trigger: Trigger) -> PartitionedAssetTimetable | DeltaTriggerTimetable | None:
    """Where a flag approves, each challenger is decided on at once: who waits for decisions waits for these, and for
    the lists of other jobs, which follow decisions of their own: for all of them, so that it comes once."""
    if trigger.every:
        return every(trigger.minutes)
    decisions = [written for written in trigger.after if assets.is_decision(written)]
    if decisions and PROFILE.airflow.approve_by_flag:
        lists = [written for written in trigger.after if written in lists_of_jobs()]
        return after_all(*lists, *decisions)
    return after(*trigger.after) if trigger.after else None


def replayed(*tables: str, outlets: Sequence[Asset]) -> RunCommand:
    """The market's tables of the night."""
    return heavy("replay", "spark_jobs", *tables, *LAST_DAY, minutes=60, outlets=list(outlets))


def promotion_dag(doc: str, model: str) -> DAG:
    """Gate report, a person's answer, and the decision, about one registered model.

    Where its lists are played, the challenger's are made, played and judged first, beside those of the champion or of
    what stands in for one. Whatever becomes of that, the gate is held: what was not played or judged says so, and the
    gate file says whether it stops a promotion. Where a flag approves nobody is told of these lists: those who wait for
    lists wait for what follows the decision, and would not wait for that if they had met these.
    """
    report, answer = "ti.xcom_pull(task_ids='gate_report')", "ti.xcom_pull(task_ids='approve')"
    version = f"{{{{ {report}['version'] or '' }}}}"
    dag = new_dag(
        promotion(model),
        doc.format(model=model),
        schedule=after(f"challenger({model})"),
        owner="ml-engineering",
        tags=["registry", DAILY_CHAIN],
        deadline_minutes=720,
    )
    with dag:
        ask = module(
            "gate_report", "dags.steps.gate_report", "--model", model, minutes=10, trigger_rule=TriggerRule.ALL_DONE
        )
        approve = approval("approve", f"Promote {{{{ {report}['title'] }}}}?", f"{{{{ {report}['text'] }}}}", version)
        decide = module(
            "decide",
            "dags.steps.decide",
            *("--model", model, "--version", version),
            *("--answer", f"{{{{ {answer}['chosen_options'][0] }}}}"),
            *("--form", f"{{{{ {answer}['params_input'] | tojson }}}}"),
            *("--who", f"{{{{ ({answer}['responded_by_user'] or {{}}).get('name', 'nobody') }}}}"),
            minutes=10,
            outlets=[asset(f"decision({model})")],
        )
        if made := [_job_task(pipeline, job, RANGE) for pipeline, job in trials(model)]:
            told = [] if PROFILE.airflow.approve_by_flag else [asset(PLAYED), asset(REPLAY)]
            for said in (replayed(REPLAY, outlets=told), *(_job_task(*one, RANGE) for one in hearings())):
                made >> said >> ask
        chain(ask, approve, decide)
    return dag


def lists_of_jobs() -> list[str]:
    """The tables of the jobs that follow an asset."""
    return [table for job in _following_jobs() for table in job.stage.writes.tables]


def _following_jobs() -> list[Job]:
    return [job for pipeline in pipelines() for job in pipeline.jobs if job.after]


def news() -> PartitionedAssetTimetable | None:
    """Whenever analysts have something new to read. Where a flag approves, once a partition: after the last of it.

    Where a person decides, the report waits neither for the answer nor for the lists: it is made before, and again
    after. None, where no system brings any.
    """
    models, lists = [model for pipeline in pipelines() for model in pipeline.models], lists_of_jobs()
    jobs, played = _following_jobs(), PLAYED in lists
    awaited = [*(f"decision({model})" for model in models), *lists, *([REPLAY] if played else [])]
    if not awaited:
        return None
    if not PROFILE.airflow.approve_by_flag:
        return after(*(f"challenger({model})" for model in models), *awaited)
    # The last of a night are the replay and what jobs make: behind the lists and the decisions that lead to them. Who
    # waited for those as well would make the page before the last, where one is left over of a task that was repeated,
    # and not at all, where a single decision is made by hand.
    before = {written for job in jobs for written in job.after} | ({PLAYED} if played else set())
    before |= {f"decision({model})" for job in jobs for model in job.stage.reads.models}
    return after_all(*(one for one in awaited if one not in before))


def stage_task(pipeline: Pipeline, stage: Stage, *arguments: str) -> BaseOperator:
    """A task that does all of a stage: as a process of its own, or, on Kubernetes, with a pod for the training.

    A pod's task holds a slot of the GPU pool per GPU, from before its pod is there until its results are.
    """
    step, limits = "dags.steps.run_stage", _limits(stage.time_limit_minutes, stage.retry)
    if PROFILE.launcher.kind == "local":
        return RunCommand(task_id=stage.name, arguments=("-m", step, "run", *arguments), pool=HEAVY_POOL, **limits)
    from dags.pods import StagePod  # see there why not above

    gpu, pool = stage.gpu, {}
    if gpu.count:
        # A task that wants more slots than its pool has never starts; one machine runs it with the GPUs that it has.
        slots = max(1, min(gpu.count, PROFILE.launcher.gpu_slots))
        pool = {"pool": PROFILE.launcher.gpu_pool, "pool_slots": slots}
    return StagePod(
        task_id=stage.name,
        prepare=("-m", step, "prepare", *arguments),
        finish=("-m", step, "finish", *arguments),
        pod=partial(pod_spec, f"{pipeline.system}.{stage.name}", profile=PROFILE, gpus=gpu.count, gpu_class=gpu.kind),
        **pool,
        **limits,
    )
