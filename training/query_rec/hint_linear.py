"""The linear part of a hint's logit, fitted to its optimum: where the ranker's network begins, and a row beside it.

    z = w [numbers, what is unknown of them] + bias(place) + mean of the weights of the query's words and pieces + b

What is unknown is 0 and named so; features are sparse, in single precision. By the mean a query of a hundred words is
worth no more than the best of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack

from training.query_rec.calibration import Doubles, calibrated_loss
from training.query_rec.hashed_text import Ints
from training.query_rec.hint_examples import Examples
from training.query_rec.hint_questions import NAMES, Floats, Quantiles, Questions

PLACES = 16
"""Places further down share the bias of the last one."""
_STRENGTHS, _AT_ONCE = (0.001, 0.01, 0.1, 1.0), 65536


@dataclass(frozen=True, eq=False)
class Linear:
    """Weights of `numbers` and of what is unknown of them [2 NAMES], `places` [PLACES] and `words` [buckets]."""

    quantiles: Quantiles
    numbers: Floats
    places: Floats
    words: Floats
    bias: float

    @classmethod
    def fit(cls, train: Examples, valid: Examples, quantiles: Quantiles, hidden: NDArray[np.bool_] | None) -> Self:
        """Of the training days, by a regularisation (L2) chosen on the validation days.

        `hidden` [train, NAMES]: numbers that are not told, as of a query or a person that nobody knows.
        """
        from sklearn.linear_model import LogisticRegression

        asked, held = _features(train.questions, quantiles, hidden), _features(valid.questions, quantiles, None)
        models = [LogisticRegression(C=one, max_iter=300).fit(asked, train.clicked) for one in _STRENGTHS]
        best = min(models, key=lambda one: calibrated_loss(one.decision_function(held), valid.clicked))
        numbers, places, words = np.split(best.coef_[0].astype(np.float32), np.cumsum([2 * len(NAMES), PLACES]))
        return cls(quantiles, numbers, places, words, float(best.intercept_[0]))

    def __call__(self, questions: Questions) -> Doubles:
        """Logits [n]."""
        weights = np.concatenate([self.numbers, self.places, self.words]).astype(np.float64)
        return np.asarray(_features(questions, self.quantiles, None) @ weights + self.bias)


def places_of(questions: Questions) -> Ints:
    """Which bias the place of each pair has: [n]."""
    return np.asarray(np.clip(questions.place - 1, 0, PLACES - 1))


def _features(questions: Questions, quantiles: Quantiles, hidden: NDArray[np.bool_] | None) -> csr_matrix:
    """[n, 2 NAMES + PLACES + buckets]; dense only for a portion of the rows."""
    parts = []
    for start in range(0, max(len(questions), 1), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        told = quantiles(questions.numbers[rows])
        unknown = np.isnan(told) if hidden is None else np.isnan(told) | hidden[rows]
        places = np.eye(PLACES, dtype=np.float32)[places_of(questions)[rows]]
        dense = np.concatenate([np.where(unknown, np.float32(0.0), told), unknown.astype(np.float32), places], axis=1)
        parts.append(hstack([csr_matrix(dense), questions.texts.means[questions.query[rows]]]))
    return csr_matrix(vstack(parts))
