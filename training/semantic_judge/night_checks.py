"""Whether a night's scores may be published: what is asked of a judge before anybody reads what it says.

On the frozen gold set: does it still agree with what users preferred, does it beat one that always says the same and
one that flips a coin, does it say the same again of the same cases, among others and in another order. On the night:
does it go by the length of titles, does it say anything at all, and did it get to nearly every row. One that fails
withholds the scores of the night, and says why in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.semantic_judge.examples import Ints
from training.semantic_judge.gold import Bands, GoldSet, Score, in_batches, length_slope, most_frequent
from training.semantic_judge.measures import Bootstrap, accuracy

AGREEMENT, CONSTANT, COIN = "agreement", "beats_constant", "beats_coin_flip"
REPEATS, SWAPPED = "repeats", "swapped_order"
SLOPE, SPREAD, FREQUENT, COVERAGE = "length_slope", "spread", "most_frequent", "coverage"
_TWINS = 1000
_FLIPPED = 0.01
_TWO_SIDED = 1.96


@dataclass(frozen=True)
class Check:
    """A `value` that must lie between `lower` and `upper` (None: no end there); `exceeds`: and not on the lower end.

    `why`: what it means that it does not.
    """

    name: str
    value: float
    lower: float | None
    upper: float | None
    why: str
    exceeds: bool = False
    gold: bool = True

    @property
    def passed(self) -> bool:
        """Whether it does; what is no number does not."""
        low = self.lower is None or (self.value > self.lower if self.exceeds else self.value >= self.lower)
        return bool(np.isfinite(self.value)) and low and (self.upper is None or self.value <= self.upper)

    @property
    def sentence(self) -> str:
        """Why the night's scores are withheld, where it has not passed."""
        bounds = ("above" if self.exceeds else "at least", self.lower), ("at most", self.upper)
        ends = [f"{word} {end:.4g}" for word, end in bounds if end is not None]
        return f"{self.why}: {self.name} is {self.value:.4g}, where {' and '.join(ends)} is asked for"


def on_gold(gold: GoldSet, bands: Bands, score: Score, again: Score, seed: int) -> list[Check]:
    """`score` judges the gold set as a night's rows are judged.

    `again` is the same judge, loaded a second time (one that remembers its answers would repeat them whatever it is);
    it is asked in other batches, and with the members of each pair in the other order.
    """
    said = score(gold.cases)
    right = gold.right(said)
    owners = [gold.users[case] for case in gold.preferred.tolist()]
    found = accuracy(right, owners, Bootstrap(seed, _TWINS))
    other = in_batches(again, gold.cases, np.random.default_rng(seed).permutation(len(gold.cases)))
    members = (gold.preferred, gold.other)
    orders = [np.stack(two, axis=1).reshape(-1) for two in (members, members[::-1])]
    one, turned = (gold.right(in_batches(again, gold.cases, order)) for order in orders)
    flipped = (one != turned).mean()
    return [
        Check(
            AGREEMENT, found.value, bands.agreement, None,
            "the judge agrees less with what users preferred than when it was packaged",
        ),
        Check(CONSTANT, found.lo, 0.5, None, "the judge is not surely better than one that always says the same", True),
        Check(
            COIN, found.value, _best_of_coins(len(right), seed), None,
            "a judge that flips a coin agrees as much with what users preferred", True,
        ),
        Check(
            REPEATS, float(np.abs(other - said).max()), None, bands.repeat,
            "the judge says something else of the same cases when they are asked again among others",
        ),
        Check(SWAPPED, float(flipped), None, _FLIPPED, "verdicts on pairs turn with the order in which they are asked"),
    ]  # fmt: skip


def on_night(score: NDArray[np.floating], lengths: Ints, submitted: int, bands: Bands, coverage: float) -> list[Check]:
    """Of the scores [scored] of a night's rows, the `lengths` [scored] of their items' titles and how many rows were
    submitted; `coverage`: the least share of these that must have been scored.

    A slope of standardised values is a correlation, and of few rows it is far from 0 by chance alone: by so much as 95
    of 100 such nights would show without any (Fisher's 1 / sqrt(n - 3)) it may lie beyond the band."""
    chance = _TWO_SIDED / np.sqrt(max(len(score) - 3, 1))
    return [
        Check(
            SLOPE, length_slope(score, lengths),
            max(-1.0, float(bands.slope_low - chance)), min(1.0, float(bands.slope_high + chance)),
            "scores go by the length of titles more than on the gold set", gold=False,
        ),
        Check(
            SPREAD, float(score.std()) if len(score) else 0.0, bands.spread, None,
            "the judge says nearly the same of all rows", True, gold=False,
        ),
        Check(
            FREQUENT, most_frequent(score), None, bands.most_frequent,
            "too many rows have one and the same score", gold=False,
        ),
        Check(
            COVERAGE, len(score) / submitted if submitted else 0.0, coverage, None,
            "too few of the submitted rows were scored", gold=False,
        ),
    ]  # fmt: skip


def reasons(checks: Sequence[Check]) -> str:
    """Why the scores are withheld; empty where all have passed."""
    return "; ".join(check.sentence for check in checks if not check.passed)


def _best_of_coins(pairs: int, seed: int) -> float:
    """The agreement that one in forty judges that flip a coin for each pair exceeds."""
    heads = np.random.default_rng([seed, 1]).binomial(pairs, 0.5, _TWINS)
    return float(np.quantile(heads / pairs, 0.975))
