"""A stage of progressive preference training: it trains the model of the stage below further, or is left out.

It takes its candidates from the policy that it starts from, fresh; that policy is also the frozen reference. The
weights with the best validation NDCG@10 are kept (an independent replication found DPO's own loss a bad guide). Then
the gate: a stage that loses accuracy, or no longer writes valid ids by itself, is left out: its `model/` is the one
that it started from, and `gate.json` says why. Reads `next_item_training_set`, the ids and the model it starts from.
Lost on a kill: the steps since the last checkpoint; a retry makes the same candidates and goes on. Method: Align3GR,
softmax DPO from easy to hard, with an auxiliary next-token term. The source `ranker` is ours: the shop's ranker says
which of the policy's own answers are rejected, and without one the stage is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.core.loop import Loop, LoopConfig, Trained
from training.core.preference import Preference, PreferenceObjective, with_reference
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.alignment import AlignmentConfig, AlignmentStage
from training.generative_rec.negatives import Choice, Level, Preferences, ranker_rejects, real_feedback, self_play
from training.generative_rec.ranker_view import RankerView
from training.next_item.samples import training_feedback


@dataclass(frozen=True, kw_only=True)
class Config(AlignmentConfig):
    """`source`, `level`: of the rejected items. With fewer than `least` preferences the stage is left out."""

    source: Literal["self_play", "real_feedback", "ranker"]
    level: Level
    least: int = 50
    choice: Choice = field(default_factory=Choice)
    objective: PreferenceObjective = field(default_factory=lambda: PreferenceObjective(ntp_weight=0.3))
    loop: LoopConfig = field(default_factory=LoopConfig)


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    view = RankerView.of(spec, config.split) if config.source == "ranker" else None
    stage = AlignmentStage.start(spec, config, view.store_features if view else ())
    feedback = training_feedback(spec, stage.samples) if config.source == "real_feedback" else []
    found = _preferences(stage, config, view, feedback)
    kept, examples = len(found.kept), len(stage.examples)
    sizes = {"examples": float(examples), "preferences": float(kept), "dropped": float(found.dropped)}
    if kept < config.least:
        reason = f"{kept} preferences from {examples} examples, fewer than {config.least}"
        return stage.leave_out(reason + _lacking(config, bool(feedback)), sizes)
    trained = _train(stage, config, found.kept)
    steps = {"steps": float(trained.steps), "best_step": float(trained.best_step)}
    return stage.end({**sizes, **steps}, trained.resumed_from, best=trained.best_step)


def _preferences(
    stage: AlignmentStage, config: Config, view: RankerView | None, feedback: Sequence[tuple[str, str, str]]
) -> Preferences:
    """Those of the source: the ranker's where it is asked for."""
    model, items, examples, level, choice = (
        stage.model.eval(), stage.items, stage.examples, config.level, config.choice
    )  # fmt: skip
    if view:
        return ranker_rejects(model, items, examples, view, level, choice)
    if config.source == "self_play":
        return self_play(model, items, examples, level, choice)
    return real_feedback(items, examples, feedback, level, choice)


def _lacking(config: Config, rated: bool) -> str:
    """What the shop lacks for preferences from real feedback; those of the policy's own answers ask for examples."""
    if config.source != "real_feedback":
        return ""
    if not rated:
        return ": its training events have no ratings, so nobody is known to like or dislike anything"
    stars = "fewer than 3" if config.level == "easy" else "3 or 4"
    return f": too few customers gave one item 5 stars and at least {config.choice.least} other items {stars}"


def _train(stage: AlignmentStage, config: Config, found: list[Preference]) -> Trained:
    spec = stage.spec
    known = with_reference(stage.model, found, stage.pad, config.loop.row_tokens, config.loop.rows)
    held_out = max(1, len(known) // 20)
    loop = Loop(stage.model, stage.pad, config.loop, spec.seed, spec.out_dir, spec.hash, objective=config.objective)
    start, samples = -float(stage.gate.before.gains.mean()), known[held_out:]
    validation = stage.validation
    return loop.train(lambda _: samples, known[:held_out], eval_fn=lambda: -validation.ndcg(), start_value=start)
