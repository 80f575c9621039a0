"""Weights without a language model: what Part B must be held against besides uniform ones.

w(u) = softmax(B f(u)), P(i preferred to j) = sigmoid(t w(u).(s_i - s_j)): a logistic regression on differences of
aspect scores whose coefficients, features of the user by aspects, stay on the simplex. With the constant feature alone
it is one vector of weights for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from scipy.special import expit, softmax
from sklearn.feature_extraction.text import TfidfVectorizer

from training.semantic_judge.contests import Contests
from training.semantic_judge.evidence import DISLIKED, LIKED
from training.semantic_judge.examples import Catalogue, Floats, Ints, States

Vector = NDArray[np.float64]
_WORDS = 300
_RARE = 3
_SHARPEST = 6.0
"""The largest logarithm of t: pairs that some weights order without a fault would drive it to infinity."""


@dataclass(frozen=True, eq=False)
class UserFeatures:
    """Features of user states: 1, standardised numbers of the history, the words of profile and context by TF-IDF."""

    mean: Floats
    deviation: Floats
    words: TfidfVectorizer | None

    @classmethod
    def fit(cls, states: States, catalogue: Catalogue) -> Self:
        """On these states. Of words the commonest ones; none where too few users have a text."""
        numbers = _numbers(states, catalogue)
        words = TfidfVectorizer(max_features=_WORDS, min_df=_RARE)
        try:
            words.fit([_text(states, row) for row in range(len(states))])
        except ValueError:  # no word is left
            return cls(numbers.mean(axis=0), numbers.std(axis=0) + 1e-6, None)
        return cls(numbers.mean(axis=0), numbers.std(axis=0) + 1e-6, words)

    def of(self, states: States, catalogue: Catalogue) -> csr_matrix:
        """[states, features]."""
        numbers = (_numbers(states, catalogue) - self.mean) / self.deviation
        parts = [csr_matrix(np.column_stack([np.ones(len(states)), numbers]))]
        if self.words is not None:
            parts.append(self.words.transform([_text(states, row) for row in range(len(states))]))
        return hstack(parts, format="csr")


@dataclass(frozen=True, eq=False)
class PairRegression:
    """An aggregator of `coefficients` [features, K]; without `features` one for everybody."""

    features: UserFeatures | None
    coefficients: Vector

    @classmethod
    def fit(cls, contests: Contests, states: States, catalogue: Catalogue, *, personal: bool) -> Self:
        """By maximum likelihood with a standard normal prior on the coefficients, from uniform weights."""
        asked, place = np.unique(contests.state, return_inverse=True)
        own = states.chosen(asked)
        features = UserFeatures.fit(own, catalogue) if personal else None
        design = _matrix(features, own, catalogue)[place]
        shape = (design.shape[1], contests.difference.shape[1])
        bounds = [(-_SHARPEST, _SHARPEST), *[(None, None)] * (shape[0] * shape[1])]
        known = (design, contests.difference.astype(np.float64))
        found = minimize(loss, np.zeros(len(bounds)), known, jac=True, method="L-BFGS-B", bounds=bounds)
        return cls(features, found.x[1:].reshape(shape))

    def weights(self, states: States, catalogue: Catalogue) -> Floats:
        """See `judge.Aggregator.weights`."""
        logits = _matrix(self.features, states, catalogue) @ self.coefficients
        return np.asarray(softmax(logits, axis=1), dtype=np.float32)

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights of everybody, where there are no features: [K]."""
        return tuple(softmax(self.coefficients[0]).tolist())


def loss(values: Vector, design: csr_matrix, difference: Vector) -> tuple[float, Vector]:
    """The negative log posterior and its gradient at `values`: the logarithm of t, then B row by row.

    `design` [n, features] are the features of each pair's user, `difference` [n, K] is s_i - s_j.
    """
    sharpness, coefficients = np.exp(values[0]), values[1:].reshape(design.shape[1], -1)
    weights = softmax(design @ coefficients, axis=1)
    margin = sharpness * (weights * difference).sum(axis=1)
    total = np.logaddexp(0.0, -margin).sum() + 0.5 * np.square(coefficients).sum()
    pull = -expit(-margin)
    to_weights = pull[:, None] * sharpness * difference
    to_logits = weights * (to_weights - (weights * to_weights).sum(axis=1, keepdims=True))
    return float(total), np.concatenate([[pull @ margin], (design.T @ to_logits + coefficients).ravel()])


def _matrix(features: UserFeatures | None, states: States, catalogue: Catalogue) -> csr_matrix:
    return csr_matrix(np.ones((len(states), 1))) if features is None else features.of(states, catalogue)


def _text(states: States, row: int) -> str:
    return f"{states.profiles[row] or ''} {states.contexts[row] or ''}"


def _numbers(states: States, catalogue: Catalogue) -> Floats:
    """Length of the history, mean rating, shares of what was liked and disliked, how many brands and categories it is
    spread over, the mean and the spread of its log prices: [states, 8]; 0 where there is nothing to take them of."""
    lengths = np.diff(states.starts)
    owner, items, ratings = np.repeat(np.arange(len(states)), lengths), states.history, states.ratings
    prices, stars = catalogue.log_prices[items].astype(np.float64), ratings.astype(np.float64)
    rated, priced, groups = ~np.isnan(stars), ~np.isnan(prices), (catalogue.brands, catalogue.categories)

    def mean(values: NDArray[np.bool_] | Vector, known: NDArray[np.bool_]) -> Vector:
        """Of the known ones of each state."""
        total = np.bincount(owner[known], weights=values[known], minlength=len(states))
        return total / np.maximum(np.bincount(owner[known], minlength=len(states)), 1)

    usual = mean(prices, priced)
    columns = [
        np.log1p(lengths),
        mean(stars, rated),
        mean(stars >= LIKED, rated),
        mean(stars <= DISLIKED, rated),
        *(_kinds(owner, own[items], len(states)) / np.maximum(lengths, 1) for own in groups),
        usual,
        np.sqrt(mean((prices - usual[owner]) ** 2, priced)),
    ]
    return np.column_stack(columns).astype(np.float32)


def _kinds(owner: Ints, numbers: Ints, states: int) -> Ints:
    """How many different numbers, from -1 on, each owner has: [states]."""
    width = int(numbers.max(initial=0)) + 2
    return np.bincount(np.unique(owner * width + numbers + 1) // width, minlength=states)
