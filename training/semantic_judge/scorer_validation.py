"""A language scorer on labelled examples: every figure is of the path on which it scores.

Levels are read as they are served; what the model writes where nothing constrains it says whether it knows the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.semantic_judge.answers import Answer
from training.semantic_judge.aspects import UNKNOWN, expected
from training.semantic_judge.examples import Floats
from training.semantic_judge.hostile import moved
from training.semantic_judge.labelled import Labelled
from training.semantic_judge.marks import Doubles, Marks, likeliest, spread
from training.semantic_judge.measures import level_auc
from training.semantic_judge.reasons import contradictions
from training.semantic_judge.scorer import LanguageScorer


@dataclass(frozen=True)
class ScorerValidation:
    """The labels of the examples, for a scorer whose model may go on learning."""

    scorer: LanguageScorer
    labelled: Labelled

    def asked(self) -> list[tuple[str, object]]:
        """Of each user state the user, and what is asked: the examples of a gate."""
        ids = [self.labelled.cases.catalogue.items[item].item_id for item in self.labelled.cases.item.tolist()]
        states, days = self.labelled.cases.states, self.labelled.cases.states.days
        rows: dict[int, list[object]] = {int(state): [] for state in np.unique(self.labelled.cases.state)}
        for state, item, levels in zip(
            self.labelled.cases.state.tolist(), ids, self.labelled.levels.tolist(), strict=True
        ):
            rows[state].append((item, levels))
        return [(states.users[state], (int(days[state]), own)) for state, own in rows.items()]

    def gains(self) -> Doubles:
        """PointAcc and the share of pairs in order of each user state: [S, 2]."""
        return self._marks().gains()

    def loss(self) -> float:
        """What the best weights have the least of: minus the mean of PointAcc and the share of pairs in order."""
        found = self._marks().metrics(self.scorer.aspects)
        return -float(np.nanmean([found["point_acc"], found["pairs_in_order"]]))

    def format_rate(self) -> float:
        """The share of free greedy answers that are answers."""
        return _share(self.scorer.free(self.labelled.cases))

    def metrics(self, seed: int) -> dict[str, float]:
        """All figures: accuracy, spread, form, how far titles move it, and contradictions of what is shown and of what
        is written freely."""
        chances, free = self.scorer.chances(self.labelled.cases), self.scorer.free(self.labelled.cases)
        levels = likeliest(chances)
        shown = contradictions(self.scorer.reasons(self.labelled.cases, levels), levels, self.scorer.aspects)
        read = [answer for answer in free if answer]
        own = np.array([answer.levels for answer in read], dtype=np.int8).reshape(len(read), len(self.scorer.aspects))
        written = contradictions([answer.reason for answer in read], own, self.scorer.aspects)
        values = expected(chances, self.scorer.aspects)
        marks = Marks.of(chances, self.labelled.levels, self.labelled.cases.state, self.scorer.aspects)
        return {
            **marks.metrics(self.scorer.aspects),
            **{f"pair_auc.{aspect.name}": self._auc(values, k) for k, aspect in enumerate(self.scorer.aspects)},
            **spread(chances, self.scorer.aspects),
            **moved(self.scorer, self.labelled.cases, seed),
            "format_rate": _share(free),
            **shown,
            **{f"free.{name}": value for name, value in written.items()},
        }

    def _auc(self, values: Floats, k: int) -> float:
        """PairAUC of one aspect, over the pairs of all users."""
        known = self.labelled.levels[:, k] != UNKNOWN
        return level_auc(values[known, k], self.labelled.levels[known, k])

    def _marks(self) -> Marks:
        return Marks.of(
            self.scorer.chances(self.labelled.cases),
            self.labelled.levels,
            self.labelled.cases.state,
            self.scorer.aspects,
        )


def _share(answers: Sequence[Answer | None]) -> float:
    return sum(answer is not None for answer in answers) / max(len(answers), 1)
