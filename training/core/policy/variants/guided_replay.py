"""Adaptive Guided Replay of TaoSR-AGRL (arXiv 2510.08048): where the policy fails, it tries again with a hint.

Known are that rollouts of low accuracy are found, that ground-truth guidance in words is given on demand, and that the
policy so leaves patterns in which it is stuck. INFERRED is the rest:

* A group is hard if fewer than the share `threshold` of its answers are right. Of all groups of a round the hardest
  are guided, at most the share `share`, which fades out at the end of the training.
* The hint is first about the part that the group is worst at, and if no answer is right then, about the label.
* Right answers take the place of the worst ones, at most half of the group, and are learnt without the hint; rewards
  and advantages are those of the mixed group.
* Where no hint helps, the group is left out, and its request waits until a later epoch: then it is asked again in the
  place of a group that teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.core.policy.advantages import flat
from training.core.policy.groups import Group, Request, Response, Round
from training.core.policy.rollouts import Rollout
from training.core.policy.schedule import Linear, Schedule, value_at
from training.core.policy.variant import Actor
from training.core.sequences import Tokens

SLOTS = ("format", "rule", "label", "category", "attribute", "closeness")
GRADES = "grades"
"""The term whose slots they are."""

Hint = Callable[[Request, str], Tokens | None]
"""What is added to a request's prompt to guide it to the gold of a slot; None where there is nothing to say."""

FADING = Linear(0.25, 0.0, begin=0.8)
"""A quarter of the groups, and none at the end of the training."""

RETRIES, GUIDED = "agrl/retries", "agrl/guided"
_AGAIN, _RUNGS = 1, (2, 3)  # attempts; the first is 0


def no_leak(request: Request, response: Response) -> bool:
    """No answer is taken to repeat its hint."""
    return False


def grades(group: Group, slot: str) -> Tensor:
    """The grades [G] of a slot."""
    return group.rewards[GRADES].value[:, SLOTS.index(slot)]


def right(group: Group) -> Tensor:
    """Which answers [G] have the right label, by the rules and in the right form."""
    return torch.stack([grades(group, slot) == 1.0 for slot in ("format", "rule", "label")]).all(dim=0)


@dataclass(frozen=True)
class GuidedReplay:
    """Guides the hardest groups by `hint`; `guided` draws the answers to it (their number and length are its own).

    An answer must fit into a row of the training with what it is learnt after. `leaks` says which answers repeat their
    hint, and must not be learnt. With `strip` off they are learnt after the hint that they were given with. Logs how
    often it is called for, what each rung brings, and how well requests that were guided once do without.
    """

    hint: Hint
    guided: Rollout
    leaks: Callable[[Request, Response], bool] = no_leak
    threshold: float = 0.25
    share: Schedule = FADING
    strip: bool = True

    def __call__(self, groups: Sequence[Group], actor: Actor, round: Round) -> list[Group]:
        """The groups to learn from."""
        groups = self._with_retries(groups, actor, round)
        hard = self._hardest(groups, round)
        failed = {group.request.number: group for group in groups if group.request.number in hard}
        mixed: dict[int, Group] = {}
        for rung, attempt in enumerate(_RUNGS):
            slots = {number: "label" if rung else self._weakest(group) for number, group in failed.items()}
            hints = {number: self.hint(failed[number].request, slot) for number, slot in slots.items()}
            hinted = {
                number: failed[number].request.prompt + hint for number, hint in hints.items() if hint is not None
            }
            asked = [replace(failed[number].request, prompt=prompt) for number, prompt in hinted.items()]
            for answer in actor.answer(asked, attempt, self.guided):
                group = failed[answer.request.number]
                good = self._good(answer, group)
                round.tally.add(f"agrl/accepted_{rung + 1}", float(bool(good)))
                if good:
                    mixed[group.request.number] = self._mixed(group, good)
            failed = {number: group for number, group in failed.items() if number not in mixed}
        self._remember(failed, mixed, round)
        rewarded = {group.request.number: group for group in actor.rewarded(list(mixed.values()))}
        found = [rewarded.get(group.request.number, group) for group in groups]
        return [group for group in found if group.request.number not in failed]

    def _hardest(self, groups: Sequence[Group], round: Round) -> set[int]:
        """The numbers of the groups that are guided, of those of all processes."""
        for group in groups:
            accuracy = right(group).float()
            round.tally.add("agrl/accuracy", accuracy)
            round.tally.add("agrl/rule_adherence", grades(group, "rule"))
            if group.request.place in round.memory.get(GUIDED, []):
                round.tally.add("agrl/once_guided_accuracy", accuracy)
        everywhere = round.gathered([(float(right(group).double().mean()), group.request.number) for group in groups])
        hard = sorted((accuracy, number) for accuracy, number in everywhere if accuracy < self.threshold)
        chosen = hard[: int(value_at(self.share, round.progress) * len(everywhere) + 1e-9)]
        numbers = {number for _, number in chosen}
        round.tally.add("agrl/triggered", [float(group.request.number in numbers) for group in groups])
        return numbers

    def _weakest(self, group: Group) -> str:
        """The step that the group is worst at, of those with gold; the first of equal ones."""
        means = {slot: float(grades(group, slot).nanmean()) for slot in ("category", "attribute", "rule")}
        return min((mean, place, slot) for place, (slot, mean) in enumerate(means.items()) if mean == mean)[2]

    def _good(self, answer: Group, group: Group) -> list[Response]:
        """The right answers to a hint that do not repeat it, at most half as many as the group has."""
        pairs = zip(answer.responses, right(answer).tolist(), strict=True)
        good = [response for response, is_right in pairs if is_right and not self.leaks(answer.request, response)]
        return good[: len(group.responses) // 2]

    def _mixed(self, group: Group, good: Sequence[Response]) -> Group:
        """The group with its worst responses replaced, not yet rewarded."""
        best = group.total().argsort(descending=True, stable=True)[: len(group.responses) - len(good)].tolist()
        learnt = [replace(one, prompt=group.request.prompt) if self.strip else one for one in good]
        return Group(group.request, (*(group.responses[number] for number in best), *learnt))

    def _with_retries(self, groups: Sequence[Group], actor: Actor, round: Round) -> list[Group]:
        """The groups, with requests that failed in an earlier epoch in the place of groups that teach nothing."""
        waiting: list[list[int]] = round.memory.get(RETRIES, [])
        idle = [
            group.request.number
            for group in groups
            if bool(flat(group.total())) and float(right(group).double().mean()) >= self.threshold
        ]
        due = [place for place, epoch in waiting if epoch < round.epoch]
        places = dict(zip(sorted(round.gathered(idle)), due, strict=False))
        round.memory[RETRIES] = [entry for entry in waiting if entry[0] not in places.values()]
        own = [(places[number], number) for number in idle if number in places]
        asked = [replace(actor.requests[place], place=place, number=number) for place, number in own]
        again = {group.request.number: group for group in actor.answer(asked, _AGAIN)}
        round.tally.add("agrl/retried", [float(group.request.number in again) for group in groups])
        return [again.get(group.request.number, group) for group in groups]

    def _remember(self, failed: dict[int, Group], mixed: dict[int, Group], round: Round) -> None:
        """Keep which requests failed, with the epoch, and which were guided, of all processes."""
        memory, places = round.memory, {place for place, _ in round.memory[RETRIES]}
        new = sorted(round.gathered([group.request.place for group in failed.values()]))
        memory[RETRIES] += [[place, round.epoch] for place in new if place not in places]
        guided = round.gathered([group.request.place for group in mixed.values()])
        memory[GUIDED] = sorted({*memory.get(GUIDED, []), *guided})
