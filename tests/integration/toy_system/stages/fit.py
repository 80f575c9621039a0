"""Stage: a model that is one number, and what it was measured on: one row a user, beside a coin."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from training.core.stage import StageResult, StageSpec, read_table, resolve_config

SIGNATURE = {
    "inputs": [{"name": "user_id", "type": "string", "required": True}],
    "outputs": [{"name": "score", "type": "double", "required": True}],
    "params": [],
}


@dataclass(frozen=True)
class Config:
    """`quality`: the share of users that it is right about."""

    quality: float


def main(spec: StageSpec) -> StageResult:
    """Write the model folder and its values."""
    config = resolve_config(spec, Config)
    users = sorted(set(read_table(spec, "user_stats", {"user_id": pa.string()})["user_id"].to_pylist()))
    model = spec.out_dir / "model"
    model.mkdir(exist_ok=True)
    (model / "quality.json").write_text(json.dumps(config.quality))
    (model / "signature.json").write_text(json.dumps(SIGNATURE))
    pd.DataFrame({"user_id": users[:2]}).to_parquet(model / "example.parquet")
    rows = [
        {"model": name, "split": "test", "unit": user, "sample": user, "slices": [], "name": "right"}
        | {"value": float(number < quality * len(users))}
        for name, quality in ((spec.stage, config.quality), ("coin", 0.5))
        for number, user in enumerate(users)
    ]
    file = spec.out_dir / "tables" / "eval_values.parquet"
    file.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(file)
    return StageResult({"users": float(len(users))}, {"eval_values": ("tables/eval_values.parquet",)})
