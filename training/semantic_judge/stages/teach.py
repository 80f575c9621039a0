"""Stage: evidence of all examples, and levels of them by a teacher, with what people have corrected.

Writes `judge_labels`, and hands on evidence and labels (`taught`). An endpoint's answers are cached below the state
folder: what one run has paid for, no later one pays for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from training.core.environment import state_folder
from training.core.errors import DataError
from training.core.stage import StageResult, StageSpec, resolve_config
from training.semantic_judge.aspects import Aspect, aspects
from training.semantic_judge.encoder import Encoder, EncoderConfig
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.example_tables import read_examples, read_items, read_pairs
from training.semantic_judge.examples import Examples, Ints, Pairs
from training.semantic_judge.taught import Taught
from training.semantic_judge.teachers.chat import EndpointConfig
from training.semantic_judge.teachers.corrections import agreement, corrected, read_corrections
from training.semantic_judge.teachers.endpoint import EndpointTeacher
from training.semantic_judge.teachers.labels import Labels, Teacher, entropies, refuse_empty
from training.semantic_judge.teachers.rules import RulesConfig, RuleTeacher


@dataclass(frozen=True)
class Config:
    """`examples`: the teacher is asked about so many at most, members of pairs first, then others drawn with the seed.
    `least_entropy`: of the levels of an aspect, over that of even use, below which a teacher tells nothing."""

    teacher: Literal["rules", "endpoint"] = "rules"
    rules: RulesConfig = field(default_factory=RulesConfig)
    endpoint: EndpointConfig | None = None
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    examples: int | None = None
    least_entropy: float = 0.1


def main(spec: StageSpec) -> StageResult:
    """Count, teach, correct."""
    config = resolve_config(spec, Config)
    examples = read_examples(spec, read_items(spec))
    contexts = examples.cases.states.contexts
    scored = aspects(any(contexts))
    encoder = Encoder(config.encoder)
    evidence = Evidence.of(examples.cases.catalogue, contexts, encoder, spec.seed)
    numbers = evidence.numbers(examples.cases)
    rows = _asked(examples, read_pairs(spec, examples), config.examples, spec.seed)
    teacher = _teacher(spec, config, evidence, scored)
    said = teacher.teach(examples, rows, numbers[rows])
    refuse_empty(said.levels, scored, config.least_entropy)
    levels = Labels.none(len(examples), scored).levels
    levels[rows] = said.levels
    corrections = read_corrections(spec, examples, scored)
    final, by_person = corrected(levels, corrections)
    taught = Taught(examples, evidence, scored, numbers, final, by_person, rows, said.reasons)
    tables = taught.save(spec.out_dir, teacher.hash)
    metrics = {
        "submitted": float(len(rows)),
        "labelled": float(len(said.known())),
        "corrected": float(by_person.sum()),
        **{f"failed.{kind}": float(count) for kind, count in said.failures.items()},
        **{f"entropy.{name}": value for name, value in entropies(final, scored).items()},
        **agreement(levels, corrections, scored),
    }
    return StageResult(metrics, tables)


def _asked(examples: Examples, pairs: Pairs, limit: int | None, seed: int) -> Ints:
    """The rows to ask about, ascending."""
    if limit is None or limit >= len(examples):
        return np.arange(len(examples))
    of_pairs = np.zeros(len(examples), dtype=bool)
    of_pairs[np.concatenate([pairs.preferred, pairs.other])] = True
    drawn = np.random.default_rng(seed).permutation(len(examples))
    return np.sort(np.concatenate([drawn[of_pairs[drawn]], drawn[~of_pairs[drawn]]])[:limit])


def _teacher(spec: StageSpec, config: Config, evidence: Evidence, scored: Sequence[Aspect]) -> Teacher:
    if config.teacher == "rules":
        return RuleTeacher(config.rules, scored, evidence)
    if config.endpoint is None:
        do = "say `endpoint: {url: ..., model: ...}`, or take the rules"
        raise DataError("the teacher is an endpoint, and none is named", where=f"{spec.system}.{spec.stage}", do=do)
    answers = state_folder() / "judge_answers"
    return EndpointTeacher(config.endpoint, scored, evidence, answers, spec.out_dir / "spent.jsonl")
