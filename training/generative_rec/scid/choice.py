"""Which check's weights are kept, and which need not be kept until the end to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One look at phase 2: what the rule of choice needs to know."""

    step: int
    valid_loss: float
    collision_rate: float


def choose(checks: Sequence[Check], tolerance: float) -> Check:
    """The check to keep: lowest collision rate within the tolerance; of equals the lower loss, then the earlier."""
    limit = min(check.valid_loss for check in checks) * (1.0 + tolerance)
    within = [check for check in checks if check.valid_loss <= limit]
    return min(within, key=lambda check: (check.collision_rate, check.valid_loss, check.step))


def may_win(check: Check, checks: Sequence[Check], tolerance: float) -> bool:
    """Whether a later, lower best loss could still leave this check the one to keep."""
    limit = min(other.valid_loss for other in checks) * (1.0 + tolerance)
    beaten = any(
        other.valid_loss <= check.valid_loss
        and other.collision_rate <= check.collision_rate
        and (other.valid_loss, other.collision_rate, other.step) < (check.valid_loss, check.collision_rate, check.step)
        for other in checks
    )
    return check.valid_loss <= limit and not beaten
