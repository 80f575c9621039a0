"""The parts of a judge as stages leave them in their folders."""

from __future__ import annotations

from pathlib import Path

from training.core.stage import StageSpec
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.evidence_judge import EvidenceJudge
from training.semantic_judge.judge import Scorer
from training.semantic_judge.scorer import LanguageScorer

AGGREGATOR = "aggregator"
"""The stage that makes Part B, and the folder of it in that of the stage and of a packaged judge."""


def load_scorer(folder: Path, evidence: Evidence) -> Scorer:
    """Part A as the stage in `folder` left it: of evidence alone, or a language model. DataError where it left none."""
    judge = folder / "judge"
    return EvidenceJudge.load(judge, evidence) if judge.is_dir() else LanguageScorer.load(folder / "model", evidence)


def aggregator_of(spec: StageSpec) -> Path | None:
    """The folder of Part B; None where the preset has no such stage, or it was left out: all aspects count the same."""
    made = AGGREGATOR in spec.artifacts and not spec.left_out(AGGREGATOR)
    return spec.artifact(AGGREGATOR) / AGGREGATOR if made else None
