"""Benchmarks of the judge: its engine, where a user's items share what is read of the user, a night of lists, and the
training stages in a large shop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from training.bench_peers import in_turns
from training.core.backbone import BackboneConfig, build_backbone
from training.core.embedded import SMOLLM2, local_folder
from training.core.embeddings import embedded_encoder
from training.core.errors import DataError
from training.core.files import write_json
from training.core.prompts import FENCES
from training.core.sequences import Tree
from training.core.stage import StageSpec
from training.core.tokens import Vocabulary
from training.jobs import load_job, merged, stage_specs
from training.semantic_judge import bench_shop, bench_tables
from training.semantic_judge.aspects import aspects
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.evidence_judge import EvidenceJudgeConfig
from training.semantic_judge.examples import Candidate, Cases, Catalogue, Floats, Item, UserState
from training.semantic_judge.prompts import CasePrompts, PromptConfig
from training.semantic_judge.scorer import LanguageScorer

_USERS, _ITEMS, _HISTORY, _LIMIT_RATIO = 2, 20, 20, 4.0
_LIMIT_SECONDS, _LIMIT_GIB = 900, 4.0
_TEXT = "steel whisk black cutting board set of four pens blue ink refill for office desk lamp with clamp"
_WORDS = _TEXT.split()


def bench_judge(runs: int = 2) -> dict[str, Any]:
    """20 items for each of 2 users with 20 items behind them, on SmolLM2, untrained; pairs/s, simulated texts.

    The peer reads each pair from scratch, with the same engine and the same batches. Rows with and without the line of
    evidence, which no two items share. Bar: 4 times the peer's rate, in both rows. `gap`: the largest difference of a
    chance, in bf16 and, by titles, in float32.
    """
    try:
        folder = local_folder(SMOLLM2)
    except DataError as error:
        return {"skipped": str(error.what)}
    titles, known = (_row(folder, runs, words=words) for words in (False, True))
    exact = _gap(_scorer(folder, False, torch.float32), _cases(1))
    held = all(row["times"] >= _LIMIT_RATIO for row in (titles, known))
    return {
        "ours": titles["pairs_per_second"], "peer": titles["from_scratch"], "unit": "pairs/s", "runs": runs,
        "origin": "simulated", "within_bars": held, "titles": titles, "titles_and_evidence": known,
        "float32_gap": exact,
    }  # fmt: skip


def bench_night(users: int = 10_000, top: int = 20) -> dict[str, Any]:
    """A night of 10,000 users x 20 items by the judge of evidence of the demo's sizes, simulated: rows/s of the whole
    stage in a process of its own, and its peak memory. Once with all to judge, and once more on the next night with
    nothing changed. Bar: 15 minutes, and a repeated night judges nothing."""
    config = EvidenceJudgeConfig(rounds=60, patience=10, regularisation=(0.1,))
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spec = bench_shop.night(folder, users, top, config)
        first = _scored(spec, folder / "home")
        again = _scored(replace(spec, out=str(folder / "again")), folder / "home")
    held = first["seconds"] <= _LIMIT_SECONDS and again["reused"] == users * top == first["scored"]
    return {
        "ours": users * top / first["seconds"], "unit": "rows/s", "runs": 1, "origin": "simulated",
        "within_bars": held, "users": users, "top": top, "first": first, "again": again,
    }  # fmt: skip


def bench_judge_shop(items: int = 100_000, examples: int = 200_000, pairs: int = 20_000) -> dict[str, Any]:
    """The training stages of the job `judge_office`, at the demo's sizes, in a simulated shop of 100,000 items: peak
    memory of the largest in GiB, each in a process of its own, with its seconds and those of its processors. Texts are
    read by the first of MiniLM's six layers, or they would take most of the time. Bar: 4 GiB."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench_tables.write_tables(folder / "tables", items, examples, pairs)
        job = load_job("judge_office")
        own = {"teach": {"encoder": {"path": str(_shallow(folder / "encoder"))}}, "evaluate": {"pairs": None}}
        job = replace(job, config=merged(job.config, own, nulls=True))
        specs = stage_specs(job, folder / "tables", folder / "out", 17)
        stages = {spec.stage: _alone(spec, folder / "home") for spec in specs}
    most = max(used["peak_gib"] for used in stages.values())
    return {
        "ours": most, "unit": "GiB", "runs": 1, "origin": "simulated", "within_bars": most <= _LIMIT_GIB,
        "items": items, "examples": examples, "pairs": pairs, "stages": stages,
    }  # fmt: skip


