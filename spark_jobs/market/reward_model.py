"""A model of what a place of a list and all below it earn under a new policy, for `off_policy`'s dr and dm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from infra.errors import DataError
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.logged_lists import LoggedLists, Predictions

# (place from 0, lists [R]) -> features [R, M, F] of whatever could stand there, given what is logged above, and the new
# policy's chance of each [R, M].
Candidates = Callable[[int, Ints], tuple[Floats, Floats]]

_LISTS_AT_ONCE = 1000


def cross_fitted(logged: LoggedLists, features: Floats, candidates: Candidates, *, folds: int = 3) -> Predictions:
    """Predictions of each list by a model that was fitted to other units.

    Gradient boosting for each place, from the last to the first: the target of place k is its reward and what the model
    of place k + 1 expects under the new policy (fitted Q, as Kiyohara et al. 2022 do).

    features: [L, n, F], of what stands in each place, given what stands above it
    """
    units = np.asarray(logged.units, dtype=str)
    if len(np.unique(units)) < folds:
        why = f"{folds} folds hold different units, and there are {len(np.unique(units))}"
        raise DataError("There are too few units to cross-fit a reward model.", why=why, do="give more, or fewer folds")
    with threadpool_limits(1, user_api="openmp"):  # small models: threads that wait for each other cost more than work
        return _by_folds(logged, features, candidates, units, folds)


def _by_folds(
    logged: LoggedLists, features: Floats, candidates: Candidates, units: NDArray[np.str_], folds: int
) -> Predictions:
    found = Predictions(np.zeros(logged.shown.shape), np.zeros(logged.shown.shape))
    for learnt, held in GroupKFold(folds).split(units, groups=units):
        below = np.zeros(len(units))
        for place in reversed(range(logged.shown.shape[1])):
            shown = logged.shown[:, place]
            rows, asked = learnt[shown[learnt]], held[shown[held]]
            if not len(rows):
                continue
            model = _fitted(features[rows, place], logged.rewards[rows, place] + below[rows])
            # Lists that the model learnt from are asked too: they are the targets of the place above.
            below = _expected(model, candidates, place, np.flatnonzero(shown) if place else asked, len(units))
            found.expected[asked, place] = below[asked]
            if len(asked):
                found.logged[asked, place] = model.predict(features[asked, place])
    return found


def _fitted(features: Floats, targets: Floats) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=8, early_stopping=False, random_state=0)
    return model.fit(features, targets)


def _expected(
    model: HistGradientBoostingRegressor, candidates: Candidates, place: int, lists: Ints, count: int
) -> Floats:
    """[count]: the mean prediction over the new policy's items at `place` of `lists`, 0 for the others."""
    found = np.zeros(count)
    for start in range(0, len(lists), _LISTS_AT_ONCE):
        some = lists[start : start + _LISTS_AT_ONCE]
        features, chances = candidates(place, some)
        possible, predicted = chances > 0.0, np.zeros(chances.shape)
        if possible.any():
            predicted[possible] = model.predict(features[possible])
        found[some] = (chances * predicted).sum(axis=1)
    return found
