"""IL-GRPO of a model of hints, and the baseline beside it: the same rewards as one number for a list.

What a rollout lacks never drops its group (AIGQ leaves these open; all INFERRED): an unparsable one has no queries and
learns by all its tokens that it was none; a slot that fewer than two rollouts have teaches nothing; a query that has no
reference at its place earns no ROUGE-L and still its click; the token behind a query is of it; reasons have the list's
advantage alone. A group goes only where the mean reward of its queries is outside of [0.1, 0.95], or has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from training.core.policy.groups import Group
from training.core.policy.rewards import Term
from training.core.policy.rollouts import Rollout
from training.core.policy.variant import Difficulty, Variant
from training.core.policy.variants.il_grpo import il_grpo, no_slots
from training.query_rec.hint_model import HintModel
from training.query_rec.rewards import list_terms, of_lists, trigger_term

Level = Literal["query", "list"]
"""Of an advantage."""


def hint_variant(
    model: HintModel, rollout: Rollout, queries: Sequence[Term], level: Level, list_weight: float
) -> Variant:
    """IL-GRPO of the terms of `queries` by the level `query`; by `list`, GRPO with the same rewards (not that of the
    triggers, which are no queries), clips, bonus and filter, and one advantage for all tokens of a list."""
    lists = list_terms(model.answers)
    if level == "list":
        whole = of_lists(queries)
        variant = il_grpo(rollout, (), (*whole, *lists), no_slots, list_weight=1.0)
        names = [term.name for term in whole]
        return replace(variant, keep=Difficulty(0.1, 0.95, measure=lambda group: _summed(group, names)))
    if not model.thinks:
        return il_grpo(rollout, queries, lists, model.query_slots, list_weight=list_weight)
    return il_grpo(
        rollout,
        queries,
        lists,
        model.query_slots,
        trigger=trigger_term(model.planned),
        trigger_slots=model.planned.trigger_slots,
        list_weight=list_weight,
    )


def _summed(group: Group, names: Sequence[str]) -> Tensor:
    """The terms of the queries alone [G]; NaN for what is no list, which counts in no mean."""
    values = sum((group.rewards[name].weighted for name in names[1:]), group.rewards[names[0]].weighted)
    return values.masked_fill(group.rewards["format"].value < 0, float("nan"))
