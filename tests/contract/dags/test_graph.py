"""The shape of the whole graph, and the exact command of each task."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.assets import decision
from common.errors import DataError
from infra import processes
from infra.airflow_env import DAILY_CHAIN, FIRST_DAG, NO_DAG, airflow_environment, dag_files
from infra.profile import CHECKOUT, load_profile

DAGS = CHECKOUT / "dags"
JUDGE = ("align_semantic_judge", "promote_semantic_judge", "nightly_judge_scoring")
HINTS = ("align_query_rec", "promote_hint_ranker", "promote_query_rec", "nightly_trigger_to_query")
BESIDE = ("train_ranker", "promote_ranker", *JUDGE, *HINTS)
MADE = ("align_generative_rec", "promote_generative_rec", "nightly_recommend", *BESIDE)  # of the declarations
MODELS = ("generative_rec", "hint_ranker", "query_rec", "ranker", "semantic_judge")
CHAIN = ("ingest", "build_samples", "features", *MADE, "market", "quality_report")
FILES = {"systems", "declarations", "maintenance", *CHAIN} - {*MADE, "market"}
RANGE = [
    "--from",
    "{{ days(partition_key, params, triggering_asset_events).first }}",
    "--partition",
    "{{ days(partition_key, params, triggering_asset_events).last }}",
]
RUN = ["--system", "generative_rec", "--run-id", "{{ run_id }}", *RANGE]
RECORD = "python tests/contract/dags/graph.py"
# What may not be loaded while DAG files are parsed: each costs seconds in every parse and every task.
HEAVY = (
    "torch",
    "pandas",
    "pyspark",
    "numpy",
    "pyarrow",
    "feast",
    "mlflow",
    "kubernetes",
    "great_expectations",
    "duckdb",
)


def _graph() -> Any:
    spec = importlib.util.spec_from_file_location("dag_graph", Path(__file__).with_name("graph.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_graph_is_the_recorded_one(bag: Any) -> None:
    graph = _graph()
    found = graph.as_text(graph.describe(bag.dags))
    assert found == graph.SNAPSHOT.read_text(), f"If the change is meant: {RECORD}, and look at the diff."


def test_the_chain_of_one_system_has_at_most_29_tasks(bag: Any) -> None:
    """Three of them, the training sets of the judge and of hints and the judge's score, are other systems'."""
    assert sum(len(bag.dags[dag_id].tasks) for dag_id in CHAIN if dag_id not in BESIDE) <= 29


def test_each_dag_of_the_chain_is_set_off_by_the_one_before(bag: Any) -> None:
    before = _before(_graph().describe(bag.dags), CHAIN[1:])
    assert {dag.dag_id for dag in bag.dags.values() if DAILY_CHAIN in dag.tags} == set(CHAIN)
    assert CHAIN[0] == FIRST_DAG
    assert before == {
        "build_samples": {"ingest"},
        "features": {"build_samples"},
        "align_generative_rec": {"train_ranker"},
        "train_ranker": {"features"},
        "promote_ranker": {"train_ranker"},
        "align_semantic_judge": {"features"},
        "promote_semantic_judge": {"align_semantic_judge"},
        "align_query_rec": {"features"},
        "promote_hint_ranker": {"align_query_rec"},
        "promote_query_rec": {"align_query_rec"},
        "promote_generative_rec": {"align_generative_rec"},
        "nightly_trigger_to_query": {"build_samples", "promote_query_rec", "promote_hint_ranker"},
        "nightly_recommend": {"build_samples", "promote_generative_rec"},
        "nightly_judge_scoring": {"nightly_recommend", "promote_generative_rec", "promote_semantic_judge"},
        "market": {"nightly_recommend", "promote_generative_rec"},
        "quality_report": {
            "align_generative_rec",
            "promote_generative_rec",
            "nightly_recommend",
            "market",
            "train_ranker",
            "promote_ranker",
            "align_semantic_judge",
            "promote_semantic_judge",
            "nightly_judge_scoring",
            "align_query_rec",
            "promote_hint_ranker",
            "promote_query_rec",
            "nightly_trigger_to_query",
        },
    }


def _before(graph: dict[str, Any], dags: Iterable[str]) -> dict[str, set[str]]:
    """By which DAGs each of these is set off."""
    made: dict[str, set[str]] = {}
    for dag_id, dag in graph.items():
        for asset in (asset for task in dag["tasks"].values() for asset in task["outlets"]):
            made.setdefault(asset, set()).add(dag_id)
    awaited = {dag_id: re.split(r" [|&] ", graph[dag_id]["schedule"]) for dag_id in dags}
    return {dag_id: set().union(*(made[name] for name in names)) for dag_id, names in awaited.items()}


def test_a_challenger_is_played_and_judged_before_the_gate_is_held_whatever_becomes_of_it(bag: Any) -> None:
    tasks = _graph().describe(bag.dags)["promote_generative_rec"]["tasks"]
    nightly = bag.dags["nightly_recommend"].get_task("recommend")
    recommend = bag.dags["promote_generative_rec"].get_task("recommend")
    assert recommend.arguments == nightly.arguments and tasks["recommend"]["after"] == []
    assert tasks["replay"]["arguments"][:3] == ["-m", "spark_jobs", "market_replay"]
    score = bag.dags["nightly_judge_scoring"].get_task("score")
    assert bag.dags["promote_generative_rec"].get_task("score").arguments == score.arguments
    assert not tasks["score"]["outlets"], "the page would take it for the night's"
    before = {name: tasks[name]["after"] for name in ("replay", "score", "gate_report", "approve", "decide")}
    assert before == {
        "replay": ["recommend"],
        "score": ["recommend"],
        "gate_report": ["replay", "score"],
        "approve": ["gate_report"],
        "decide": ["approve"],
    }
    rules = {task.task_id: task.trigger_rule.value for task in bag.dags["promote_generative_rec"].tasks}
    assert rules == {**dict.fromkeys(tasks, "all_success"), "gate_report": "all_done"}
    assert set(_graph().describe(bag.dags)["promote_ranker"]["tasks"]) == {"gate_report", "approve", "decide"}


def test_hints_follow_the_clock_between_what_spark_finds_and_the_online_store(bag: Any) -> None:
    """One run at a time, and none that was missed; what there is nothing to do for is skipped, not failed."""
    dag = bag.dags["nearline_hints"]
    assert (dag.max_active_runs, dag.catchup, DAILY_CHAIN in dag.tags) == (1, False, False)
    tasks = _graph().describe(bag.dags)["nearline_hints"]["tasks"]
    assert {name: task["after"] for name, task in tasks.items()} == {
        "prepare": [],
        "nearline_hints": ["prepare"],
        "online": ["nearline_hints"],
    }
    run = ["--job", "nearline_hints", "--system", "query_rec", "--run-id", "{{ run_id }}"]
    assert tasks["prepare"]["arguments"][:-2] == ["-m", "dags.steps.prepare_job", *run]
    assert tasks["online"]["arguments"] == ["-m", "feature_store", "push", "user_hints"]
    assert all(task["outlets"] == [] for task in tasks.values()), "a day's chain is not set off every five minutes"


@pytest.mark.parametrize("by_flag", [False, True])
def test_no_decision_leads_to_another_one(by_flag: bool, bag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision sets off lists, these the market, and neither of them a promotion; by flag nor by hand."""
    from dags import builder

    _approve(monkeypatch, by_flag=by_flag)
    models = [(pipeline, model) for pipeline in builder.pipelines() for model in pipeline.models]
    made = [
        *(builder.promotion_dag("### {model}", model) for _, model in models),
        *(builder.job_dag(pipeline, job) for pipeline in builder.pipelines() for job in pipeline.jobs),
    ]
    graph = {**_graph().describe(bag.dags), **_graph().describe({dag.dag_id: dag for dag in made})}
    before = _before(graph, (dag_id for dag_id in CHAIN[1:] if dag_id != "quality_report"))
    for _, model in models:
        behind, found = {f"promote_{model}"}, set[str]()
        while behind - found:
            found |= behind
            behind = {dag_id for dag_id, causes in before.items() if causes & found}
        assert not behind & {"train_ranker", "align_generative_rec"}
        scored = {"nightly_judge_scoring"} if model in ("generative_rec", "semantic_judge") else set()
        scored |= {"nightly_trigger_to_query"} if model in ("hint_ranker", "query_rec") else set()
        assert behind == scored | ({"nightly_recommend", "market"} if model == "generative_rec" else set())


