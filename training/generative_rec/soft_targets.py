"""The ranker's lists as soft targets for list-level SFT, beside the item that was taken.

    q(i | h) = (1 - w) p(i | h)^(1/T) / sum_j p(j | h)^(1/T)  +  w [i = y]      over the ranker's first N items after h

p are the ranker's calibrated probabilities, T the temperature: towards 0 its first item is all, above 1 the list is
flatter. y is the item that was taken after h, and w its weight (`truth`); after the end of a sequence, where nobody
knows what comes next, the list is all. Training on q is `core.listwise`.

In no list is what the user took later and h does not hold: the ranker has seen the user take it (`ranker_view`), and
would put it first for that. That it has also seen what of h is taken again stays: what is left out of a list for that
would be most of what a shop with repeats sells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.core.errors import DataError
from training.core.progress import Progress
from training.generative_rec.ranker_view import RankerView
from training.next_item.recommender import Ranking
from training.next_item.store_features import StoreFeatures

Shares = NDArray[np.float64]
_AT_ONCE = 512


@dataclass(frozen=True)
class RankedConfig:
    """`top` items of the ranker after a history, `temperature` as T above, `truth` as w. INFERRED."""

    top: int = 20
    temperature: float = 0.5
    truth: float = 0.3

    def __post_init__(self) -> None:
        if not (self.top >= 1 and self.temperature > 0.0 and 0.0 <= self.truth < 1.0):
            raise DataError(
                f"top {self.top}, temperature {self.temperature:g} and truth {self.truth:g} make no list",
                where="ranked",
                do="give top 1 or more, a temperature above 0, and truth from 0 to below 1",
            )


@dataclass(frozen=True)
class Asked:
    """A history of a user (item ids, oldest first), what was taken next, where anybody knows, what was `later`, and
    what the feature store said of the user then."""

    user: str
    history: tuple[str, ...]
    taken: str | None
    later: frozenset[str]
    store_features: StoreFeatures = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class SoftTarget:
    """What may come after a history, and how likely: `shares` [items], of sum 1."""

    asked: Asked
    items: tuple[str, ...]
    shares: Shares


def asked_of(
    sequences: Mapping[str, Sequence[str]],
    samples: Iterable[tuple[str, tuple[str, ...], str, StoreFeatures]],
    limit: int,
    seed: int,
    told: Mapping[str, StoreFeatures] | None = None,
) -> list[Asked]:
    """The ends of at most `limit` users' training sequences, drawn with the seed, and the histories of these training
    samples (user, history, what was taken, what the feature store said), but for empty ones: before them the ranker
    knows nobody. `told`: what the feature store said last of each user, which stands for the end of the sequence: what
    it says of the user's next question is of a day that is held out."""
    users = list(sequences)
    drawn = (users[place] for place in np.sort(np.random.default_rng(seed).permutation(len(users))[:limit]))
    ends = [Asked(user, tuple(sequences[user]), None, frozenset(), (told or {}).get(user, {})) for user in drawn]
    return ends + [
        Asked(user, history, taken, frozenset(sequences[user]).difference(history) | {taken}, store)
        for user, history, taken, store in samples
        if history
    ]


def softened(probabilities: Sequence[float], temperature: float) -> Shares:
    """p^(1/T), as shares of their sum: [items]. Some probability must be above 0."""
    known = np.asarray(probabilities, dtype=np.float64)
    raised = (known / known.max()) ** (1.0 / temperature)
    return np.asarray(raised / raised.sum())


def soft_targets(
    view: RankerView, asked: Sequence[Asked], within: Sequence[str], config: RankedConfig
) -> list[SoftTarget]:
    """Those of what is asked, in its order; none where no other item is likely."""
    lists = list[Ranking]()
    with Progress(len(asked), "the ranker", "list") as progress:
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            lists += view.lists(part, config.top, within, [one.later for one in part])
            progress.advance(len(part))
    found = (_target(one, ranking, config) for one, ranking in zip(asked, lists, strict=True))
    return [target for target in found if target]


def _target(asked: Asked, ranking: Ranking, config: RankedConfig) -> SoftTarget | None:
    likely = [(item, chance) for item, chance in ranking if chance > 0.0]
    if not likely:
        return None
    items, chances = zip(*likely, strict=True)
    shares = softened(chances, config.temperature)
    if asked.taken is not None:
        items, shares = (asked.taken, *items), np.array([config.truth, *(1.0 - config.truth) * shares])
    kept = np.flatnonzero(shares)  # a small temperature leaves nothing of what is unlikely
    return SoftTarget(asked, tuple(items[place] for place in kept), shares[kept])
