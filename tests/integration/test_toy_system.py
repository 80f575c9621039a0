"""A new system is a folder, a gate for each model and a contract for each new table: no other file is touched.

The checkout is copied, the toy put beside the systems that are there, and all of it run as the DAGs run it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.profile import CHECKOUT
from tests.warm_kit import warm_parent

TOY = Path(__file__).with_name("toy_system")
DAY, BEFORE = "2018-01-05", "2017-12-01"
ROOMS = ("common", "dags", "dbt", "feature_store", "infra", "mlflow", "spark_jobs", "tests", "training")
Run = Callable[..., Any]

GRAPH = """
import json, runpy
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags", safe_mode=False)
assert bag.import_errors == {}, bag.import_errors
policies = runpy.run_path("tests/contract/dags/policies.py")["POLICIES"]
faults = {name: [fault for policy in policies for fault in policy(dag)] for name, dag in bag.dags.items()}
print(json.dumps({"graph": runpy.run_path("tests/contract/dags/graph.py")["describe"](bag.dags), "faults": faults}))
"""
ERRORS = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags", safe_mode=False)
print(json.dumps({"errors": {file.rpartition("/")[2]: why for file, why in bag.import_errors.items()},
                  "dags": sorted(bag.dags)}))
"""
# Every step in one process: to import their packages for each of them takes longer than all that they do.
STEPS = """
import contextlib, importlib, io, json, sys
from datetime import date, timedelta
from types import SimpleNamespace
import pyarrow.parquet as pq
from dags.steps import export_tables
from infra.lake import Lake
from infra.profile import load_profile
from tests.registry_kit import publish_day
export_tables.AirflowClient.of = lambda profile: SimpleNamespace(runs=lambda since: [])  # on a day without any run
for back in (2, 1, 0):
    publish_day(load_profile(), date(2018, 1, 5) - timedelta(days=back), 40 - 10 * back)
answers = []
for name, *arguments in json.loads(sys.argv[1]):
    if name == "rows":
        files = [file.path for file in Lake(load_profile()).files(arguments[0])]
        answers.append([row for file in files for row in pq.read_table(file).to_pylist()])
        continue
    sys.argv = [name, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert importlib.import_module(f"dags.steps.{name}").main() == 0, said.getvalue()
    answers.append(said.getvalue())
print(json.dumps(answers, default=str))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with one system more."""
    root = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files", "--", *ROOMS], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, root / name)
    shutil.copytree(TOY, root / "training" / "toy", ignore=shutil.ignore_patterns("gate.yaml", "toy_scores.yaml"))
    shutil.copyfile(TOY / "toy_scores.yaml", root / "spark_jobs" / "contracts" / "toy_scores.yaml")
    for name in ("ranker", "writer"):
        gate = (TOY / "gate.yaml").read_text().format(name=name)
        (root / "mlflow" / "gates" / f"toy_{name}.yaml").write_text(gate)
    return root


