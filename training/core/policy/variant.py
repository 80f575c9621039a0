"""A variant of policy optimisation: the parts in which GRPO, IL-GRPO, A2PO and AGRL differ, and nothing else.

A round goes: rollout, rewards, replay (another try where the policy failed), filter, advantage, updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event

from torch import Tensor
from transformers import PreTrainedModel

from training.core.policy.advantages import GroupAdvantage
from training.core.policy.groups import Group, Request, Tally
from training.core.policy.rewards import Term, rewarded
from training.core.policy.rollouts import Rollout, Seed, roll_out
from training.core.policy.surrogate import Clip, Surrogate
from training.core.precision import inference

Advantage = Callable[[Group, Tally], Tensor]
"""Gives a group's advantages, one per response [G] or per token [G, T]; T is at least its longest response."""

Replay = Callable[[Sequence[Group], "Actor", Tally], Sequence[Group]]
"""Gives the groups to learn from; it may ask the actor for more responses, and say after which prompt to learn them."""


@dataclass(frozen=True)
class Actor:
    """The policy as it is in this round: it answers requests, and its answers are rewarded; not once `stop` is set."""

    model: PreTrainedModel
    rewards: Sequence[Term]
    rollout: Rollout
    seed: Seed
    stop: Event = field(default_factory=Event)

    def answer(self, requests: Sequence[Request], attempt: int, rollout: Rollout | None = None) -> list[Group]:
        """Fresh rewarded groups. A further `attempt` at a request draws other samples; `rollout` may be another one.

        Stopped where the run is asked to stop.
        """
        self.model.eval()
        with inference(self.model):
            groups = roll_out(rollout or self.rollout, self.model, requests, (*self.seed, attempt), self.stop)
        return [self.rewarded(group) for group in groups]

    def rewarded(self, group: Group) -> Group:
        """The group with its rewards, also where its responses come from several."""
        return rewarded(group, self.rewards)


def as_rolled_out(groups: Sequence[Group], actor: Actor, tally: Tally) -> Sequence[Group]:
    """No replay."""
    return groups


Filter = Callable[[Group, Tally], bool]
"""Says whether a group is learnt from."""


def every_group(group: Group, tally: Tally) -> bool:
    """No filter."""
    return True


@dataclass(frozen=True)
class Difficulty:
    """Keeps the groups whose mean of `measure` [G] is within `low` and `high`: neither hopeless nor learnt already.

    A response that has no measure (NaN), such as a list that cannot be parsed, does not count in the mean; a group in
    which none has one is dropped.
    """

    low: float
    high: float
    measure: Callable[[Group], Tensor] = Group.total

    def __call__(self, group: Group, tally: Tally) -> bool:
        """Whether the group is kept; logs the share of responses without a measure."""
        measured = self.measure(group)
        tally.add("unmeasured", measured.isnan().float())
        return self.low <= float(measured.nanmean()) <= self.high


@dataclass(frozen=True)
class Variant:
    """How responses come about, what they are worth, and how the policy moves."""

    rollout: Rollout
    rewards: Sequence[Term]
    surrogate: Surrogate
    advantage: Advantage = field(default_factory=GroupAdvantage)
    replay: Replay = as_rolled_out
    keep: Filter = every_group


def grpo(rollout: Rollout, rewards: Sequence[Term], kl: float = 0.04, clip: float = 0.2) -> Variant:
    """Plain GRPO (Shao et al. 2024): total reward standardised by sample deviation + 1e-4, mean of response means."""
    return Variant(rollout, rewards, Surrogate(Clip(clip, clip), kl=kl, aggregate="response"))
