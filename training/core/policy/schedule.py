"""Numbers that change while a policy is trained: the weight of a reward, of an entropy bonus, a share of a replay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """`start` until the share `begin` of the training is done, then straight to `end`, which it has at its end."""

    start: float = 0.0
    end: float = 0.0
    begin: float = 0.0

    def at(self, progress: float) -> float:
        """The number when `progress`, from 0 to 1, of the training is done."""
        done = max(0.0, progress - self.begin) / max(1.0 - self.begin, 1e-9)
        return self.start + (self.end - self.start) * min(1.0, done)


Schedule = float | Linear
"""A number that stays, or one that changes."""


def value_at(schedule: Schedule, progress: float) -> float:
    """What a schedule says when `progress`, from 0 to 1, of the training is done."""
    return schedule.at(progress) if isinstance(schedule, Linear) else schedule
