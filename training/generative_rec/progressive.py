"""A rung of progressive preference training: it trains on from the rung below, or is left out with a record.

A rung takes its candidates from the policy that it starts from, fresh; that policy is also the frozen reference. The
weights with the best validation NDCG@10 are kept (an independent replication found DPO's own loss a bad guide). Then
the gate: a rung that loses accuracy, or no longer writes legal ids by itself, is left out: its `model/` is the one that
it started from, and `gate.json` says why. Reads `next_item_training_set`, the ids and the model it starts from. Lost on
a kill: the steps since the last checkpoint; a retry makes the same candidates and goes on. Method: Align3GR, softmax
DPO from easy to hard, with an auxiliary next-token term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from transformers import PreTrainedModel

from training.core.backbone import load_backbone
from training.core.loop import Loop, LoopConfig, Trained
from training.core.preference import Preference, PreferenceObjective, with_reference
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.negatives import Choice, Level, real_feedback, self_play
from training.generative_rec.questions import Gate, Judge, Question, Verdict, draw_questions
from training.generative_rec.rungs import write_rung
from training.generative_rec.samples import NextItem, Protocol, model_folder, of_part, read_samples, training_feedback


@dataclass(frozen=True)
class Config:
    """`start`: the stage whose model this rung starts from; `codes`: the stage whose semantic ids it speaks.

    `questions`: how many training samples are asked at most; with fewer than `least` preferences the rung is left out.
    """

    start: str
    source: Literal["self_play", "real_feedback"]
    level: Level
    codes: str = "semantic_ids"
    protocol: Protocol = "time"
    history: int = 20
    questions: int = 20_000
    least: int = 50
    choice: Choice = field(default_factory=Choice)
    objective: PreferenceObjective = field(default_factory=lambda: PreferenceObjective(ntp_weight=0.3))
    loop: LoopConfig = field(default_factory=LoopConfig)
    gate: Gate = field(default_factory=Gate)


def main(spec: StageSpec) -> StageResult:
    """Train the rung, hold its gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    start = spec.artifact(config.start) / model_folder(config.protocol)
    model, vocabulary = load_backbone(start)
    items, rows = ItemCodes.load(spec.artifact(config.codes), vocabulary), read_samples(spec, config.protocol)
    valid = draw_questions(of_part(rows, "valid"), items, config.history, config.gate.samples, spec.seed)
    asked = draw_questions(of_part(rows, "train"), items, config.history, config.questions, spec.seed)
    judge = Judge(model, items, valid)
    before, found = judge.ndcg(), _preferences(spec, config, model, items, asked, rows)
    finish = partial(write_rung, spec, config.protocol, start, model, vocabulary)
    sizes = {"questions": float(len(asked)), "preferences": float(len(found))}
    if len(found) < config.least:
        reason = f"{len(found)} preferences from {len(asked)} questions, fewer than {config.least}"
        return finish(Verdict(before, before, judge.legal(), reason), sizes)
    trained = _train(spec, config, model, vocabulary.tokenizer.pad_token_id, found, judge)
    steps = {"steps": float(trained.steps), "best_step": float(trained.best_step)}
    return finish(config.gate.hold(before, judge), {**sizes, **steps}, trained.resumed_from)


def _preferences(
    spec: StageSpec,
    config: Config,
    model: PreTrainedModel,
    items: ItemCodes,
    asked: Sequence[Question],
    rows: Sequence[NextItem],
) -> list[Preference]:
    if config.source == "self_play":
        return self_play(model.eval(), items, asked, config.level, config.choice)
    return real_feedback(items, asked, training_feedback(spec, rows), config.level, config.choice)


def _train(
    spec: StageSpec, config: Config, model: PreTrainedModel, pad: int, found: Sequence[Preference], judge: Judge
) -> Trained:
    known = with_reference(model, found, pad, config.loop.row_tokens)
    held_out = max(1, len(known) // 20)
    loop = Loop(model, pad, config.loop, spec.seed, spec.out_dir, run=spec.hash, objective=config.objective)
    return loop.train(lambda epoch: known[held_out:], known[:held_out], judge=lambda: -judge.ndcg())
