"""A shop whose stages are made by hand: what follows the training is run for real, step by step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.pipelines import Pipeline
from dags.steps import decide, export_tables, gate_report, register
from dags.steps._runs import open_run
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.results import RESULT_FILE
from registry import runs
from registry.aliases import aliases
from registry.promotions import Decision, Promotions
from registry.store import connect
from tests.pipeline_kit import declared
from tests.registry_kit import MODEL, empty_store, finish_stage, profile, publish_day
from tests.warm_kit import warm_parent

__all__ = ["empty_store", "profile"]


@pytest.fixture(scope="session", autouse=True)
def forked_stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with warm_parent(tmp_path_factory.mktemp("warm"), {}) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


FIRST = date(2018, 1, 5)
METRIC = {"model": "sft", "metric": "recall@10", "slice": "all", "split": "time", "value": 0.4, "lo": 0.3, "hi": 0.5}


@dataclass
class Steps:
    """Runs the steps of one shop, as the DAGs do, and looks at what they leave."""

    profile: Profile
    pipeline: Pipeline
    patch: pytest.MonkeyPatch
    scratch: Path
    days: int = 0

    def train(self, hits: int) -> None:
        """A new day of data, and on it the finished stages of a model that finds the items of `hits` users."""
        self.days += 1
        snapshot = publish_day(self.profile, self.day, self.days)
        run = open_run(self.profile, self.pipeline, f"run {self.days}", self.day)
        sft = finish_stage(run.folder, "sft", snapshot=snapshot)
        runs.log_stage(self.profile, sft, sft)
        out = finish_stage(run.folder, "evaluate", snapshot=snapshot, hits=hits, artifacts={"sft": str(sft)})
        pq.write_table(pa.Table.from_pylist([{**METRIC, "n": 60, "scored": 60}]), out / "tables" / "metrics.parquet")
        result = json.loads((out / "result.json").read_text())
        result["tables"]["model_metrics"] = ["tables/metrics.parquet"]
        (out / "result.json").write_text(json.dumps(result))

    @property
    def day(self) -> date:
        """The newest day of data."""
        return FIRST + timedelta(days=self.days)

    def register(self, run_id: str | None = None, day: date | None = None) -> Any:
        """The step `register` of an Airflow run; what it hands on."""
        partition = (day or self.day).isoformat()
        name = run_id or f"run {self.days}"
        return self._run(register, ["--system", "toy", "--model", MODEL, "--run-id", name, "--partition", partition])

    def promote(self, answer: str = "Approve", who: str = "flag", **form: Any) -> Any:
        """The DAG `promote`: `gate_report`, whose version `decide` is given with the answer; what is handed on."""
        asked = self._run(gate_report, ["--model", MODEL])
        said = {"reason": "approve_by_flag is set in the profile", "override": False, **form}
        answered = ["--answer", answer, "--form", json.dumps(said), "--who", who]
        self._run(decide, ["--model", MODEL, "--version", asked["version"] or "", *answered])
        return asked

    def export(self) -> None:
        """The step `export_tables`, on a day on which Airflow has run nothing."""
        self.patch.setattr(export_tables.AirflowClient, "of", lambda profile: _IdleAirflow())
        self._run(export_tables, [])

    def decisions(self) -> list[Decision]:
        """The ledger."""
        return Promotions(self.profile).history(MODEL)

    def versions(self) -> list[str]:
        """What is registered."""
        return [str(found.version) for found in connect(self.profile).search_model_versions(f"name='{MODEL}'")]

    def aliases(self) -> dict[str, str]:
        """Alias to version."""
        return aliases(connect(self.profile), MODEL)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table of the lake."""
        return [row for file in Lake(self.profile).files(table) for row in pq.read_table(file.path).to_pylist()]

    def state(self) -> dict[str, Any]:
        """All that a repeated step must leave as it is."""
        lake = Lake(self.profile)
        tables = ("user_stats", "ops_model_metrics", "ops_promotions")
        client = connect(self.profile)
        return {
            "decisions": self.decisions(),
            "versions": self.versions(),
            "aliases": self.aliases(),
            "runs": sorted(run.info.run_id for run in client.search_runs(self._experiments())),
            "lake": {table: lake.snapshot(table) for table in tables},
            "tags": [version.tags for version in lake.history("user_stats")],
            "unbalanced": Ledger(self.profile).reconcile(),
        }

    def _experiments(self) -> list[str]:
        return [found.experiment_id for found in connect(self.profile).search_experiments()]

    def _run(self, step: Any, arguments: Sequence[str]) -> Any:
        result = self.scratch / "result.json"
        result.unlink(missing_ok=True)
        self.patch.setenv(RESULT_FILE, str(result))
        self.patch.setattr(sys, "argv", [step.__name__, *arguments])
        assert step.main() == 0
        return json.loads(result.read_text()) if result.exists() else None


class _IdleAirflow:
    """An API server that knows of no run."""

    def runs(self, since: Any) -> list[Any]:
        return []


@pytest.fixture
def steps(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    common: dict[str, Any] = {"time_limit_minutes": 5, "retry": "transient", "config": {"demo": {}}}
    sft = {"name": "sft", "reads": {"tables": ["user_stats"]}, "writes": {"artifact": True}, **common}
    evaluate = {"name": "evaluate", "reads": {"artifacts": ["sft"]}, "writes": {"artifact": True}, **common}
    pipeline = declared(stages=[sft, evaluate], models={MODEL: "evaluate"})
    monkeypatch.setattr(register, "load_pipeline", lambda system, preset: pipeline)
    return Steps(profile, pipeline, monkeypatch, tmp_path)
