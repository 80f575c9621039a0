"""Benchmarks of this system: on public data sets, in the folder that PLUMBLINE_SHARED_DATA names; on generated ones."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from datetime import date
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from threading import Event
from typing import Any

import numpy as np
import torch

from common.pipelines import load_pipeline
from training.bench_peers import Task
from training.core.files import write_json
from training.core.learner import Learner
from training.core.policy.groups import Request, Round
from training.core.policy.reference import Reference
from training.core.policy.rewards import RewardFunction, Term, by_group
from training.core.policy.rollouts import Beams
from training.core.policy.round import PolicyConfig, Training
from training.core.policy.surrogate import PolicyBatch
from training.core.policy.variant import Variant
from training.core.policy.variants.grpo import grpo
from training.core.policy.variants.two_rewards import two_rewards
from training.core.stage import StageSpec, TableRef
from training.core.trie import Trie
from training.generative_rec.generated_shop import write_shop
from training.generative_rec.interactions import Interactions, run_starts
from training.generative_rec.rewards import RANKING
from training.generative_rec.stages import collaborative, scid_tokenizer
from training.jobs import Job, stage_specs
from training.next_item.public_sets import FOLDERS, Name, write_tables
from training.next_item.samples import NextItem

_STAGES = {"collaborative": collaborative.main, "scid_tokenizer": scid_tokenizer.main}
_SIZES = {"small": (10_000, 100_000), "large": (100_000, 1_000_000)}  # items and events
_LIMIT_GIB, _LIMIT_RATIO, _RANKED_LIMIT_GIB, _MILLION = 3.0, 1.5, 1.0, 1_000_000
_KL, _LIMIT_OVERHEAD = 1e-3, 1.05
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


def bench_catalogue_scale() -> dict[str, Any]:
    """Peak memory and time of every stage of the demo preset, the ranker's too, on a small and a ten times larger shop.

    Bars: 3 GiB a stage; 1.5 times the small shop's time per item and event; 1 GiB more to rank a million items for a
    user. Each stage is a process of its own, its start included. Processor time stands beside the time on the clock,
    which on shared cores says what else they did.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: _stages(Path(folder, name), *size) for name, size in _SIZES.items()}
    more, large = sum(_SIZES["large"]) / sum(_SIZES["small"]), figures["large"]
    ratios = {
        clock: {stage: large[stage][clock] / own[clock] / more for stage, own in figures["small"].items()}
        for clock in ("seconds", "cpu_seconds")
    }
    peak, ranked = max(one["peak_gib"] for one in large.values()), _ranking_gib()
    held = peak <= _LIMIT_GIB and max(ratios["seconds"].values()) <= _LIMIT_RATIO and ranked <= _RANKED_LIMIT_GIB
    return {
        "ours": peak, "unit": "GiB", "runs": 1, "origin": "simulated", "within_bars": held, "stages": figures,
        "time_per_item_and_event_large_to_small": ratios, "ranking_a_million_items_gib": ranked,
    }  # fmt: skip


def _stages(folder: Path, items: int, events: int) -> dict[str, dict[str, float]]:
    """Seconds, on the clock and of the processor, and peak memory (of the process, in GiB) of each stage: the ranker's,
    and those of the generator that is fused with it."""
    write_shop(folder / "samples", items, events)
    ranked = stage_specs(Job("ranker", "demo"), folder / "samples", folder / "ranker", 17)
    figures = {f"{spec.system}.{spec.stage}": _ran(spec) for spec in ranked}
    models = {"ranker": ranked[-1].out_dir / "model"}
    written = stage_specs(Job("generative_rec", "demo"), folder / "samples", folder / "generator", 17, models=models)
    return figures | {spec.stage: _ran(spec) for spec in written}


def _ran(spec: StageSpec) -> dict[str, float]:
    spec.out_dir.mkdir(parents=True)
    write_json(spec.out_dir / "spec.json", asdict(spec))
    command = [sys.executable, "-m", "training", f"{spec.system}.{spec.stage}", "--spec"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, str(spec.out_dir / "spec.json")])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{spec.system}.{spec.stage} in {spec.out_dir} ended with {status}")
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_gib": used.ru_maxrss / 2**20,
    }


