"""Benchmark of the judge's engine: pairs a second where a user's items share what is read of the user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from training.bench_peers import in_turns
from training.core.backbone import BackboneConfig, build_backbone
from training.core.embedded import SMOLLM2, local_folder
from training.core.errors import DataError
from training.core.prompts import FENCES
from training.core.sequences import Tree
from training.core.tokens import Vocabulary
from training.semantic_judge.aspects import aspects
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.examples import Candidate, Cases, Catalogue, Floats, Item, UserState
from training.semantic_judge.prompts import CasePrompts, PromptConfig
from training.semantic_judge.scorer import LanguageScorer

_USERS, _ITEMS, _HISTORY, _LIMIT_RATIO = 2, 20, 20, 4.0
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
