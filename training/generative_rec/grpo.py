"""Stage: GRPO with the ranking reward over the catalogue's beams (MiniOneRec), from an SFT model.

The beams of a training sample are its group: the true item earns 1, the others lose more the higher they stand, and a
group without the true item teaches nothing. Weights are chosen by validation NDCG@10 and the gate is that of the
preference rungs. Reads and writes as they do; lost on a kill: the rounds since the last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from training.core.backbone import load_backbone
from training.core.policy.groups import Request
from training.core.policy.rewards import RANKING
from training.core.policy.rollouts import Beams
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.policy.variant import grpo
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.questions import Gate, Judge, draw_questions
from training.generative_rec.rungs import write_rung
from training.generative_rec.samples import Protocol, model_folder, of_part, read_samples


@dataclass(frozen=True)
class Config:
    """`start`: the stage whose model this one starts from; `codes`: the stage whose semantic ids it speaks.

    `beams`: the size of a group. `kl`, `clip`: of the surrogate.
    """

    start: str
    codes: str = "semantic_ids"
    protocol: Protocol = "time"
    history: int = 20
    questions: int = 20_000
    beams: int = 16
    kl: float = 0.001
    clip: float = 0.2
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    gate: Gate = field(default_factory=Gate)


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    start = spec.artifact(config.start) / model_folder(config.protocol)
    model, vocabulary = load_backbone(start)
    items, rows = ItemCodes.load(spec.artifact(config.codes), vocabulary), read_samples(spec, config.protocol)
    valid = draw_questions(of_part(rows, "valid"), items, config.history, config.gate.samples, spec.seed)
    asked = draw_questions(of_part(rows, "train"), items, config.history, config.questions, spec.seed)
    judge = Judge(model, items, valid)
    before = judge.ndcg()
    variant = grpo(Beams(items.trie, items.tokens, config.beams), RANKING, config.kl, config.clip)
    pad = vocabulary.tokenizer.pad_token_id
    trainer = PolicyTrainer(model, pad, variant, config.policy, spec.seed, spec.out_dir, run=spec.hash)
    requests = [Request(one.prompt, items.tokens[one.item]) for one in asked]
    trained = trainer.train(requests, judge=lambda: -judge.ndcg())
    rounds = {"rounds": float(trained.rounds), "best_round": float(trained.best_round), "questions": float(len(asked))}
    verdict = config.gate.hold(before, judge)
    return write_rung(spec, config.protocol, start, model, vocabulary, verdict, rounds, trained.resumed_from)
