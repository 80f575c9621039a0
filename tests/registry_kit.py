"""A toy model's life without training: finished stages made by hand, their MLflow, their lake, their gate."""

from __future__ import annotations

import json
import shutil
import sys
import types
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake
from infra.profile import Profile, load_profile
from registry import decisions, gate_file, packaging, runs
from registry.store import connect
from tests.lake_kit import put

MODEL = "toy"
AS_OF = datetime(2018, 1, 5, tzinfo=UTC)
USERS = 60
GATE = {
    "model": MODEL,
    "evaluated_as": "sft",
    "split": "time",
    "minimum_samples": 50,
    "minimum_shared": 0.9,
    "bootstrap": {"resamples": 200, "confidence": 0.95, "seed": 1},
    "rules": [
        {"metric": "recall@10", "against": "champion", "margin": -0.05},
        {"metric": "ndcg@10", "against": "popularity", "margin": 0.0},
        {"metric": "sft.coverage@10", "limit": 0.2},
    ],
}


class Toy:
    """What `training.<system>.serve.Recommender` promises, in a few lines: the folder's items in their order."""

    def __init__(self, items: list[str]) -> None:
        self.items = items

    @classmethod
    def load(cls, folder: Path) -> Toy:
        return cls(json.loads((folder / "items.json").read_text()))

    def recommend(
        self, histories: list[list[str]], k: int, *, users: list[str] | None = None
    ) -> list[list[tuple[str, float]]]:
        return [[(item, -float(n)) for n, item in enumerate(self.items[:k])] for _ in histories]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables: making them takes seconds, copying them does not."""
    home = tmp_path_factory.mktemp("store")
    connect(load_profile("local", environ={"PLUMBLINE__HOME": str(home)})).search_experiments()
    return home / "mlflow" / "mlflow.db"


@pytest.fixture
def profile(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    gates = tmp_path / "gates"
    gates.mkdir()
    (gates / f"{MODEL}.yaml").write_text(yaml.safe_dump(GATE))
    monkeypatch.setattr(packaging, "load_gate", lambda model: gate_file.load_gate(model, gates))
    monkeypatch.setattr(decisions, "load_gate", lambda model: gate_file.load_gate(model, gates))
    serve = types.ModuleType("training.toy.serve")
    serve.Recommender = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training.toy", types.ModuleType("training.toy"))
    monkeypatch.setitem(sys.modules, "training.toy.serve", serve)
    home = tmp_path / "a home with spaces and 'quotes'"
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, home / "mlflow")
    monkeypatch.setenv("PLUMBLINE__HOME", str(home))
    return load_profile("local")


def publish_day(profile: Profile, day: date, rows: int) -> int:
    """Put `rows` rows of a partition of `user_stats` into the lake; the snapshot."""
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(load_contract("user_stats"))])
    lines = [{"stat_date": day, "user_id": str(n)} for n in range(rows)]
    put(profile, "user_stats", pa.Table.from_pylist(lines, schema=schema))
    snapshot = Lake(profile).snapshot("user_stats")
    assert snapshot is not None
    return snapshot


def finish_stage(
    folder: Path, stage: str, *, snapshot: int, hits: int = 0, artifacts: dict[str, str] | None = None
) -> Path:
    """The folder of a finished stage. The first `hits` users find their item at rank 1, the others not at all."""
    out = folder / stage
    (out / "model").mkdir(parents=True)
    (out / "model" / "items.json").write_text(json.dumps([f"i{n}" for n in range(9)]))
    (out / "tables" / "eval_ranks").mkdir(parents=True)
    ranks = {"sft": [1 if n < hits else None for n in range(USERS)], "popularity": [9] * 5 + [None] * (USERS - 5)}
    lines = [
        {"model": name, "user_id": f"u{n}", "as_of": AS_OF, "item_id": f"i{n % 7}", "rank": rank, "split": "time"}
        for name, column in ranks.items()
        for n, rank in enumerate(column)
    ]
    pd.DataFrame(lines).to_parquet(out / "tables" / "eval_ranks" / "part-0.parquet")
    table = {"files": ["/lake/x.parquet"], "snapshot": snapshot, "origin": "real"}
    spec = {
        "system": "toy",
        "stage": stage,
        "out": str(out),
        "seed": 17,
        "tables": {"user_stats": table},
        "artifacts": artifacts or {},
        "config": {},
    }
    (out / "spec.json").write_text(json.dumps(spec))
    (out / "config.yaml").write_text(yaml.safe_dump({"loop": {"lr": 0.001, "steps": 3}, "layers": [1, 2]}))
    (out / "metrics.jsonl").write_text("".join(json.dumps({"step": n, "loss": 4.0 - n}) + "\n" for n in (1, 2, 3)))
    result = {
        "metrics": {"sft.coverage@10": 0.5, "tokens": 1000.0},
        "seconds": 2.5,
        "resumed_from": None,
        "tables": {"eval_ranks": ["tables/eval_ranks/part-0.parquet"]},
    }
    (out / "result.json").write_text(json.dumps(result))
    return out


def train(profile: Profile, folder: Path, *, snapshot: int, hits: int) -> str:
    """Log a training stage and an evaluation stage on top of it, and register the outcome; the version."""
    sft = finish_stage(folder, "sft", snapshot=snapshot)
    runs.log_stage(profile, sft, sft)
    out = finish_stage(folder, "evaluate", snapshot=snapshot, hits=hits, artifacts={"sft": str(sft)})
    return packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out)
