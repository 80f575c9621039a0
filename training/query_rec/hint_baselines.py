"""What the hint ranker is held against, on the same hints and of the same numbers, each calibrated as it is.

`place`: the share of clicks of each place, whatever stands there. `counting`: the query's own share of clicks as of the
moment, smoothed. `logistic`: a logistic regression on the numbers, the place and the words of the query. `lightgbm`:
boosted trees on the numbers and the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack

from training.query_rec.hint_examples import Examples
from training.query_rec.hint_network import PLACES
from training.query_rec.hint_questions import Quantiles, Questions
from training.query_rec.hint_ranker import Doubles, Platt, log_loss

Logits = Callable[[Questions], Doubles]
_STRENGTHS, _SMOOTHING = (0.001, 0.01, 0.1, 1.0), (1.0, 10.0, 30.0, 100.0, 300.0)
_CLICKED, _SHOWN = (f"query_daily__{name}_365d" for name in ("clicked", "shown"))


@dataclass(frozen=True)
class Boosting:
    """LightGBM's names; it stops after `patience` rounds without a lower log loss on the validation days."""

    rounds: int = 500
    patience: int = 30
    learning_rate: float = 0.05
    num_leaves: int = 31
    min_data_in_leaf: int = 50


def baselines(train: Examples, valid: Examples, boosting: Boosting, seed: int) -> Mapping[str, Logits]:
    """All rows by their names, each fitted on the training days, with what it chooses chosen on the validation days."""
    return {
        "place": _place(train),
        "counting": _counting(train, valid),
        "logistic": _logistic(train, valid, seed),
        "lightgbm": _boosted(train, valid, boosting, seed),
    }


def calibrated(logits: Logits, valid: Examples) -> Logits:
    """The chances of a row, by the calibration that the ranker has too."""
    platt = Platt.of(logits(valid.questions), valid.clicked)
    return lambda questions: platt(logits(questions))


def _places(questions: Questions) -> np.ndarray:
    return np.asarray(np.clip(questions.place - 1, 0, PLACES - 1))


def _place(train: Examples) -> Logits:
    places = _places(train.questions)
    shown = np.bincount(places, minlength=PLACES) + 2.0
    shares = (np.bincount(places, train.clicked, minlength=PLACES) + 2.0 * train.clicked.mean()) / shown
    return lambda questions: _logit(shares[_places(questions)])


def _counting(train: Examples, valid: Examples) -> Logits:
    by_place, mean = _place(train), float(train.clicked.mean())

    def row(weight: float) -> Logits:
        def logits(questions: Questions) -> Doubles:
            clicked, shown = (
                np.nan_to_num(questions.numbers_of(name)).astype(np.float64) for name in (_CLICKED, _SHOWN)
            )
            own = (clicked + weight * mean) / (np.maximum(shown, clicked) + weight)
            return np.asarray(_logit(own) - math.log(mean / (1.0 - mean)) + by_place(questions))

        return logits

    return min((row(weight) for weight in _SMOOTHING), key=lambda one: _loss(one, valid))


def _logistic(train: Examples, valid: Examples, seed: int) -> Logits:
    from sklearn.linear_model import LogisticRegression

    quantiles = Quantiles.of(train.questions.numbers)

    def wide(questions: Questions) -> csr_matrix:
        own = quantiles(questions.numbers)
        unknown = np.isnan(own)
        told = np.where(unknown, 0.0, own)
        places = np.eye(PLACES)[_places(questions)]
        words = questions.texts.words[questions.query]
        return csr_matrix(hstack([csr_matrix(np.concatenate([told, unknown, places], axis=1)), words]))

    def fitted(strength: float) -> Logits:
        model = LogisticRegression(C=strength, max_iter=300, random_state=seed).fit(
            wide(train.questions), train.clicked
        )
        return lambda questions: np.asarray(model.decision_function(wide(questions)))

    return min(map(fitted, _STRENGTHS), key=lambda one: _loss(one, valid))


def _boosted(train: Examples, valid: Examples, config: Boosting, seed: int) -> Logits:
    import lightgbm as lgb

    def wide(questions: Questions) -> Doubles:
        return np.concatenate([questions.numbers.astype(np.float64), questions.place[:, None]], axis=1)

    settings: dict[str, Any] = {
        **{"objective": "binary", "learning_rate": config.learning_rate, "num_leaves": config.num_leaves},
        **{"min_data_in_leaf": config.min_data_in_leaf, "seed": seed, "deterministic": True, "force_row_wise": True},
        "verbose": -1,
    }
    data, held = (lgb.Dataset(wide(part.questions), part.clicked) for part in (train, valid))
    halt = [lgb.early_stopping(config.patience, verbose=False)]
    trees = lgb.train(settings, data, config.rounds, valid_sets=[held], callbacks=halt)
    return lambda questions: np.asarray(trees.predict(wide(questions), raw_score=True), dtype=np.float64)


def _loss(logits: Logits, valid: Examples) -> float:
    return log_loss(calibrated(logits, valid)(valid.questions), valid.clicked)


def _logit(shares: Doubles) -> Doubles:
    sure = np.clip(shares, 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(sure / (1.0 - sure)))
