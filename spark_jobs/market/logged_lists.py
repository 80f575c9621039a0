"""What `off_policy` estimates from: lists that a logging policy drew, and the chances that a new one gives to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.errors import DataError
from spark_jobs.market.choices import Mask
from spark_jobs.market.draws import Floats

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Predictions:
    """Of a reward model, [L, n] each: what a place and all below it earn under the new policy, given those above it.

    `logged` (Q_k) is of the item that stands there; `expected` (V_k) is the mean of the same over the items that the
    new policy would put there. A list must not have taught the model that predicts it (`reward_model.cross_fitted`).
    """

    logged: Floats
    expected: Floats


@dataclass(frozen=True)
class LoggedLists:
    """L lists of up to n places that a logging policy drew; what stands in places that are not `shown` is not read.

    units: [L], who saw it: what the bootstrap draws
    shown: [L, n], False below the end of a shorter list
    log_chances: [L, n], of the place under the logging policy, given those above it
    list_log_chances: [L], of the whole list, as logged
    new_log_chances: [L, n], of the same places under the new policy; -inf for what it never shows
    rewards: [L, n]
    """

    units: Sequence[str]
    shown: Mask
    log_chances: Floats
    list_log_chances: Floats
    new_log_chances: Floats
    rewards: Floats
    predictions: Predictions | None = None

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_chances(self)

    @property
    def log_ratios(self) -> Floats:
        """log rho: [L, n], 0 where nothing stands."""
        shown = self.shown
        return np.where(shown, self.new_log_chances, 0.0) - np.where(shown, self.log_chances, 0.0)


def _check_shapes(logged: LoggedLists) -> None:
    shape = np.shape(logged.shown)
    if len(shape) != 2 or not logged.shown.any():
        raise DataError("There are no lists to learn from.", where=f"lists and places: {shape}", do="give at least one")
    tables: dict[str, Floats] = {
        "log_chances": logged.log_chances,
        "new_log_chances": logged.new_log_chances,
        "rewards": logged.rewards,
    }
    if logged.predictions is not None:
        tables |= {"predictions": logged.predictions.logged, "expected predictions": logged.predictions.expected}
    rows = {"units": len(logged.units), "list_log_chances": len(logged.list_log_chances)}
    unlike = [name for name, one in tables.items() if np.shape(one) != shape]
    unlike += [name for name, count in rows.items() if count != shape[0]]
    if unlike:
        why = f"there are {shape[0]} lists of {shape[1]} places"
        raise DataError(
            "Columns of the log differ in shape.", where=", ".join(unlike), why=why, do="give one row a list"
        )
    if (logged.shown[:, 1:] & ~logged.shown[:, :-1]).any():
        why = "a list is read from the top"
        raise DataError("A list has a place below an empty one.", why=why, do="move up what stands below the gap")
    for name, one in tables.items():
        if "log_chances" not in name and not np.isfinite(one[logged.shown]).all():
            raise DataError("A place that was shown has no number.", where=name, do="give one, or 0 for no reward")


def _check_chances(logged: LoggedLists) -> None:
    def refuse(faulty: Mask, what: str, why: str, do: str) -> None:
        if faulty.any():
            first = " place ".join(str(int(number) + 1) for number in np.argwhere(faulty)[0])
            raise DataError(what, where=f"list {first}, and {int(faulty.sum()) - 1} more", why=why, do=do)

    shown, own, new = logged.shown, logged.log_chances, logged.new_log_chances
    product = np.where(shown, own, 0.0).sum(axis=1)
    never = "what was shown had a chance above 0: without it no weight is right"
    refuse(shown & np.isneginf(own), "A place has chance 0 under the logging policy.", never, "log the chance it had")
    outside, give = "A chance is outside (0, 1].", "give the logarithm of a chance"
    refuse(shown & ~(own <= _TOLERANCE), outside, "of the logging policy: its logarithm is NaN or above 0", give)
    refuse(shown & ~(new <= _TOLERANCE), outside, "of the new policy: its logarithm is NaN or above 0", give)
    refuse(
        ~(np.abs(product - logged.list_log_chances) <= _TOLERANCE * np.maximum(1.0, np.abs(product))),
        "The chances of a list's places do not multiply to that of the list.",
        "a place is missing, or was logged with another list's chance",
        "give every place of a list, each given those above it",
    )
