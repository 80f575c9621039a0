"""Stage: GRPO with the ranking reward over the catalogue's beams (MiniOneRec), from an SFT model.

The beams of a training sample are its group: the true item earns 1, the others lose more the higher they stand, and a
group without the true item teaches nothing, unless the shop's ranker says of each miss how likely it would be
(`ranker`, the row `grpo_ranked`; where there is no ranker that stage is left out). Weights are chosen by validation
NDCG@10 and the gate is that of the preference stages. Reads and writes as they do; lost on a kill: the rounds since the
last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from training.core.errors import LeftOut
from training.core.policy.groups import Request
from training.core.policy.rollouts import Beams
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.policy.variant import Variant
from training.core.policy.variants.grpo import grpo
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.alignment import AlignmentConfig, AlignmentStage
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.rewards import RANKING, ranker_reward


@dataclass(frozen=True, kw_only=True)
class Config(AlignmentConfig):
    """`beams`: the size of a group. `ranker`: the weight of the ranker's reward, 0: there is none. `kl`, `clip`: of the
    surrogate."""

    beams: int = 16
    ranker: float = 0.0
    kl: float = 0.001
    clip: float = 0.2
    policy: PolicyConfig = field(default_factory=PolicyConfig)


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    view = RankerView.of(spec, config.split) if config.ranker else None
    stage = AlignmentStage.start(spec, config, view.store_features if view else ())
    items = stage.items
    rewards = [*RANKING, *([ranker_reward(config.ranker, view, items, stage.examples)] if view else [])]
    variant = grpo(Beams(items.trie, items.tokens, config.beams), rewards, config.kl, config.clip)
    return optimised(stage, variant, config.policy)


def optimised(
    stage: AlignmentStage,
    variant: Variant,
    policy: PolicyConfig,
    *,
    choose: bool = True,
    health: Callable[[], Mapping[str, float]] = dict,
) -> StageResult:
    """Train the stage's model with a variant on its examples, hold the gate, and hand on what it says.

    `choose`: the weights of the best validation NDCG@10, else the last. `health`: figures of the run, asked at its end.
    """
    items, spec = stage.items, stage.spec
    trainer = PolicyTrainer(stage.model, stage.pad, variant, policy, spec.seed, spec.out_dir, run=spec.hash)
    requests = [Request(one.prompt, items.tokens[one.item]) for one in stage.examples]
    start = -float(stage.gate.before.gains.mean())
    sizes = {"examples": float(len(stage.examples))}
    try:
        trained = trainer.train(requests, (lambda: -stage.validation.ndcg()) if choose else None, start)
    except LeftOut as refusal:
        return stage.leave_out(refusal.reason, sizes)
    best = trained.best_round if choose else trained.rounds
    rounds = {"rounds": float(trained.rounds), "best_round": float(best)}
    return stage.end({**rounds, **sizes, **health()}, trained.resumed_from, best=best)
