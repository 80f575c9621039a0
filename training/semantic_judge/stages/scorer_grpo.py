"""Stage: GRPO of the language scorer against the labels: it writes several answers, and what agrees earns more.

The reward of an answer is how far its levels agree with the labels (`lessons.agreement`) and a little for being an
answer; nothing constrains what is written, so a form that is lost costs. Goes on from the stage `start`, whose model is
the reference of the KL. The weights that score the validation part best are kept, and the gate refuses them where
PointAcc or the order of a user's items may be lower than before, or fewer free answers than `gate.valid` are answers:
then the start goes on. Reads as `scorer_sft` does; lost on a kill: the rounds since the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from training.core.errors import LeftOut
from training.core.gated_stage import GatedStage, StageGate
from training.core.policy.rollouts import Sampling
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.policy.variants.grpo import grpo
from training.core.stage import StageResult, StageSpec, resolve_config
from training.semantic_judge.labelled import read_labelled
from training.semantic_judge.lessons import requests_of, rewards_of
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.scorer_validation import ScorerValidation


@dataclass(frozen=True)
class Config:
    """`start`: the stage whose model is trained further. `examples`: how many are used at most. `responses`: how many
    answers are compared with each other. `kl`, `clip`: of the surrogate. These four and the gate's are INFERRED.
    """

    start: str = "scorer_sft"
    examples: int = 20_000
    responses: int = 8
    kl: float = 0.03
    clip: float = 0.2
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    gate: StageGate = field(default_factory=lambda: StageGate(max_loss=0.02, valid=0.99))


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    train, valid = read_labelled(spec, config.examples, config.gate.samples)
    folder = spec.artifact(config.start) / "model"
    scorer = LanguageScorer.load(folder, train.evidence)
    validation = ScorerValidation(scorer, valid)
    metrics = ("point_acc", "pairs_in_order")
    gate = GatedStage.begin(spec, config.gate, folder, metrics, validation.asked(), validation.gains)
    answers = scorer.answers
    rollout = Sampling(config.responses, answers.max_tokens, answers.end)
    variant = grpo(rollout, rewards_of(answers), config.kl, config.clip)
    pad = int(answers.vocabulary.tokenizer.pad_token_id)
    trainer = PolicyTrainer(scorer.model, pad, variant, config.policy, spec.seed, spec.out_dir, run=spec.hash)
    sizes = {"examples": float(len(train))}
    try:
        trained = trainer.train(requests_of(scorer.prompts, train), validation.loss)
    except LeftOut as refusal:
        verdict = gate.unchanged(refusal.reason, validation.format_rate())
        return gate.hand_on(verdict, scorer.save, sizes, refusal.reason, None)
    found = validation.metrics(spec.seed)
    verdict = gate.hold(validation.gains(), found["format_rate"])
    rounds = {"rounds": float(trained.rounds), "best_round": float(trained.best_round)}
    note = _note(found, trained.best_round)
    return gate.hand_on(verdict, scorer.save, {**found, **rounds, **sizes}, note, trained.resumed_from)


def _note(found: Mapping[str, float], best: int) -> str:
    """What the gate's figures do not say of a stage, for people."""
    facts = [
        f"{found['format_rate']:.1%} of the free answers are answers",
        f"{found['pairs_in_order']:.1%} of a user's pairs in order",
    ]
    if best == 0:
        facts.append("no round scored better than the start, so it is unchanged")
    return "; ".join(facts)