def test_where_a_flag_approves_nobody_is_told_of_lists_before_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report waits for lists, replay and decisions together: it would come before the replay that follows."""
    from dags import builder

    told = {}
    for by_flag in (False, True):
        _approve(monkeypatch, by_flag=by_flag)
        dag = builder.promotion_dag("### {model}", "generative_rec")
        told[by_flag] = {outlet.name for task in dag.tasks for outlet in task.outlets}
    assert told[True] == {"generative_rec_decision"}
    assert told[False] == {"generative_rec_decision", "recommendations", "market_replay"}


def test_where_a_person_decides_each_replay_makes_the_page_anew(bag: Any) -> None:
    """Before the answer and after it: both replays tell of themselves, and any of what the report follows suffices."""
    graph = _graph().describe(bag.dags)
    assert "market_replay" in graph["quality_report"]["schedule"].split(" | ")
    for dag_id in ("promote_generative_rec", "market"):
        assert "market_replay" in graph[dag_id]["tasks"]["replay"]["outlets"]


def test_without_played_lists_the_report_of_a_flag_comes_after_all_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from dags import builder

    _approve(monkeypatch, by_flag=True)
    bare = [replace(pipeline, jobs=()) for pipeline in builder.pipelines()]
    monkeypatch.setattr(builder, "pipelines", lambda: bare)
    decided = " & ".join(f"{model}_decision" for model in MODELS)
    assert _graph()._schedule(builder.news()) == decided
    assert builder.trials("generative_rec") == []
    assert [task.task_id for task in builder.promotion_dag("### {model}", "generative_rec").tasks] == [
        "gate_report",
        "approve",
        "decide",
    ]


def _approve(monkeypatch: pytest.MonkeyPatch, *, by_flag: bool) -> None:
    from dags import builder

    airflow = builder.PROFILE.airflow.model_copy(update={"approve_by_flag": by_flag})
    monkeypatch.setattr(builder, "PROFILE", builder.PROFILE.model_copy(update={"airflow": airflow}))


def test_every_table_that_is_ingested_or_built_sets_off_whoever_waits_for_it(bag: Any) -> None:
    from spark_jobs.__main__ import BUILT, LANDED

    for dag_id, task_id, tables in (("ingest", "landed", LANDED), ("build_samples", "samples", BUILT)):
        assert {asset.name for asset in bag.dags[dag_id].get_task(task_id).outlets} == set(tables)


def test_what_no_system_of_the_profile_reads_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from dags import builder

    monkeypatch.setattr(builder, "PROFILE", builder.PROFILE.model_copy(update={"systems": ("query_rec",)}))
    assert builder.is_read("query_samples") and builder.is_read("hint_samples", "hint_training_set")
    assert not builder.is_read("judge_pairs") and not builder.is_read("next_item_samples", "next_item_training_set")
    chosen, _ = builder.declared_systems(builder.PROFILE)
    fault = DataError("The declaration cannot be read.")
    monkeypatch.setattr(builder, "declared_systems", lambda *_: (chosen, [fault]))
    assert builder.is_read("judge_pairs"), "it may be read by the system that cannot be used today"


def test_a_decision_on_the_command_line_makes_the_event_that_promote_makes(bag: Any) -> None:
    (outlet,) = bag.dags["promote_generative_rec"].get_task("decide").outlets
    assert outlet.name == decision("generative_rec").name


def test_where_a_flag_approves_lists_follow_the_decision_and_the_report_comes_once_after_all(
    bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dags import builder

    _approve(monkeypatch, by_flag=True)
    schedule = _graph()._schedule
    jobs = {job.name: builder.job_dag(one, job).timetable for one in builder.pipelines() for job in one.jobs}
    assert schedule(jobs["nightly_recommend"]) == "generative_rec_decision"
    assert schedule(jobs["nightly_judge_scoring"]) == "recommendations & semantic_judge_decision"
    assert schedule(jobs["nightly_trigger_to_query"]) == "query_rec_decision & hint_ranker_decision"
    # Behind the lists and the decisions that lead to them.
    assert schedule(builder.news()) == "trigger_queries & judge_scores & judge_checks & judge_means & market_replay"


def test_a_judge_without_lists_to_score_follows_its_decision_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that it waited for would come, and the report would wait for it."""
    from dags import builder

    _approve(monkeypatch, by_flag=True)
    alone = [pipeline for pipeline in builder.pipelines() if pipeline.system == "semantic_judge"]
    monkeypatch.setattr(builder, "pipelines", lambda: alone)
    (job,) = alone[0].jobs
    assert _graph()._schedule(builder.job_dag(alone[0], job).timetable) == "semantic_judge_decision"
    assert _graph()._schedule(builder.news()) == "judge_scores & judge_checks & judge_means"


