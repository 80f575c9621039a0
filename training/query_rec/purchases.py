"""How often people buy behind a query: the guard beside clicks, which alone are known to mislead.

A hint that everybody is curious about is clicked, and leads to nothing. The share of a query is of its searches, typed
and by a hint, those that a purchase followed (`bought` of `query_stats`: of who searched for nothing else since), drawn
to that of all searches by `PRIOR` searches of it. All INFERRED: of the paper is only that clicks are not the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.query_text import normalised
from training.query_rec.hint_questions import OF_QUERY

PRIOR = 20.0
"""A query begins with so many searches of the mean share."""
_TYPED, _CLICKED, _BOUGHT = (OF_QUERY.index(f"query_daily__{name}_365d") for name in ("typed", "clicked", "bought"))


@dataclass(frozen=True)
class Purchases:
    """`shares`, 0 to 1, of the queries that somebody has searched for, by their one form; `mean`: of all searches."""

    shares: Mapping[str, float]
    mean: float

    @classmethod
    def of(cls, known: Mapping[str, NDArray[np.float32]]) -> Self:
        """Of what the feature store says of queries [OF_QUERY], by their one form: that of a ranker's training days.

        Of several purchases behind one search one counts; what nobody has searched for has no share.
        """
        counts = {query: (float(row[_TYPED] + row[_CLICKED]), float(row[_BOUGHT])) for query, row in known.items()}
        searched = {query: (asked, min(bought, asked)) for query, (asked, bought) in counts.items() if asked > 0}
        whole = sum(asked for asked, _ in searched.values())
        mean = sum(bought for _, bought in searched.values()) / whole if whole else 0.0
        return cls(
            {query: (bought + PRIOR * mean) / (asked + PRIOR) for query, (asked, bought) in searched.items()}, mean
        )

    def share(self, query: str) -> float | None:
        """That of a query, however it is written; None where nobody has searched for it."""
        return self.shares.get(normalised(query))

    def expected(self, query: str) -> float:
        """The same, and the mean of what is not known: as a reward it says neither good nor bad."""
        return self.mean if (found := self.share(query)) is None else found
