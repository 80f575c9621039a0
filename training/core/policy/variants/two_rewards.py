"""The ways to learn from two rewards, by one switch: a business's, and a judge's that may speak of a part of requests.

    business       A = A_biz                                        the judge is only watched
    reward_sum     A = standardised(r_biz + w r_sem)                one drowns the other where its scale is larger
    advantage_sum  A = A_biz + w A_sem                              no gate: the judge may turn an update around
    gdpo           A = (A_biz + w A_sem) over the batch's deviation (Liu et al. 2026, arXiv 2601.05242)
    a2po           A = A_biz + lambda A_sem                         S-GRec (arXiv 2602.10606): helps where it agrees

S-GRec compares with the first three and `reward_sum`; a request that the judge does not see has A = A_biz in each. KL,
clip and how a reward is standardised are the same for all, so that two rows differ in how the rewards are put together
alone. Standardised is as A2PO does: with GRPO's eps of 1e-4, groups whose rewards lie as close together as a ranker's
chances of misses would count for less in the other rows than in A2PO's (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor

from training.core.policy.advantages import GroupAdvantage
from training.core.policy.groups import Group
from training.core.policy.rewards import RewardFunction, Term, pooled
from training.core.policy.rollouts import Rollout
from training.core.policy.variant import Variant
from training.core.policy.variants.gdpo import DecoupledAdvantage
from training.core.policy.variants.grpo import grpo
from training.core.policy.variants.s_grec_a2po import AsymmetricAdvantage, s_grec_a2po

Fusion = Literal["business", "reward_sum", "advantage_sum", "gdpo", "a2po"]


def two_rewards(
    fusion: Fusion, rollout: Rollout, business: Sequence[Term], semantic: Term, kl: float = 1e-3, clip: float = 0.2
) -> Variant:
    """The variant of this name; r_biz is the weighted sum of `business`, `semantic.weight` is w.

    INFERRED: KL and clip, which are MiniOneRec's.
    """
    terms = pooled("business", business)
    if fusion == "a2po":
        return s_grec_a2po(rollout, terms, semantic, kl, clip)
    same = AsymmetricAdvantage(semantic.name)
    watched = replace(semantic, weight=0.0)
    plain = grpo(rollout, [*terms, watched if fusion == "business" else semantic], kl, clip)
    if fusion in ("business", "reward_sum"):
        return replace(plain, advantage=GroupAdvantage(same.ddof, same.eps))
    return replace(plain, advantage=DecoupledAdvantage(same.ddof, same.eps, over_batch=fusion == "gdpo"))


def judged(function: RewardFunction, share: float, seed: int) -> RewardFunction:
    """`function` on a `share` of the requests, None for the others: by the place of the request and the seed alone, so
    that runs of other variants have the same requests judged, and a smaller share is a part of a larger one.
    """

    def of_some(groups: Sequence[Group]) -> list[Tensor | None]:
        chosen = [number for number, group in enumerate(groups) if is_judged(group.request.place, share, seed)]
        said = dict(zip(chosen, function([groups[number] for number in chosen]), strict=True))
        return [said.get(number) for number in range(len(groups))]

    return of_some


def is_judged(place: int, share: float, seed: int) -> bool:
    """Whether the request at this place is one of the `share` that is judged."""
    return float(np.random.default_rng((seed, place)).random()) < share
