"""A variant of policy optimisation: the parts in which GRPO, GDPO, IL-GRPO, A2PO and AGRL differ, and nothing else.

A round goes: rollout, rewards, replay (another try where the policy failed), filter, advantage, updates (`round`). Each
part sees the round that it is in (`Round`): how far the training has come, and what was kept from rounds before. So a
weight or a share may fade, and a part may remember, while a variant itself is a value that never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event

from torch import Tensor
from transformers import PreTrainedModel

from training.core.policy.advantages import Advantage, GroupAdvantage, flat
from training.core.policy.groups import Group, Request, Round
from training.core.policy.rewards import Term, rewarded
from training.core.policy.rollouts import Rollout, Seed, Stopped, roll_out
from training.core.policy.schedule import Schedule, value_at
from training.core.policy.surrogate import Surrogate
from training.core.precision import inference

Replay = Callable[[Sequence[Group], "Actor", Round], Sequence[Group]]
"""Gives the groups to learn from; it may ask the actor for more responses, and say after which prompt to learn them.

A group keeps the number of the request in whose place it stands: mini-batches are drawn by these numbers.
"""


@dataclass(frozen=True)
class Actor:
    """The policy as it is in this `round`: it responds, and its responses are rewarded; not once `stop` is set.

    `requests` are all of the training. Every process must ask as often as the others, also for nothing.
    """

    model: PreTrainedModel
    rewards: Sequence[Term]
    rollout: Rollout
    seed: Seed
    round: Round = field(default_factory=Round)
    requests: Sequence[Request] = ()
    stop: Event = field(default_factory=Event)

    def respond(self, requests: Sequence[Request], attempt: int, rollout: Rollout | None = None) -> list[Group]:
        """Fresh groups without rewards. A further `attempt` at a request draws other samples; so may another `rollout`.

        Stopped, in all processes, where one is asked to stop.
        """
        groups: list[Group] = []
        self.model.eval()
        with suppress(Stopped), inference(self.model):
            groups = roll_out(rollout or self.rollout, self.model, requests, (*self.seed, attempt), self.stop)
        self.check()
        return groups

    def rewarded(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with their rewards, also where responses come from several."""
        return rewarded(groups, self.rewards, self.round.progress)

    def answer(self, requests: Sequence[Request], attempt: int, rollout: Rollout | None = None) -> list[Group]:
        """Fresh groups with their rewards."""
        return self.rewarded(self.respond(requests, attempt, rollout))

    def check(self) -> None:
        """Stopped, in all processes, where one is asked to stop: none may wait for another that has gone."""
        if any(self.round.gathered([self.stop.is_set()])):
            raise Stopped


def as_rolled_out(groups: Sequence[Group], actor: Actor, round: Round) -> Sequence[Group]:
    """No replay."""
    return groups


Filter = Callable[[Group, Round], bool]
"""Says whether a group is learnt from."""


def every_group(group: Group, round: Round) -> bool:
    """No filter."""
    return True


def groups_that_differ(group: Group, round: Round) -> bool:
    """Drops a group whose responses all earn the same: it has no advantage, and costs an update for nothing."""
    return not bool(flat(group.total()))


@dataclass(frozen=True)
class Difficulty:
    """Keeps the groups whose mean of `measure` [G] is within `low` and `high`: neither hopeless nor learnt already.

    A response that has no measure (NaN), such as a list that cannot be parsed, does not count in the mean; a group in
    which none has one is dropped. A curriculum is two bounds that move.
    """

    low: Schedule
    high: Schedule
    measure: Callable[[Group], Tensor] = Group.total

    def __call__(self, group: Group, round: Round) -> bool:
        """Whether the group is kept; logs the share of responses without a measure."""
        measured = self.measure(group)
        round.tally.add("unmeasured", measured.isnan().float())
        low, high = (value_at(bound, round.progress) for bound in (self.low, self.high))
        return low <= float(measured.nanmean()) <= high


@dataclass(frozen=True)
class Variant:
    """How responses come about, what they are worth, and how the policy moves."""

    rollout: Rollout
    rewards: Sequence[Term]
    surrogate: Surrogate
    advantage: Advantage = field(default_factory=GroupAdvantage)
    replay: Replay = as_rolled_out
    keep: Filter = every_group
