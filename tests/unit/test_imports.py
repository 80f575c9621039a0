"""The arrows between the rooms, kept by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.pipelines import Pipeline, read_pipeline

ROOT = Path(__file__).resolve().parents[2]
OURS = {"common", "infra", "spark_jobs", "feature_store", "training", "registry", "dags"}
ALLOWED: dict[str, set[str]] = {
    "common": set(),
    "infra": {"common"},
    "spark_jobs": {"common", "infra"},
    "feature_store": {"common", "infra"},
    "mlflow/registry": {"common", "infra"},
    "training": {"common"},
    "dags/steps": {"common", "infra", "registry", "feature_store", "dags"},
}
HEAVY = {"torch", "transformers", "pyspark", "pandas", "feast", "mlflow", "great_expectations"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def foreign(source: str, room: str, allowed: set[str]) -> set[str]:
    """Modules of ours that `source` in `room` imports without leave."""
    own = "registry" if room == "mlflow/registry" else room.split("/")[0]
    heads = {name.split(".")[0] for name in imported(ast.parse(source))}
    return (heads & OURS) - allowed - {own}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_its_foundations(room: str) -> None:
    faults = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / room).rglob("*.py")
        if (names := foreign(path.read_text(), room, ALLOWED[room]))
    }
    assert not faults


def test_the_check_can_fail() -> None:
    assert foreign("from spark_jobs.engine.job import run", "infra", set()) == {"spark_jobs"}
    assert foreign("import registry.gates", "training", set()) == {"registry"}


def other_systems(source: str, system: str, systems: set[str]) -> set[str]:
    """The systems that `source` in the room of `system` imports beside its own."""
    heads = {".".join(name.split(".")[:2]) for name in imported(ast.parse(source))}
    return heads & {f"training.{other}" for other in systems - {system}}


def makers_of_what_it_reads(pipeline: Pipeline, everything: list[Pipeline]) -> set[str]:
    """The systems whose models it reads: their rooms know how such a model is loaded and asked."""
    stages = [*pipeline.stages, *(job.stage for job in pipeline.jobs)]
    read = {model for stage in stages for model in stage.reads.models}
    return {f"training.{other.system}" for other in everything if read & set(other.models)}


def test_a_system_room_imports_those_alone_whose_models_it_reads() -> None:
    everything = [read_pipeline(path.parent.name) for path in (ROOT / "training").glob("*/pipeline.yaml")]
    systems = {pipeline.system for pipeline in everything}
    for pipeline in everything:
        allowed = makers_of_what_it_reads(pipeline, everything)
        for path in (ROOT / "training" / pipeline.system).rglob("*.py"):
            assert other_systems(path.read_text(), pipeline.system, systems) <= allowed, path


def test_the_check_of_systems_can_fail() -> None:
    source = "from training.judge.serve import load\nfrom training.core.loop import Loop\nimport training.shop.sft"
    assert other_systems(source, "shop", {"shop", "judge"}) == {"training.judge"}


@pytest.mark.parametrize(("room", "allowed"), [("core", {"core"}), ("next_item", {"core", "next_item"})])
def test_what_systems_share_imports_no_system_room(room: str, allowed: set[str]) -> None:
    for path in (ROOT / "training" / room).rglob("*.py"):
        parts = [name.split(".") for name in imported(ast.parse(path.read_text()))]
        assert all(part[1] in allowed for part in parts if part[0] == "training" and len(part) > 1), path


def test_dag_files_import_nothing_heavy_when_they_are_parsed() -> None:
    for path in (ROOT / "dags").glob("*.py"):
        tree = ast.parse(path.read_text())
        heads = {name.split(".")[0] for node in tree.body for name in imported(node)}
        assert not heads & HEAVY, path


@pytest.mark.parametrize("name", ["mlflow", "dbt"])
def test_a_folder_named_like_a_package_is_no_package_itself(name: str) -> None:
    assert not (ROOT / name / "__init__.py").exists()
