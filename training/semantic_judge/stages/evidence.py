"""Stage: a judge of evidence alone, learnt from the labels of the training part, calibrated on validation.

Beside it, for Part B, what judges say of all examples that have learnt of other users (`crossed`); where half of the
users are too few for a judge, there is none of it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from safetensors.numpy import save_file

from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.stage import StageResult, StageSpec, resolve_config
from training.semantic_judge.evidence_judge import EvidenceJudge, EvidenceJudgeConfig, crossed
from training.semantic_judge.example_tables import read_pairs
from training.semantic_judge.examples import rows_to_learn
from training.semantic_judge.parts import CROSSED
from training.semantic_judge.taught import Taught


@dataclass(frozen=True)
class Config:
    """See `EvidenceJudgeConfig`."""

    judge: EvidenceJudgeConfig = field(default_factory=EvidenceJudgeConfig)


def main(spec: StageSpec) -> StageResult:
    """Learn, and leave `judge/`."""
    config = resolve_config(spec, Config)
    taught = Taught.load(spec)
    pairs = read_pairs(spec, taught.examples)
    train, valid = (rows_to_learn(taught.examples, pairs, part) for part in ("train", "valid"))
    judge = EvidenceJudge.fit(
        taught.evidence, taught.aspects, taught.numbers, taught.levels, (train, valid), config.judge, spec.seed
    )
    with new_folder(spec.out_dir / "judge") as scratch:
        judge.save(scratch)
    with suppress(LeftOut):
        told = (taught.evidence, taught.aspects, taught.numbers, taught.levels, (train, valid), taught.examples.who())
        save_file({"values": crossed(*told, config.judge, spec.seed)}, spec.out_dir / CROSSED)
    metrics = {"train": float(len(train)), "valid": float(len(valid))}
    for aspect, chosen in zip(judge.aspects, judge.chosen, strict=True):
        metrics |= {
            f"valid.{aspect.name}.linear.log_loss": chosen.linear,
            f"valid.{aspect.name}.boosted.log_loss": chosen.boosted,
            f"valid.{aspect.name}.temperature": chosen.temperature,
        }
    return StageResult(metrics)
