"""The ranker's lists as soft targets of SFT, beside the item that was taken.

    q(i | h) = p(i | h)^(1/T) / sum_j p(j | h)^(1/T)      over the ranker's first N items after h, without the answer
    L        = sum over (h, y) of -log pi(y | h)  +  w sum over ranked h of sum_i q(i | h) (-log pi(i | h))

p are the ranker's calibrated probabilities, T the temperature: towards 0 its first item is all, above 1 the list is
flatter. (h, y) are the positions of the users' sequences, which the task `sequential` learns; the ranked h are
`prefixes` of these positions, drawn once with the seed, so that what is asked of the ranker is bounded. Each epoch
draws one item from q(. | h) for each of them anew (the task `ranked`, w its weight in the mixture): an unbiased
estimate of the second sum and of its gradient, at the price of one sample a prefix.

The answer is in no list: it has its own term, and the ranker has seen it (`ranker_view`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.core.progress import Progress
from training.generative_rec.ranker_view import RankerView
from training.next_item.recommender import Ranking

Shares = NDArray[np.float64]
_AT_ONCE = 512


@dataclass(frozen=True)
class RankedConfig:
    """`prefixes`: so many positions at most have a list, of `top` items; `temperature` as T above. INFERRED."""

    prefixes: int = 20_000
    top: int = 20
    temperature: float = 1.0


@dataclass(frozen=True)
class SoftTarget:
    """What may come after the first `cut` items of a user's sequence, and how likely: `shares` [items], of sum 1."""

    user: str
    cut: int
    items: tuple[str, ...]
    shares: Shares


def softened(probabilities: Sequence[float], temperature: float) -> Shares:
    """p^(1/T), as shares of their sum: [items]. Some probability must be above 0."""
    known = np.asarray(probabilities, dtype=np.float64)
    raised = (known / known.max()) ** (1.0 / temperature)
    return np.asarray(raised / raised.sum())


def soft_targets(
    view: RankerView, sequences: Mapping[str, Sequence[str]], within: Sequence[str], config: RankedConfig, seed: int
) -> list[SoftTarget]:
    """Those of the drawn positions, by user and position; none where the ranker gives every item the probability 0."""
    positions = [(user, cut) for user, sequence in sequences.items() for cut in range(len(sequence))]
    drawn = np.sort(np.random.default_rng(seed).permutation(len(positions))[: config.prefixes])
    asked = [positions[place] for place in drawn.tolist()]
    lists = list[Ranking]()
    with Progress(len(asked), "ranker's lists", "prefix") as progress:
        for start in range(0, len(asked), _AT_ONCE):
            part = [sequences[user][:cut] for user, cut in asked[start : start + _AT_ONCE]]
            lists += view.lists(part, config.top + 1, within)
            progress.advance(len(part))
    found = list[SoftTarget]()
    for (user, cut), ranking in zip(asked, lists, strict=True):
        answer = sequences[user][cut]
        likely = [(item, chance) for item, chance in ranking if item != answer and chance > 0.0][: config.top]
        if likely:
            items, chances = zip(*likely, strict=True)
            found.append(SoftTarget(user, cut, items, softened(chances, config.temperature)))
    return found
