"""Every DAG keeps every policy; and each policy has a bad twin, a DAG that breaks just this one and is found out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"dag_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


policies = _load("policies")
EXPECTED = {
    "ingest", "build_samples", "features", "align_generative_rec", "promote_generative_rec", "nightly_recommend",
    "train_ranker", "promote_ranker", "align_semantic_judge", "promote_semantic_judge", "market",
    "nightly_judge_scoring", "align_query_rec", "promote_hint_ranker", "promote_query_rec", "nightly_trigger_to_query",
    "nearline_hints", "quality_report", "maintenance",
}  # fmt: skip


def test_every_dag_file_parses_and_every_dag_is_there(bag: Any) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == EXPECTED


def test_what_airflow_shows_of_a_refusal_is_its_sentence(bag: Any, tmp_path: Path) -> None:
    (tmp_path / "refused.py").write_text("from common.errors import DataError\nraise DataError('No.', do='Mend it.')\n")
    assert list(type(bag)(tmp_path, safe_mode=False).import_errors.values()) == ["No.\n  do:    Mend it."]


@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda policy: policy.__name__)
def test_every_dag_keeps_the_policy(bag: Any, policy: Callable[[Any], Any]) -> None:
    assert {dag_id: list(policy(dag)) for dag_id, dag in bag.dags.items()} == {dag_id: [] for dag_id in bag.dags}


def _good() -> Any:
    from dags.builder import module, new_dag

    notes = " ".join(policies.SECTIONS)
    with new_dag("twin", notes, schedule=None, owner="analytics", tags=["report"], deadline_minutes=5) as dag:
        module("work", "infra.lake", "verify", minutes=5)
    return dag


def _clock(dag: Any) -> None:
    dag.tasks[0].arguments.append("{{ ds }}")


def _shell(dag: Any) -> None:
    from airflow.providers.standard.operators.bash import BashOperator

    limits = {"execution_timeout": timedelta(minutes=1), "on_failure_callback": print, "owner": "analytics"}
    BashOperator(task_id="shell", bash_command="true", dag=dag, **limits)


BAD_TWINS: dict[str, Callable[[Any], Any]] = {
    "has_triage_notes": lambda dag: setattr(dag, "doc_md", "Trains the model."),
    "has_known_tags": lambda dag: setattr(dag, "tags", {"misc"}),
    "has_known_owners": lambda dag: setattr(dag.tasks[0], "owner", "airflow"),
    "has_a_deadline": lambda dag: setattr(dag, "deadline", []),
    "alerts_on_failure": lambda dag: setattr(dag.tasks[0], "on_failure_callback", []),
    "limits_every_task": lambda dag: setattr(dag.tasks[0], "execution_timeout", None),
    "waits_in_a_known_pool": lambda dag: setattr(dag.tasks[0], "pool", "nobody_made_it"),
    "reads_no_clock": _clock,
    "runs_without_a_shell": _shell,
    "is_small_and_single": lambda dag: setattr(dag, "max_active_runs", 16),
}


def test_every_policy_has_a_bad_twin() -> None:
    assert set(BAD_TWINS) == {policy.__name__ for policy in policies.POLICIES}


@pytest.mark.parametrize("name", BAD_TWINS)
def test_the_bad_twin_breaks_its_policy_and_no_other(bag: Any, name: str) -> None:
    twin = _good()
    assert [fault for policy in policies.POLICIES for fault in policy(twin)] == []
    BAD_TWINS[name](twin)
    assert [policy.__name__ for policy in policies.POLICIES if list(policy(twin))] == [name]
