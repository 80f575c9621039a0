"""A model of hints on held-out examples: does its own list, written greedily, say what was searched for?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.core.choice import Choice
from training.core.metrics import Floats
from training.query_rec.examples import Example
from training.query_rec.hint_model import HintModel
from training.query_rec.rewards import repeated, rouge_l

METRICS = ("rouge", "recall")
"""The gains of an example: the mean, over what was searched for, of the best ROUGE-L of a query of the list, and the
share that the list has in the same words."""


@dataclass(frozen=True)
class HintValidation:
    """The `examples`, for a model that may go on learning."""

    model: HintModel
    examples: Sequence[Example]

    def asked(self) -> list[tuple[str, object]]:
        """Of each example the person, and what is asked: the examples of a gate."""
        return [(one.person.user_id, (one.request_id, str(one.day), one.observed)) for one in self.examples]

    def gains(self) -> Floats:
        """[examples, METRICS]"""
        return np.array(
            [_gains(queries, one.observed) for queries, one in zip(self._lists(), self.examples, strict=True)]
        )

    def loss(self) -> float:
        """What the best weights have the least of: minus the mean ROUGE-L."""
        return -float(self.gains()[:, 0].mean())

    def metrics(self) -> dict[str, float]:
        """Means of the gains, the share of answers that are answers, how many queries they have, how many of those
        repeat one before them, and how many different queries all lists have together."""
        lists = self._lists()
        pairs = zip(lists, self.examples, strict=True)
        found = np.array([_gains(queries, one.observed) for queries, one in pairs]).mean(axis=0)
        read = [queries for queries in lists if queries]
        return {
            **dict(zip(METRICS, found.tolist(), strict=True)),
            "format_rate": len(read) / len(lists),
            "queries": float(np.mean([len(queries) for queries in lists])),
            "repeated": float(np.mean([repeated(queries) for queries in read])) if read else 0.0,
            "different_queries": float(len({query.lower() for queries in read for query in queries})),
        }

    def _lists(self) -> list[list[str]]:
        answers = self.model.write([one.told for one in self.examples], Choice(0.0))
        return [self.model.queries(answer) for (answer,) in answers]


def _gains(queries: Sequence[str], observed: Sequence[str]) -> tuple[float, float]:
    nearest = [max((rouge_l(query, wanted) for query in queries), default=0.0) for wanted in observed]
    own = {query.lower() for query in queries}
    return float(np.mean(nearest)), float(np.mean([wanted.lower() in own for wanted in observed]))
