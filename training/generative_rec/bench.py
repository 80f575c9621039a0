"""Benchmarks of this system on public data sets, in the folder that PLUMBLINE_SHARED_DATA names."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from training.core.stage import StageResult, StageSpec, TableRef
from training.generative_rec import collaborative, scid_tokenizer
from training.generative_rec.public_sets import FOLDERS, Name, write_tables

_STAGES = {"collaborative": collaborative.main, "scid_tokenizer": scid_tokenizer.main}
_SETS: Mapping[Name, dict[str, Any]] = {"beauty": {}, "instruments": {"semantics": "none"}}
_REPORTED = (
    "collision_rate_before_sinkhorn", "collision_rate", "further_codes", "usage.level_1", "perplexity.level_1",
    "reconstruction_error", "neighbours.level_3", "covisit.input", "covisit.sc", "covisit.codes",
)  # fmt: skip


def bench_tokenizer() -> dict[str, Any]:
    """Seconds of the tokenizer stage on Beauty at the demo setting, cold; Instruments (ids only) beside it. Both real.

    Both under leave-one-out, after the collaborative stage at its demo setting. Wall and processor seconds of each.
    """
    data = os.environ.get("PLUMBLINE_SHARED_DATA")
    if data is None or not (Path(data) / FOLDERS["beauty"]).is_dir():
        return {"skipped": "PLUMBLINE_SHARED_DATA names no folder with amazon-beauty"}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in _SETS.items():
            write_tables(name, Path(data), Path(folder, name))
            figures |= {f"{name}.{key}": value for key, value in _run(Path(folder, name), _presets(), text).items()}
    return {"ours": figures["beauty.scid_tokenizer.seconds"], "unit": "s", "runs": 1, "origin": "real", **figures}


def _run(folder: Path, presets: Mapping[str, Mapping[str, Any]], text: Mapping[str, Any]) -> dict[str, float]:
    """Both stages on the tables in `folder`."""
    tables = {table: TableRef((str(folder / f"{table}.parquet"),)) for table in ("items", "next_item_training_set")}
    figures: dict[str, float] = {}
    for stage, main in _STAGES.items():
        out = folder / stage
        out.mkdir()
        config = {**presets[stage], "protocol": "leave_one_out", "min_events": 2}
        if stage == "scid_tokenizer":
            config["text"] = {**config.get("text", {}), **text}
        artifacts = {"collaborative": str(folder / "collaborative")}
        spec = StageSpec("generative_rec", stage, str(out), 17, tables=tables, artifacts=artifacts, config=config)
        wall, busy = time.perf_counter(), time.process_time()
        result = main(spec)
        figures |= {f"{stage}.seconds": time.perf_counter() - wall, f"{stage}.cpu_seconds": time.process_time() - busy}
        figures |= _chosen(result)
    return figures


def _chosen(result: StageResult) -> dict[str, float]:
    names = [f"item.{name}" for name in _REPORTED] + ["user.collision_rate", "user.usage.level_1"]
    ranked = [name for name in result.metrics if "recall@" in name]
    return {name: result.metrics[name] for name in (*names, *ranked) if name in result.metrics}


def _presets() -> dict[str, dict[str, Any]]:
    """The demo settings of the stages, as the pipeline declares them."""
    declared = yaml.safe_load((Path(__file__).parent / "pipeline.yaml").read_text())["stages"]
    return {stage["name"]: stage["config"]["demo"] for stage in declared if stage["name"] in _STAGES}
