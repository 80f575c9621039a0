"""What a reason says, by rules over its words, and whether it contradicts the levels that it stands behind.

The words are those of the rule teacher. A reason all of whose parts speak for an item contradicts a level below neutral
of profile fit, and one all of whose parts speak against it a level above; where parts differ either may win. Who says
that an item was taken before contradicts a level of novelty other than known. Other words say nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.semantic_judge.aspects import NOVELTY, PROFILE, UNKNOWN, Aspect, Levels
from training.semantic_judge.teachers.rules import TAKEN, WORDS

_AGAINST = tuple(against for against, _ in WORDS.values())
_FOR = tuple(for_it for _, for_it in WORDS.values())
_NEUTRAL, _KNOWN = PROFILE.values.index(0.0), 0


@dataclass(frozen=True)
class Claims:
    """`profile`: 1 for the item, -1 against it, 0 both or nothing; `taken`: that it was taken before."""

    profile: int
    taken: bool

    @property
    def any(self) -> bool:
        """Whether anything is said that a level could contradict."""
        return bool(self.profile) or self.taken


def claims_of(reason: str) -> Claims:
    """What a reason says."""
    parts = [part.strip() for part in reason.split(";")]
    speaks = {any(part in words for part in parts) * sign for words, sign in ((_FOR, 1), (_AGAINST, -1))} - {0}
    return Claims(speaks.pop() if len(speaks) == 1 else 0, TAKEN in parts)


def contradicts(claims: Claims, levels: Sequence[int], scored: Sequence[Aspect]) -> bool:
    """Whether one of the `levels` [K] says the opposite of the reason; `UNKNOWN` ones say nothing."""
    own = {aspect.name: level for aspect, level in zip(scored, levels, strict=True) if level != UNKNOWN}
    profile = own.get(PROFILE.name, _NEUTRAL)
    return claims.profile * (profile - _NEUTRAL) < 0 or (claims.taken and own.get(NOVELTY.name, _KNOWN) != _KNOWN)


def contradictions(reasons: Sequence[str | None], levels: Levels, scored: Sequence[Aspect]) -> dict[str, float]:
    """`contradictions`: the share of reasons that contradict a level, of those that say anything; `silent`: the share
    of all rows whose reason says nothing that can be read."""
    found = [claims_of(reason or "") for reason in reasons]
    telling = [place for place, claims in enumerate(found) if claims.any]
    wrong = [contradicts(found[place], levels[place].tolist(), scored) for place in telling]
    return {
        "contradictions": float(np.mean(wrong)) if wrong else float("nan"),
        "silent": 1.0 - len(telling) / len(found) if found else float("nan"),
    }
