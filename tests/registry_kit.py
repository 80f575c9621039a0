"""A toy model's life without training: finished stages made by hand, their MLflow, their lake, their gate."""

from __future__ import annotations

import json
import math
import shutil
import sys
import types
from datetime import date
from pathlib import Path
from typing import Any

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
USERS = 60
GATE = {
    "model": MODEL,
    "system": "toy",
    "evaluated_as": "sft",
    "split": "time",
    "unit": "user",
    "minimum_samples": 50,
    "minimum_shared": 0.9,
    "minimum_scored": 1.0,
    "metrics": {"recall@10": {"mean": "recall@10"}, "ndcg@10": {"mean": "ndcg@10"}},
    "headline": "recall@10",
    "show": ["ndcg@10", "coverage@10"],
    "baselines": ["popularity"],
    "bootstrap": {"resamples": 200, "confidence": 0.95, "seed": 1},
    "rules": [
        {"metric": "recall@10", "against": "champion", "margin": -0.05},
        {"metric": "ndcg@10", "against": "best_baseline", "margin": 0.0},
        {"metric": "sft.coverage@10", "limit": 0.2},
    ],
}


class Toy:
    """What `load` of `training.<system>.serve` gives, in a few lines: a label for each text, of the folder's own."""

    def __init__(self, folder: Path) -> None:
        self.label = json.loads((folder / "label.json").read_text())

    def predict(self, frame: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
        return pd.DataFrame({"label": [f"{self.label} {text}"[: params["letters"]] for text in frame["text"]]})


SIGNATURE = {
    "inputs": [{"name": "text", "type": "string", "required": True}],
    "outputs": [{"name": "label", "type": "string", "required": True}],
    "params": [{"name": "letters", "type": "long", "default": 8, "shape": None}],
}


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
    shown = gate_file.shown_metrics
    monkeypatch.setattr(gate_file, "shown_metrics", lambda system: shown(system, gates))
    serve = types.ModuleType("training.toy.serve")
    serve.load = Toy  # type: ignore[attr-defined]
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
    describe(out / "model")
    (out / "tables" / "eval_values").mkdir(parents=True)
    ranks = {"sft": [1 if n < hits else None for n in range(USERS)], "popularity": [9] * 5 + [None] * (USERS - 5)}
    lines = [
        {"system": "toy", "model": model, "split": "time", "unit": f"u{n}", "sample": f"2018-01-05 i{n % 7}"}
        | {"slices": [], "name": name, "value": 0.0 if rank is None else gain(rank)}
        for model, column in ranks.items()
        for n, rank in enumerate(column)
        for name, gain in (("recall@10", lambda rank: 1.0), ("ndcg@10", lambda rank: 1.0 / math.log2(rank + 1)))
    ]
    pd.DataFrame(lines).to_parquet(out / "tables" / "eval_values" / "part-0.parquet")
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
        "tables": {"eval_values": ["tables/eval_values/part-0.parquet"]},
    }
    (out / "result.json").write_text(json.dumps(result))
    return out


def describe(folder: Path) -> None:
    """A model folder of the toy that says what goes in and comes out, and has an example."""
    (folder / "label.json").write_text(json.dumps("toy"))
    (folder / "signature.json").write_text(json.dumps(SIGNATURE))
    pd.DataFrame({"text": ["one", "two"]}).to_parquet(folder / "example.parquet")


def train(profile: Profile, folder: Path, *, snapshot: int, hits: int) -> str:
    """Log a training stage and an evaluation stage on top of it, and register the outcome; the version."""
    sft = finish_stage(folder, "sft", snapshot=snapshot)
    runs.log_stage(profile, sft, sft)
    out = finish_stage(folder, "evaluate", snapshot=snapshot, hits=hits, artifacts={"sft": str(sft)})
    return packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out)
