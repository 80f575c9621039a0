"""Stage: the generator learns from two rewards, the business's and what the shop's semantic judge says (S-GRec).

A2PO here is S-GRec's Asymmetric Advantage Policy Optimization (arXiv 2602.10606), not the A*-PO of arXiv 2505.20686:
the judge strengthens what the business's advantage says where it agrees, and can turn no update around. `fusion` names
the other ways that the paper compares with; rows differ in it and in the share that is judged alone, and the same
requests are judged in all of them.

Business is what was taken next, as in `grpo_ranked`: the hit, the penalty of places above it, the ranker's chance of a
miss. With `business: ecpm` it is what an item would earn, 1000 times bid times chance; then the last weights are kept,
as NDCG does not say what is earned, and the gate holds all the same. Where there is no ranker, no judge, or no bids for
the eCPM, the stage is left out. Reads and writes as the preference stages do; lost on a kill: the rounds since the last
checkpoint.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from training.core.errors import DataError
from training.core.policy.rewards import Term
from training.core.policy.rollouts import Beams
from training.core.policy.variants.two_rewards import Fusion, judged, two_rewards
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.alignment import AlignmentStage
from training.generative_rec.bids import Bids
from training.generative_rec.judge_view import JudgeView, newest_judge
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.rewards import RANKING, ecpm, judge_reward, ranker_reward
from training.generative_rec.stages import grpo


@dataclass(frozen=True, kw_only=True)
class Config(grpo.Config):
    """`judged_share`: of the requests, the ones that the judge sees, 0: none. `semantic_weight`: w of `two_rewards`,
    which A2PO does without."""

    fusion: Fusion = "a2po"
    judged_share: float = 0.05
    semantic_weight: float = 1.0
    business: Literal["next_item", "ecpm"] = "next_item"
    ranker: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.judged_share <= 1.0:
            raise DataError(
                f"{self.judged_share:g} is no share of the requests", where="judged_share", do="give one from 0 to 1"
            )


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    bids = Bids.read(spec) if config.business == "ecpm" else None
    ranker, judge = RankerView.of(spec, config.split), newest_judge(spec, config.split)
    stage = AlignmentStage.start(spec, config, ranker.store_features)
    view, items = JudgeView.of(judge, spec, stage.examples), stage.items
    semantic = judge_reward(config.semantic_weight, view, items)
    semantic = replace(semantic, function=judged(semantic.function, config.judged_share, spec.seed))
    business: Sequence[Term] = (
        [ecpm(ranker, bids, items, stage.examples)]
        if bids
        else [*RANKING, ranker_reward(config.ranker, ranker, items, stage.examples)]
    )
    rollout = Beams(items.trie, items.tokens, config.beams)
    variant = two_rewards(config.fusion, rollout, business, semantic, config.kl, config.clip)
    result = grpo.optimised(
        stage, variant, config.policy, choose=bids is None, health=lambda: health(spec.out_dir / "metrics.jsonl")
    )
    return replace(result, metrics={**result.metrics, "unknown_items": view.unknown(items)})


def health(log: Path) -> dict[str, float]:
    """What A2PO logs of each round, in the mean over the rounds that have it: how many groups were judged, how often
    the judge agreed, lambda, and advantages out of bounds."""
    found = defaultdict[str, list[float]](list)
    for line in map(json.loads, log.read_text().splitlines()):
        for name, value in line.items():
            if name.startswith("a2po/"):
                found[name.replace("/", ".")].append(value)
    return {name: fmean(values) for name, values in found.items()}
