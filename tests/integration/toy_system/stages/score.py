"""Job: the scores of the users that its query finds, by every version that stands."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from training.core.errors import LeftOut
from training.core.stage import StageResult, StageSpec, read_query, resolve_config
from training.toy.serve import load


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def main(spec: StageSpec) -> StageResult:
    """Write `toy_scores`."""
    resolve_config(spec, Config)
    users = read_query(spec, "recent", {"user_id": pa.string(), "days": pa.int64()}).to_pandas()
    made = [
        users[["user_id"]].assign(
            model=model, model_version=one.version, role=one.role, score=load(one.folder).predict(users, {})["score"]
        )
        for model, versions in spec.models.items()
        for one in versions
    ]
    if not made:
        raise LeftOut("nothing stands yet", do="promote a version")
    file = spec.out_dir / "scores.parquet"
    pd.concat(made).to_parquet(file, index=False)
    return StageResult({"rows": float(sum(map(len, made)))}, {"toy_scores": ("scores.parquet",)})
