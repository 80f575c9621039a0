"""The parts of a judge as stages leave them in their folders."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import load_file

from training.core.stage import StageSpec
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.evidence_judge import EvidenceJudge
from training.semantic_judge.examples import Floats
from training.semantic_judge.judge import Scorer
from training.semantic_judge.scorer import LanguageScorer

AGGREGATOR = "aggregator"
"""The stage that makes Part B, and the folder of it in that of the stage and of a packaged judge."""

CROSSED = "crossed.safetensors"
"""In the folder of the judge of evidence: what judges that have learnt of other users say of all examples."""


def load_scorer(folder: Path, evidence: Evidence) -> Scorer:
    """Part A as the stage in `folder` left it: of evidence alone, or a language model. DataError where it left none."""
    judge = folder / "judge"
    return EvidenceJudge.load(judge, evidence) if judge.is_dir() else LanguageScorer.load(folder / "model", evidence)


def crossed_of(folder: Path) -> Floats | None:
    """What the Part A in `folder` would say of each example [n, K] had it not learnt of its user; None where nobody has
    worked that out, as for a language model, which would have to be trained twice more."""
    file = folder / CROSSED
    return load_file(file)["values"] if file.is_file() else None


def aggregator_of(spec: StageSpec) -> Path | None:
    """The folder of Part B; None where the preset has no such stage, or it was left out: all aspects count the same."""
    made = AGGREGATOR in spec.artifacts and not spec.left_out(AGGREGATOR)
    return spec.artifact(AGGREGATOR) / AGGREGATOR if made else None