def _ranking_gib() -> float:
    """How much the process grows while a history of 20 items is ranked against a million, in GiB."""
    row = torch.arange(40)
    ids = tuple(map(str, range(_MILLION)))
    known = Interactions(("u", "v"), ids, row // 20, row, run_starts(torch.tensor([20, 20])))
    asked = NextItem("u", date(2020, 1, 1), "1", ("0",), "valid")
    encoder = collaborative.Encoder(known, [asked], collaborative.Config(item_start="random"), seed=1)
    before = getrusage(RUSAGE_SELF).ru_maxrss
    encoder.scores(row[None, :20])
    return (getrusage(RUSAGE_SELF).ru_maxrss - before) / 2**20


def _run(folder: Path, presets: Mapping[str, Mapping[str, Any]], text: Mapping[str, Any]) -> dict[str, float]:
    """Both stages on the tables in `folder`."""
    tables = {table: TableRef((str(folder / f"{table}.parquet"),)) for table in ("items", "next_item_training_set")}
    figures: dict[str, float] = {}
    for stage, main in _STAGES.items():
        out = folder / stage
        out.mkdir()
        config = {**presets[stage], "split": "leave_one_out", "min_events": 2}
        if stage == "scid_tokenizer":
            config["text"] = {**config.get("text", {}), **text}
        artifacts = {"collaborative": str(folder / "collaborative")}
        spec = StageSpec("generative_rec", stage, str(out), 17, tables=tables, artifacts=artifacts, config=config)
        wall, busy = time.perf_counter(), time.process_time()
        result = main(spec)
        figures |= {f"{stage}.seconds": time.perf_counter() - wall, f"{stage}.cpu_seconds": time.process_time() - busy}
        names = [f"item.{name}" for name in _REPORTED] + ["user.collision_rate", "user.usage.level_1"]
        names += [name for name in result.metrics if "recall@" in name]
        figures |= {name: result.metrics[name] for name in names if name in result.metrics}
    return figures


def _presets() -> dict[str, dict[str, Any]]:
    """The demo settings of the stages, as the pipeline declares them."""
    declared = load_pipeline("generative_rec", "demo").stages
    return {stage.name: dict(stage.config["demo"]) for stage in declared if stage.name in _STAGES}


def bench_a2po(runs: int = 5) -> dict[str, Any]:
    """Seconds of a round of A2PO, beside one of plain GRPO on the same business reward; no judge's model runs.

    Both roll out 32 requests, 16 beams each over 10 thousand items of 3 codes, on a Qwen3 of 256 x 6 layers, and learn
    from them. The judge's scores are drawn, for every request: what is measured is what A2PO does itself. Rounds are
    taken in turns, and the overhead is the median of their ratios. Bar: under 5 %. Sizes simulated.
    """
    task = Task.create()
    requests = [Request(tuple(prompt), task.items[n]) for n, prompt in enumerate(task.prompts)]
    rollout, business = Beams(Trie.build(task.items), task.items, 16), [*RANKING, Term("chance", 1.0, _drawn(1))]
    ways = {
        "grpo": grpo(rollout, business, kl=_KL),
        "a2po": two_rewards("a2po", rollout, business, Term("judge", 1.0, _drawn(2)), _KL),
    }
    spans: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        plays = {name: _play(task, way, requests, Path(folder, name)) for name, way in ways.items()}
        for turn in range(runs + 1):
            for name in sorted(ways, reverse=turn % 2 == 1):
                started = time.perf_counter()
                plays[name](turn)
                if turn:
                    spans[name].append(time.perf_counter() - started)
    ours, peer = (statistics.median(spans[name]) for name in ("a2po", "grpo"))
    ratio = statistics.median(own / plain for own, plain in zip(spans["a2po"], spans["grpo"], strict=True))
    return {
        "ours": ours, "peer": peer, "unit": "s/round", "runs": runs, "origin": "simulated", "overhead": ratio - 1.0,
        "within_bars": ratio <= _LIMIT_OVERHEAD,
    }  # fmt: skip


def _drawn(seed: int) -> RewardFunction:
    """Values that mean nothing, one for each response."""
    rng = np.random.default_rng(seed)
    return by_group(lambda group: torch.from_numpy(rng.random(len(group.responses), dtype=np.float32)))


def _play(task: Task, variant: Variant, requests: Sequence[Request], folder: Path) -> Callable[[int], float]:
    """Plays a round of this number, on a model of its own."""
    folder.mkdir()
    model, config = deepcopy(task.model), PolicyConfig(prompts=len(requests), minibatch=len(requests))
    learner: Learner[PolicyBatch] = Learner(
        model, variant.surrogate.loss, folder, "bench", weight_decay=0.0, max_grad_norm=1.0
    )
    training = Training(model, 0, variant, config, 0, learner, Reference(model, learner.weights))
    return lambda number: training.play(requests, Round(number), Event())
