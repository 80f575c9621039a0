"""Nobody who makes samples, features or models reads the market's truth: all declared reads, and one made up."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from common.errors import DataError
from common.pipelines import read_pipeline, systems
from common.truth import EVALUATION, forbidden, is_truth
from feature_store.definitions import DAILY_VIEWS, ITEM, DailyView
from feature_store.training_sets import TRAINING_SETS, TrainingSet
from infra.contracts import CONTRACTS, all_contracts
from infra.dbt import PROJECT
from infra.profile import CHECKOUT
from spark_jobs.__main__ import BUILT
from spark_jobs.engine.job import Input, Job
from spark_jobs.market.written import LOGS
from tests.pipeline_kit import TRAINING

MARKET, LANDING = (CHECKOUT / "spark_jobs" / room for room in ("market", "landing"))
SOURCE = re.compile(r"source\(\s*'lake'\s*,\s*'(\w+)'\s*\)")
TRUTH = sorted(filter(is_truth, all_contracts()))


def reads() -> Iterator[tuple[str, str]]:
    """Who reads which table of the lake, as it is declared."""
    for name in (*BUILT, "market_replay", "market_validity"):
        yield from ((name, source.table) for source in importlib.import_module(f"spark_jobs.{name}").JOB.inputs)
    for system in systems():
        declared = read_pipeline(system)
        for stage in (*declared.stages, *(job.stage for job in declared.jobs)):
            yield from ((stage.name, table) for table in stage.reads.lake)
    yield from ((view.name, view.table) for view in DAILY_VIEWS)
    yield from ((wanted.table, wanted.samples) for wanted in TRAINING_SETS.values())
    for model in PROJECT.glob("models/**/*.sql"):
        yield from ((model.stem, table) for table in SOURCE.findall(model.read_text()))


def seen(graph: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(reader, table) for reader, table in graph if forbidden([table], reader.removeprefix("fct_"))]


def test_nobody_reads_the_truth() -> None:
    graph = list(reads())
    assert seen(iter(graph)) == []
    tables = {table for _, table in graph}
    assert {"events", "recommendations", "next_item_samples", "user_stats", "next_item_training_set"} <= tables
    assert seen(iter([*graph, ("fct_judge", "true_people"), (f"fct_{EVALUATION}", "true_people")])) == [
        ("fct_judge", "true_people")
    ]


def test_every_query_of_a_stage_reads_only_tables_that_it_declares() -> None:
    """Else a query could read what its declaration does not name."""
    for query in Path(PROJECT).parent.glob("training/*/*.sql"):
        assert not re.search(r"\btrue_\w+", query.read_text())


def test_no_code_of_samples_features_or_training_names_a_table_of_the_truth() -> None:
    """What is read without a declaration, a folder of files say, is read by name."""
    rooms = (CHECKOUT / room for room in ("training", "feature_store", "spark_jobs", "mlflow", "dbt"))
    files = [file for room in rooms for ending in ("py", "sql", "yaml") for file in room.rglob(f"*.{ending}")]
    allowed = (MARKET, LANDING, CONTRACTS)
    named = re.compile(rf"\b({'|'.join(TRUTH)})\b")
    outside = [file for file in files if not any(file.is_relative_to(room) for room in allowed)]
    assert len(outside) > 200 and named.search((MARKET / "judged.py").read_text())
    assert [file for file in outside if named.search(file.read_text())] == []


def test_the_tables_of_the_truth_are_the_markets_and_say_that_they_are_simulated() -> None:
    assert TRUTH and set(TRUTH) <= set(LOGS)
    for table in TRUTH:
        contract = all_contracts()[table]
        assert contract.origin == "simulated" and "No sample, feature or model may read it" in contract.description


@pytest.mark.parametrize("as_job", [False, True])
@pytest.mark.parametrize("by_query", [False, True])
def test_a_stage_that_would_read_the_truth_is_refused_as_it_is_declared(
    tmp_path: Path, as_job: bool, by_query: bool
) -> None:
    asked = (
        {"query": {"file": "q.sql", "tables": ["events", "true_people"]}} if by_query else {"tables": ["true_people"]}
    )
    stage = {"name": "fit", "time_limit_minutes": 5, "retry": "data", "config": {"demo": {}}}
    knows = {**stage, "name": "knows", "reads": asked}
    job = {"name": "nightly", "notes": "### x", "deadline_minutes": 5, "every": "1h", "stage": knows}
    more = {"stages": [stage], "jobs": [job]} if as_job else {"stages": [stage, knows]}
    (tmp_path / "toy").mkdir()
    file = tmp_path / "toy" / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"training": TRAINING, **more}))
    with pytest.raises(DataError, match=r"(job nightly|stage knows) reads true_people: the market's truth"):
        read_pipeline("toy", tmp_path)
    file.write_text(file.read_text().replace("name: knows", f"name: {EVALUATION}"))
    assert read_pipeline("toy", tmp_path)


@pytest.mark.parametrize("table", TRUTH)
def test_no_spark_job_view_or_training_set_can_be_declared_over_the_truth(table: str) -> None:
    inputs = (Input("events"), Input(table, lookback_days=None))
    with pytest.raises(DataError, match=f"(?s)samples reads the market's truth.*{table}"):
        Job("samples", 1, inputs, {}, lambda *_: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(DataError, match="view reads the market's truth"):
        DailyView("view", ITEM, table)
    with pytest.raises(DataError, match="training_set reads the market's truth"):
        TrainingSet("training_set", table, "next_item_v1")
    assert Job(EVALUATION, 1, inputs, {}, lambda *_: None).inputs == inputs  # type: ignore[arg-type,return-value]
