"""Stage: list-level SFT. The model learns the shop's ranker's lists, beside what was taken, or is left out.

It starts from SFT, and learns what the ranker would put first (`soft_targets`, the equation): after the end of each
user's training sequence, which is what will be asked next and whose answer nobody has seen, and after the histories of
training samples, beside the item that was taken then. Each epoch learns `draws` of each list anew.

The weights with the lowest loss on lists that are held back are kept: how well the ranker is followed is what is to be
learnt, and validation is kind to what follows it (`ranker_view`). The gate is that of the preference stages: a model
that ranks worse than its start, or no longer writes valid ids by itself, is left out (`gate.json`). So is the stage
where there is no ranker. Reads `next_item_training_set`, the ids and the model it starts from. Lost on a kill: the
ranker's lists, and the steps since the last checkpoint; a retry asks for the same lists and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.core.listwise import Listed, ListwiseObjective
from training.core.loop import Loop, LoopConfig, Trained
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.alignment import AlignmentConfig, AlignmentStage
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.soft_targets import RankedConfig, SoftTarget, asked_of, soft_targets
from training.generative_rec.validation import draw
from training.next_item.samples import of_subset, sequences_by_user

_ANONYMOUS = 0.5


@dataclass(frozen=True, kw_only=True)
class Config(AlignmentConfig):
    """`examples` is how many ends of sequences, and how many histories of training samples, have a list at most."""

    ranked: RankedConfig = field(default_factory=RankedConfig)
    draws: int = 8
    loop: LoopConfig = field(default_factory=LoopConfig)


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    view = RankerView.of(spec, config.split)
    stage = AlignmentStage.start(spec, config)
    samples = draw(of_subset(stage.samples, "train"), config.examples, spec.seed)
    asked = asked_of(sequences_by_user(stage.samples), samples, config.examples, spec.seed)
    found = soft_targets(view, asked, stage.items.item_ids, config.ranked)
    sizes = {"asked": float(len(asked)), "lists": float(len(found))}
    if len(found) < 2:
        return stage.leave_out(f"the ranker has {len(found)} lists for {len(asked)} histories", sizes)
    trained = _train(stage, config, found)
    steps = {"steps": float(trained.steps), "best_step": float(trained.best_step)}
    return stage.end({**sizes, **steps}, trained.resumed_from, best=trained.best_step)


def _train(stage: AlignmentStage, config: Config, found: Sequence[SoftTarget]) -> Trained:
    spec, order = stage.spec, np.random.default_rng(stage.spec.seed).permutation(len(found))
    held_out = max(1, len(found) // 20)
    valid, learnt = ([found[place] for place in part] for part in (order[:held_out], order[held_out:]))

    def epoch(number: int) -> list[Listed]:
        rng = np.random.default_rng((spec.seed, number))
        return [whole.drawn(config.draws, rng) for whole in _listed(learnt, stage.items, config.history, rng)]

    loop = Loop(stage.model, stage.pad, config.loop, spec.seed, spec.out_dir, spec.hash, objective=ListwiseObjective())
    judged = list(_listed(valid, stage.items, config.history, np.random.default_rng(spec.seed)))
    return loop.train(epoch, judged)


def _listed(
    targets: Sequence[SoftTarget], items: ItemCodes, history: int, rng: np.random.Generator
) -> Iterator[Listed]:
    """The lists in tokens. Half of the ends of sequences say whose they are, as serving does; an earlier history does
    not, as the user's code is pooled over what was taken later."""
    for one in targets:
        named = one.asked.taken is None and rng.random() >= _ANONYMOUS
        prompt = items.prompt(one.asked.history, history, one.asked.user if named else None)
        yield Listed(prompt, tuple(map(items.of, one.items)), tuple(one.shares.tolist()))
