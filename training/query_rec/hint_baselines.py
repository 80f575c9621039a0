"""What the hint ranker is held against, on the same hints and of the same numbers, each calibrated as it is.

`place`: the share of clicks of each place, whatever stands there. `counting`: the query's own share of clicks as of the
moment, smoothed. `logistic`: a logistic regression on the numbers, the place and the words of the query, which is the
ranker's linear part (`hint_linear`) with nothing hidden. `lightgbm`: boosted trees on the numbers and the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.query_rec.calibration import Doubles, Platt, calibrated_loss
from training.query_rec.hint_examples import Examples
from training.query_rec.hint_linear import PLACES, Linear, places_of
from training.query_rec.hint_questions import Quantiles, Questions

Logits = Callable[[Questions], Doubles]
_SMOOTHING = (1.0, 10.0, 30.0, 100.0, 300.0)
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
        "logistic": _logistic(train, valid),
        "lightgbm": _boosted(train, valid, boosting, seed),
    }


def calibrated(logits: Logits, valid: Examples) -> Logits:
    """The chances of a row, by the calibration that the ranker has too."""
    platt = Platt.of(logits(valid.questions), valid.clicked)
    return lambda questions: platt(logits(questions))


def _place(train: Examples) -> Logits:
    places = places_of(train.questions)
    shown = np.bincount(places, minlength=PLACES) + 2.0
    shares = (np.bincount(places, train.clicked, minlength=PLACES) + 2.0 * train.clicked.mean()) / shown
    return lambda questions: _logit(shares[places_of(questions)])


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

    return min(map(row, _SMOOTHING), key=lambda one: calibrated_loss(one(valid.questions), valid.clicked))


def _logistic(train: Examples, valid: Examples) -> Logits:
    return Linear.fit(train, valid, Quantiles.of(train.questions.numbers), None)


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


def _logit(shares: Doubles) -> Doubles:
    sure = np.clip(shares, 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(sure / (1.0 - sure)))
