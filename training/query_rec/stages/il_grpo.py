"""Stage: AIGQ's IL-GRPO of a model of hints, Direct or Think: a reward for each query of a list, and one for the list.

With `level: list` it is GRPO with one advantage for a list: the baseline that collapses in the paper. Prompts are of
the later training days (`later`), rewards by the hint ranker, which has learnt of training days and is calibrated on
validation days: neither has seen a test day. The ranker's version stands in the name of its reward in every log line.
The weights with the best lists on validation are kept, and the gate refuses them where those lists may be worse than
before: then the start goes on. Lost on a kill: the rounds since the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.core.errors import LeftOut
from training.core.gated_stage import GatedStage, StageGate
from training.core.policy.rollouts import Sampling
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.stage import StageResult, StageSpec, resolve_config
from training.query_rec.clicks import ClickRanker
from training.query_rec.examples import Example, Examples
from training.query_rec.hint_model import HintModel
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.hint_validation import METRICS, HintValidation
from training.query_rec.hints import FilterConfig, HintFilter
from training.query_rec.policy import Level, hint_variant
from training.query_rec.purchases import Purchases
from training.query_rec.rewards import RewardConfig, RewardShape, query_terms
from training.query_rec.shop_words import ShopWords

_SHAPED = 500  # examples of which the shape of rewards is read


@dataclass(frozen=True)
class Config:
    """`start`: the stage whose model is trained further, on `examples` of `lists` at most. `later`: prompts are of
    training days behind this share of them. `responses` and `top_k` are the paper's; `list_weight` (lambda), `later`
    and the gate's are INFERRED. `items`: a query that finds so many things is servable."""

    start: str = "il_sft"
    lists: str = "lists"
    level: Level = "query"
    examples: int = 20_000
    later: float = 0.5
    responses: int = 8
    top_k: int | None = 100
    list_weight: float = 0.5
    items: int = 4
    rewards: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    gate: StageGate = field(default_factory=lambda: StageGate(max_loss=0.05, valid=0.9, samples=500))


def main(spec: StageSpec) -> StageResult:
    """Train, hold the gate, write `model/` and `gate.json`."""
    config = resolve_config(spec, Config)
    folder = spec.artifact(config.start) / "model"
    model = HintModel.load(folder)
    lists = Examples.open(spec.artifact(config.lists) / "lists")
    form = model.config.form
    valid = lists.read(form, {"valid"}, config.gate.samples)
    asked = _later(lists.read(form, {"train"}), config.later)[: config.examples]
    asked = [one for one in asked if one.interests or not model.thinks]
    if not valid or not asked:
        raise LeftOut(f"there is no request of form {form} to learn or to measure by", do="wait for more of the log")
    ranker = HintRanker.load(spec.artifact("hint_ranker") / "model")
    shop = HintFilter(FilterConfig(items=config.items), ShopWords.read(spec).words)
    shape = RewardShape.of(*_logged(ranker, asked[:_SHAPED]))
    chances = _Chances(ranker, asked)
    bought = Purchases.of(ranker.known).expected
    queries = query_terms(model.answers, chances, config.rewards, shape, shop.servable, bought, ranker.version)
    rollout = Sampling(config.responses, model.answers.max_tokens, model.answers.end, top_k=config.top_k)
    variant = hint_variant(model, rollout, queries, config.level, config.list_weight)
    validation = HintValidation(model, valid)
    gate = GatedStage.begin(spec, config.gate, folder, METRICS, validation.asked(), validation.gains)
    pad = int(model.vocabulary.tokenizer.pad_token_id)
    trainer = PolicyTrainer(model.model, pad, variant, config.policy, spec.seed, spec.out_dir, run=spec.hash)
    sizes = {"examples": float(len(asked)), "reward_scale": shape.scale}
    try:
        trained = trainer.train([model.request(one) for one in asked], validation.loss)
    except LeftOut as refusal:
        verdict = gate.unchanged(refusal.reason, validation.metrics()["format_rate"])
        return gate.hand_on(verdict, model.save, sizes, refusal.reason, None)
    found = validation.metrics()
    verdict = gate.hold(validation.gains(), found["format_rate"])
    rounds = {"rounds": float(trained.rounds), "best_round": float(trained.best_round)}
    note = _note(found, trained.best_round, ranker.version)
    return gate.hand_on(verdict, model.save, {**found, **rounds, **sizes}, note, trained.resumed_from)


@dataclass(frozen=True)
class _Chances:
    """`ClickChances` of the people of these examples."""

    ranker: ClickRanker
    examples: Sequence[Example]

    def __call__(self, places: Sequence[int], queries: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        return self.ranker.chances([self.examples[place].person for place in places], queries)


def _logged(ranker: ClickRanker, examples: Sequence[Example]) -> tuple[list[str], NDArray[np.float32]]:
    """The queries of lists, and what the ranker says of each."""
    told = ranker.chances([one.person for one in examples], [one.labels for one in examples])
    return [query for one in examples for query in one.labels], np.concatenate(told)


def _later(examples: Sequence[Example], share: float) -> list[Example]:
    """Those of the days behind this share of them; the order stays."""
    days = sorted({one.day for one in examples})
    first = days[min(int(share * len(days)), len(days) - 1)] if days else None
    return [one for one in examples if first is not None and one.day >= first]


def _note(found: Mapping[str, float], best: int, version: str) -> str:
    """What the gate's figures do not say of a stage, for people."""
    facts = [
        f"rewards by ranker {version}",
        f"{found['format_rate']:.1%} of the free answers are answers",
        f"{found['different_queries']:.0f} different queries in all lists",
    ]
    if best == 0:
        facts.append("no round wrote better lists than the start, so it is unchanged")
    return "; ".join(facts)
