"""AIGQ's IL-GRPO: an advantage for each query of a list, and one for the list (arXiv 2603.19710, section 2.6).

A response is a list; its query j is compared with query j of the other responses, never with its neighbours:

    A_t = (R_query(q_ij) - mu_j) / sigma_j + lambda (R_seq(o_i) - mu_S) / sigma_S        token t of query j of list i
    A_t = (r_trig(T_ik) - mu_k) / sigma_k                                                token t of trigger segment k

sigma = sqrt(population variance + eps). A slot that fewer than two lists have teaches nothing. A token of neither (a
rationale) has the list's advantage only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.core.errors import DataError
from training.core.policy.advantages import Clamped, standardise
from training.core.policy.groups import Group, Response, Reward, Round
from training.core.policy.rewards import Term
from training.core.policy.rollouts import Rollout
from training.core.policy.schedule import Linear, Schedule, value_at
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.variant import Difficulty, Variant

NO_SLOT = -1
TokenSlots = Callable[[Response], Sequence[int]]
"""The slot of each token of a response, from 0, or NO_SLOT. INFERRED: a separator is of the query that it ends."""


def no_slots(response: Response) -> Sequence[int]:
    """A response without slots of a kind."""
    return [NO_SLOT] * len(response.tokens)


@dataclass(frozen=True)
class SlotAdvantage:
    """An advantage per token, from the rewards with slots [G, slots] and the total of those without.

    The rewards named in `trigger` are those of `trigger_slots`; all others with slots are of `query_slots`, summed.
    INFERRED: `list_weight` (lambda) and `eps`.
    """

    query_slots: TokenSlots
    trigger_slots: TokenSlots = no_slots
    trigger: str = ""
    list_weight: Schedule = 0.5
    eps: float = 1e-6

    def __call__(self, groups: Sequence[Group], round: Round) -> list[Tensor]:
        """The advantages [G, T] of each group, T its longest response."""
        return [self._of(group, value_at(self.list_weight, round.progress)) for group in groups]

    def _of(self, group: Group, list_weight: float) -> Tensor:
        queries = _summed(group, [reward for name, reward in group.rewards.items() if name != self.trigger])
        triggers = _summed(group, [reward for name, reward in group.rewards.items() if name == self.trigger])
        whole = list_weight * standardise(group.total(), ddof=0, eps=self.eps, inside_root=True)
        by_query = self._by_token(group, queries, self.query_slots) + whole[:, None]
        by_trigger = self._by_token(group, triggers, self.trigger_slots)
        return torch.where(_slot_table(group, self.trigger_slots) == NO_SLOT, by_query, by_trigger)

    def _by_token(self, group: Group, slots: Tensor, of: TokenSlots) -> Tensor:
        """The slots' advantages [G, slots] at the tokens [G, T] that are theirs; 0 at tokens without a slot."""
        own = standardise(slots, ddof=0, eps=self.eps, inside_root=True)
        places = _slot_table(group, of)
        beyond = (places == NO_SLOT) | (places >= own.shape[1])
        padded = torch.cat([own, own.new_zeros(len(own), 1)], dim=1)
        return padded.gather(1, places.masked_fill(beyond, own.shape[1]))


def query_reward(group: Group, trigger: str = "") -> Tensor:
    """The mean reward [G] of a list's queries; NaN for a list without any."""
    return _summed(group, [reward for name, reward in group.rewards.items() if name != trigger]).nanmean(dim=1)


def _summed(group: Group, rewards: Sequence[Reward]) -> Tensor:
    """The sum [G, slots] of the rewards that have slots, missing where one of them is; no slots without any."""
    terms = [reward.weighted for reward in rewards if reward.value.ndim == 2]
    if len({term.shape for term in terms}) > 1:
        raise DataError(
            f"rewards of the same slots have {' and '.join(str(tuple(term.shape)) for term in terms)} values",
            why="they are summed slot by slot",
            do="let all terms give as many slots to a group, NaN where there is nothing to reward",
        )
    return torch.stack(terms).sum(dim=0) if terms else torch.zeros(len(group.responses), 0)


def _slot_table(group: Group, of: TokenSlots) -> Tensor:
    """The slot of each token [G, T]; NO_SLOT beyond the end of a response."""
    lengths = [len(response.tokens) for response in group.responses]
    longest, rows = max(lengths), [list(of(response)) for response in group.responses]
    if lengths != [len(row) for row in rows]:
        raise DataError(
            f"slots for {sum(map(len, rows))} tokens were given, and there are {sum(lengths)}",
            do="give one slot per token of a response, or NO_SLOT",
        )
    return torch.tensor([row + [NO_SLOT] * (longest - len(row)) for row in rows])


def il_grpo(
    rollout: Rollout,
    queries: Sequence[Term],
    lists: Sequence[Term],
    query_slots: TokenSlots,
    *,
    trigger: Term | None = None,
    trigger_slots: TokenSlots = no_slots,
    list_weight: Schedule = 0.5,
    entropy: Linear | None = None,
) -> Variant:
    """IL-GRPO of `queries` (terms with slots), `lists` (terms without) and, for Think, the `trigger` reward.

    Of the paper: rewards clamped to +-10 and advantages to +-2, the groups with a mean query reward in [0.1, 0.95] (so
    let it lie in [0, 1]), an entropy bonus that falls, a wider clip for the fifth of the tokens with most entropy; its
    rollouts are 8 at temperature 1 and top-k 100. INFERRED: lambda, the bonus, both clips (0.2 and 0.28), and the mean
    over tokens.
    """
    name = trigger.name if trigger else ""
    given = (*queries, *lists, *([trigger] if trigger else []))
    terms = [replace(term, clamp=term.clamp or (-10.0, 10.0)) for term in given]
    fading = entropy or Linear(0.01, 0.0)
    surrogate = Surrogate(Clip(0.2, 0.2), uncertain_clip=Clip(0.28, 0.28), quantile=0.8, entropy=fading)
    advantage = Clamped(SlotAdvantage(query_slots, trigger_slots, name, list_weight), 2.0)
    keep = Difficulty(0.1, 0.95, measure=lambda group: query_reward(group, name))
    return Variant(rollout, terms, surrogate, advantage, keep=keep)