@pytest.mark.parametrize(
    ("dag_id", "task_id", "arguments"),
    [
        ("ingest", "landed", ["-m", "spark_jobs", "landed", "--go-on", *RANGE]),
        (
            "features",
            "training_set",
            ["-m", "feature_store", "training-set", "--table", "next_item_training_set", *RANGE],
        ),
        ("align_generative_rec", "sft", ["-m", "dags.steps.run_stage", "run", "--stage", "sft", *RUN]),
        ("align_generative_rec", "register", ["-m", "dags.steps.register", "--model", "generative_rec", *RUN]),
        ("nightly_recommend", "recommend", ["-m", "dags.steps.run_stage", "run", "--job", "nightly_recommend", *RUN]),
        ("quality_report", "report", ["-m", "dags.steps.report"]),
        ("maintenance", "reconcile", ["-m", "infra.ledger", "reconcile"]),
    ],
)
def test_a_task_runs_exactly_this_command(bag: Any, dag_id: str, task_id: str, arguments: list[str]) -> None:
    assert bag.dags[dag_id].get_task(task_id).arguments == arguments


def test_a_stage_of_the_declaration_is_a_task_with_its_limit_and_its_retries(bag: Any) -> None:
    task = bag.dags["align_generative_rec"].get_task("sft")
    assert (task.execution_timeout.total_seconds() / 60, task.retries, task.pool) == (120, 10, "heavy")