def _shallow(folder: Path) -> Path:
    """The embedded text encoder with its first layer alone."""
    shutil.copytree(embedded_encoder(), folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "num_hidden_layers": 1})
    return folder


def _scored(spec: StageSpec, home: Path) -> dict[str, float]:
    used = _alone(spec, home)
    metrics = json.loads((spec.out_dir / "result.json").read_text())["metrics"]
    return {**used, **{name: metrics[name] for name in ("submitted", "scored", "reused")}}


def _alone(spec: StageSpec, home: Path) -> dict[str, float]:
    """Run a stage in a process of its own; what it has used."""
    module = f"{spec.system}.{spec.stage}"
    command = [sys.executable, "-m", "training", module, "--spec", str(bench_shop.written(spec))]
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "PLUMBLINE__HOME": str(home)})
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise DataError(f"the stage {spec.stage} has failed", where=spec.out, do="look at what it has said above")
    seconds = {"seconds": time.monotonic() - began, "processor_seconds": used.ru_utime + used.ru_stime}
    return {**seconds, "peak_gib": used.ru_maxrss / 2**20}


def _row(folder: Path, runs: int, *, words: bool) -> dict[str, float]:
    scorer, cases = _scorer(folder, words, torch.bfloat16), _cases(_USERS)
    trees, _ = scorer.prompts.trees(cases)
    ours, peer = in_turns(runs, lambda: _shared(scorer, trees), lambda: _shared(scorer, _apart(trees)))
    return {
        "pairs_per_second": len(cases) / ours,
        "from_scratch": len(cases) / peer,
        "times": peer / ours,
        "prompt_tokens": float(np.mean([len(tree.prompt) for tree in trees])),
        "item_tokens": float(np.mean([len(item) for tree in trees for item in tree.responses])),
        "level_tokens": float(len(scorer.answers.chain.nodes)),
        "gap": _gap(scorer, cases),
    }


def _shared(scorer: LanguageScorer, trees: Sequence[Tree]) -> Floats:
    found = scorer.engine.chances(trees, scorer.answers.chain)
    return np.concatenate([torch.cat(own, dim=1).numpy() for own in found])


def _apart(trees: Sequence[Tree]) -> list[Tree]:
    """Each pair by itself, its prompt read anew."""
    return [Tree(tree.prompt, (item,)) for tree in trees for item in tree.responses]


def _gap(scorer: LanguageScorer, cases: Cases) -> float:
    trees, _ = scorer.prompts.trees(cases)
    return float(np.abs(_shared(scorer, trees) - _shared(scorer, _apart(trees))).max())


def _scorer(folder: Path, words: bool, dtype: torch.dtype) -> LanguageScorer:
    vocabulary = Vocabulary.create(AutoTokenizer.from_pretrained(folder, local_files_only=True), {}, FENCES)
    exact = dtype is torch.float32
    model = build_backbone(BackboneConfig(path=SMOLLM2, bf16=not exact), vocabulary, 17).eval().to(dtype)
    config = PromptConfig(evidence=words, history=_HISTORY)
    evidence = Evidence.of(_catalogue(), [], _encode, 17) if words else None
    return LanguageScorer.of(model, CasePrompts(vocabulary, aspects(False), config, evidence), 24)


def _catalogue() -> Catalogue:
    rng = np.random.default_rng(17)
    titles = [" ".join(rng.choice(_WORDS, 12).tolist()) for _ in range(200)]
    return Catalogue(
        [Item(f"i{n}", title, _WORDS[n % 7], _WORDS[n % 5], float(5 + n % 40), title) for n, title in enumerate(titles)]
    )


def _cases(users: int) -> Cases:
    rng, catalogue = np.random.default_rng(3), _catalogue()
    asked = []
    for number in range(users):
        history = tuple(f"i{n}" for n in rng.integers(0, 200, _HISTORY))
        user = UserState(f"u{number}", date(2024, 5, 1), history, (5.0,) * _HISTORY, "likes pens, lamps and whisks")
        asked += [(user, Candidate(f"i{n}", 4.0, 3)) for n in rng.choice(200, _ITEMS, replace=False)]
    return Cases.of(catalogue, [user for user, _ in asked], [item for _, item in asked])


def _encode(texts: Sequence[str]) -> Floats:
    found = np.array([[text.split().count(word) for word in dict.fromkeys(_WORDS)] for text in texts], dtype=np.float32)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6))