@pytest.fixture(scope="module")
def run(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run Python with these arguments in the copy; what it printed last, as JSON if it is."""
    own = {"PYTHONPATH": f"{checkout}:{checkout / 'mlflow'}", "PLUMBLINE__HOME": str(checkout / "build")}
    environment = {**os.environ, **own, "AIRFLOW_HOME": str(checkout / "build" / "airflow")}

    def run(*arguments: str) -> Any:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=checkout, env=environment | warm, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    with warm_parent(tmp_path_factory.mktemp("warm"), own) as warm:
        yield run


def test_its_dags_are_there_and_keep_every_policy(run: Run) -> None:
    found = json.loads(run("-c", GRAPH).splitlines()[-1])
    graph = found["graph"]
    assert all(faults == [] for faults in found["faults"].values())
    assert set(graph) >= {"align_toy", "promote_toy_ranker", "promote_toy_writer", "toy_nightly", "toy_nearline"}
    assert set(graph) >= {"align_generative_rec", "nightly_recommend"}
    tasks = graph["align_toy"]["tasks"]
    assert {name: task["after"] for name, task in tasks.items()} == {
        "ranker": [],
        "writer": [],
        "register_toy_ranker": ["ranker"],
        "register_toy_writer": ["writer"],
    }
    assert tasks["register_toy_writer"]["outlets"] == ["toy_writer_challenger"]
    schedules = {name: dag["schedule"] for name, dag in graph.items()}
    assert schedules["align_toy"] == "user_stats"
    assert schedules["promote_toy_ranker"] == "toy_ranker_challenger"
    assert schedules["toy_nightly"] == "user_stats | toy_ranker_decision"
    assert schedules["toy_nearline"] == "every 0:15:00"
    assert graph["toy_nightly"]["tasks"]["score"]["outlets"] == ["toy_scores"]
    (nearline,) = graph["toy_nearline"]["tasks"].values()
    assert nearline["outlets"] == [] and "run_after" in nearline["arguments"][-1]
    waits = set(schedules["quality_report"].split(" | "))
    assert waits >= {"toy_ranker_challenger", "toy_writer_decision", "toy_scores", "recommendations"}


def test_a_faulty_system_beside_it_costs_its_own_dags_alone_and_airflow_says_why(run: Run, checkout: Path) -> None:
    broken = checkout / "training" / "zoo"
    broken.mkdir()
    try:
        (broken / "pipeline.yaml").write_text((TOY / "pipeline.yaml").read_text())  # the toy's jobs and models again
        found = json.loads(run("-c", ERRORS).splitlines()[-1])
    finally:
        shutil.rmtree(broken)
    (file, why), *others = found["errors"].items()
    assert (file, others) == ("declarations.py", [])
    assert "Two places make a DAG" in why and "training/toy" in why
    assert set(found["dags"]) >= {"align_toy", "toy_nightly", "nightly_recommend", "ingest", "quality_report"}
    assert "align_zoo" not in found["dags"]


def test_its_configs_are_checked_though_it_tells_no_sizes(run: Run) -> None:
    told = run("-m", "training", "check", "--system", "toy", "--preset", "demo")
    assert "writer           config" in told and "training/toy/sizes.py, which would tell it, is not there" in told


def test_it_trains_is_gated_makes_its_lists_and_stands_in_the_report(run: Run, checkout: Path) -> None:
    def of_run(name: str, *which: str) -> list[str]:
        return [name, *which, "--system", "toy", "--run-id", "r", "--partition", DAY]

    def trained(name: str) -> list[list[str]]:
        model = ["--model", f"toy_{name}"]
        answer = ["--version", "1", "--answer", "Approve", "--who", "ada"]
        return [
            of_run("run_stage", "run", "--stage", name),
            of_run("register", *model),
            ["decide", *model, *answer],
        ]

    nightly, nearline = (of_run("run_stage", "run", "--job", f"toy_{job}") for job in ("nightly", "nearline"))
    steps = [nightly, *trained("ranker"), *trained("writer"), nightly, ["rows", "toy_scores"], nearline]
    steps += [["rows", "toy_scores"], ["rows", "eval_values"], ["export_tables"], ["report"]]
    steps += [[*nearline[:-1], BEFORE]]  # of a day that has no users yet
    said = json.loads(run("-c", STEPS, json.dumps(steps)).splitlines()[-1])

    assert "score is left out: nothing stands yet" in said[0]
    assert "Gate passed: toy_ranker version 1" in said[2]
    assert "### Gate failed" in said[5] and "toy_writer version 1" in said[5]
    rows, again, values = said[8], said[10], said[11]
    assert len(rows) == 40  # those of two days; the writer was refused, so the ranker alone stands
    assert {(row["run_date"], row["model"], row["role"], row["score"]) for row in rows} == {
        (DAY, "toy_ranker", "champion", 0.9)
    }
    assert again == rows
    assert "score is left out: the query recent has found no row" in said[-1]
    assert Counter((row["stage"], row["model"]) for row in values) == {
        (stage, model): 40 for stage in ("ranker", "writer") for model in (stage, "coin")
    }
    folders = checkout / "build" / "stages" / "toy" / "jobs"
    made = [f"toy_nearline-{BEFORE}", f"toy_nearline-{DAY}", f"toy_nightly-{DAY}"]
    assert sorted(path.name for path in folders.glob("*/*")) == made
    page = (checkout / "build" / "report" / "index.html").read_text()
    assert "toy_ranker" in page and "toy_scores" in page
