"""Stage: list-level SFT. The model learns the shop's ranker's lists, beside what was taken, or is left out.

It starts from SFT, and learns what the ranker would put first (`soft_targets`, the equation): after the end of each
user's training sequence, which is what will be asked next and whose answer nobody has seen, and after the histories of
training samples, beside the item that was taken then. Each epoch learns `draws` of each list anew.

The weights with the lowest loss on lists of users who are held back are kept: how well the ranker is followed is what
is to be learnt, and validation is kind to what follows it (`ranker_view`). The gate is that of the preference stages: a
model that ranks worse than its start, or no longer writes valid ids by itself, is left out (`gate.json`). So is the
stage where there is no ranker. Reads `next_item_training_set`, the ids and the model it starts from. Lost on a kill:
the ranker's lists, and the steps since the last checkpoint; a retry asks for the same lists and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.core.errors import DataError
from training.core.listwise import Listed, ListwiseObjective
from training.core.loop import Loop, LoopConfig, Trained
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.alignment import AlignmentConfig, AlignmentStage
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.soft_targets import Asked, RankedConfig, SoftTarget, asked_of, soft_targets
from training.next_item.samples import last_told, sequences_by_user

_ANONYMOUS = 0.5


@dataclass(frozen=True, kw_only=True)
class Config(AlignmentConfig):
    """`examples` is how many ends of sequences, and how many histories of training samples, have a list at most; with
    lists of fewer than `least` users the stage is left out. `draws`: of each list in an epoch."""

    ranked: RankedConfig = field(default_factory=RankedConfig)
    draws: int = 8
    least: int = 20
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(row_tokens=256))

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise DataError(f"{self.draws} draws of a list teach nothing", where="draws", do="give 1 or more")


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    view = RankerView.of(spec, config.split)
    stage = AlignmentStage.start(spec, config, view.store_features)
    asked = _asked(stage, view, config)
    found = soft_targets(view, asked, stage.items.item_ids, config.ranked)
    users = {one.asked.user for one in found}
    sizes = {"asked": float(len(asked)), "lists": float(len(found))}
    if len(users) < config.least:
        return stage.leave_out(f"the ranker's lists are of {len(users)} users, fewer than {config.least}", sizes)
    trained = _train(stage, config, found)
    steps = {"steps": float(trained.steps), "best_step": float(trained.best_step)}
    return stage.end({**sizes, **steps}, trained.resumed_from, best=trained.best_step)


def _asked(stage: AlignmentStage, view: RankerView, config: Config) -> list[Asked]:
    """Ends and histories of the training part; where own items are not ranked, without samples that take one again."""
    samples = [(one.user_id, one.history, stage.items.item_ids[one.item], one.store_features) for one in stage.examples]
    served = [sample for sample in samples if view.rank_own or sample[2] not in sample[1]]
    told = last_told(stage.samples) if view.store_features else {}
    return asked_of(sequences_by_user(stage.samples), served, config.examples, stage.spec.seed, told)


def _train(stage: AlignmentStage, config: Config, found: Sequence[SoftTarget]) -> Trained:
    spec, items = stage.spec, stage.items
    learnt, judged = held_back(found, spec.seed)
    valid = list(_listed(judged, items, config.history, np.random.default_rng(spec.seed)))
    longest = max(map(len, [*valid, *_listed(learnt, items, config.history, np.random.default_rng(spec.seed))]))
    if longest > config.loop.row_tokens:
        raise DataError(
            f"a list has {longest} tokens with its history, a row {config.loop.row_tokens}",
            do="raise `loop.row_tokens`, or lower `ranked.top` or `history`",
        )

    def epoch(number: int) -> list[Listed]:
        rng = np.random.default_rng((spec.seed, number))
        return [whole.drawn(config.draws, rng) for whole in _listed(learnt, items, config.history, rng)]

    loop = Loop(stage.model, stage.pad, config.loop, spec.seed, spec.out_dir, spec.hash, objective=ListwiseObjective())
    return loop.train(epoch, valid)


def held_back(found: Sequence[SoftTarget], seed: int) -> tuple[list[SoftTarget], list[SoftTarget]]:
    """The lists to learn from, and those of one user in twenty, drawn with the seed, to judge by: a user's histories
    are alike, and so are the lists after them."""
    users = np.random.default_rng(seed).permutation(sorted({one.asked.user for one in found}))
    judges = set(users[: max(1, len(users) // 20)].tolist())
    return [one for one in found if one.asked.user not in judges], [one for one in found if one.asked.user in judges]


def _listed(
    targets: Sequence[SoftTarget], items: ItemCodes, history: int, rng: np.random.Generator
) -> Iterator[Listed]:
    """The lists in tokens. Half of the ends of sequences say whose they are, as serving does; an earlier history does
    not, as the user's code is pooled over what was taken later."""
    for one in targets:
        named = one.asked.taken is None and rng.random() >= _ANONYMOUS
        prompt = items.prompt(one.asked.history, history, one.asked.user if named else None)
        yield Listed(prompt, tuple(map(items.of, one.items)), tuple(one.shares.tolist()))