def test_dag_files_import_nothing_but_the_builder() -> None:
    rooms = set((DAGS / ".airflowignore").read_text().split())
    files = [path for path in DAGS.glob("*.py") if path.name not in rooms]
    assert {path.stem for path in files} == FILES
    for path in files:
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert [getattr(node, "module", None) for node in imports] == ["dags.builder"], path.name


@pytest.mark.parametrize("system", ["generative_rec", "query_rec"])
def test_every_dag_file_has_a_dag_whatever_system_is_chosen(system: str, tmp_path: Path) -> None:
    """Whoever starts Airflow waits until it has read a DAG of each; in a process of its own, as DAGs are built once."""
    profile = load_profile("local", {"PLUMBLINE__HOME": str(tmp_path), "PLUMBLINE__SYSTEMS": f"[{system}]"})
    code = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(DAGS)!r}, safe_mode=False)\n"
        "print(*{dag.fileloc for dag in bag.dags.values()}, sep='\\n')"
    )
    environment = {**processes.inherited(), **airflow_environment(profile)}
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    made = {Path(line).name for line in done.stdout.splitlines() if line.startswith(str(DAGS))}
    assert {path.name for path in dag_files()} - {NO_DAG} <= made, done.stderr


def test_parsing_loads_no_heavy_package() -> None:
    """In a process of its own: this one has loaded them all."""
    code = (
        "import sys, airflow.sdk, airflow.providers.standard.operators.hitl; before = set(sys.modules)\n"
        "import dags.ingest, dags.features, dags.systems, dags.quality_report, dags.maintenance\n"
        f"print([name for name in {HEAVY!r} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_airflow_parses_no_file_that_is_not_a_dag(bag: Any) -> None:
    """`.airflowignore` keeps steps and helpers from the parser: importing a step would load its packages."""
    from airflow.dag_processing.dagbag import DagBag

    files = {Path(stat.file).name for stat in DagBag(DAGS, safe_mode=False).dagbag_stats}
    assert files == {f"{name}.py" for name in FILES}


def test_where_nobody_follows_the_clock_daily_dags_wait_for_a_trigger(
    bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo must not be joined by a run for yesterday; a partition can still be given when it is triggered."""
    from dags import builder

    airflow = builder.PROFILE.airflow.model_copy(update={"follow_clock": False})
    monkeypatch.setattr(builder, "PROFILE", builder.PROFILE.model_copy(update={"airflow": airflow}))
    assert builder.nightly(5) is None
    assert builder.daily(3).partitioned_at_runtime
    assert not builder.daily(3).can_be_scheduled


def test_the_list_of_dags_says_in_a_line_what_each_does(bag: Any) -> None:
    assert bag.dags["promote_generative_rec"].description == (
        "Promote generative_rec: a person says whether the challenger becomes the champion"
    )
    assert all(dag.description and "#" not in dag.description for dag in bag.dags.values())
