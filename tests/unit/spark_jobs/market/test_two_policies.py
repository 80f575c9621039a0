"""A click model that knows the log of one policy tells which way another policy moves the click rate.

The market's people answer to lists, so what is learnt of their clicks under one policy must say something of another.
The model knows what a shop does: the place, how often the item was clicked, and how near it is to the last clicks.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import lived, world

PEOPLE, READS, PRIOR = 1_200, 8_000_000, 20.0  # microseconds a place; views that an item's click rate starts with


@cache
def log(changed: str | None = None, to: float = 0.0) -> pd.DataFrame:
    """Places of lists in order of time, whether each was clicked, and the mean text of the last three clicks before."""
    market = world(hints__share=0.0, **({} if changed is None else {changed: to}))
    shown, events = lived(market, PEOPLE)
    clicks = events[events["event_type"] == "click"][["user_id", "item_id", "event_time"]]
    shown = shown.assign(read=shown["exposure_time"] + READS * shown["position"])
    read = ["user_id", "item_id", "read"]
    marked = shown.merge(clicks, "left", left_on=read, right_on=["user_id", "item_id", "event_time"])
    return shown.assign(clicked=marked["event_time"].notna().to_numpy(), near=nearness(market, shown, clicks))


def nearness(market: World, shown: pd.DataFrame, clicks: pd.DataFrame) -> np.ndarray:
    """Of each item shown to the user's last three clicks before the list; 0 without any."""
    found, vectors = np.zeros(len(shown)), market.shop.vectors
    by_user = clicks.sort_values("event_time").groupby("user_id")
    times = {user: (own["event_time"].to_numpy(), own["item_id"].to_numpy()) for user, own in by_user}
    rows = shown.reset_index(drop=True).groupby(["user_id", "exposure_time"]).indices
    for (user, time), places in rows.items():
        when, items = times.get(user, (np.empty(0), np.empty(0, dtype=int)))
        last = items[: np.searchsorted(when, time)][-3:]
        if len(last):
            found[places] = vectors[shown["item_id"].to_numpy()[places]] @ vectors[last].mean(axis=0)
    return found


class ClickModel:
    """Logistic regression; an item's click rate is that of users with even numbers, it is learnt of the odd ones."""

    def __init__(self, known: pd.DataFrame) -> None:
        even = known[known["user_id"] % 2 == 0]
        clicks, views = (np.bincount(part["item_id"], minlength=120) for part in (even[even["clicked"]], even))
        self.rates = (clicks + PRIOR * known["clicked"].mean()) / (views + PRIOR)
        odd = known[known["user_id"] % 2 == 1]
        self.scale = StandardScaler().fit(self._features(odd))
        self.model = LogisticRegression().fit(self.scale.transform(self._features(odd)), odd["clicked"])

    def _features(self, lists: pd.DataFrame) -> np.ndarray:
        rate = np.log(self.rates[lists["item_id"]])
        return np.column_stack([lists["position"], rate, lists["near"]])

    def rate(self, lists: pd.DataFrame) -> float:
        """Expected clicks a place."""
        return float(self.model.predict_proba(self.scale.transform(self._features(lists)))[:, 1].mean())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logging__popular", 0.0),
        ("logging__temperature", 0.3),
        ("logging__temperature", 4.0),
        ("logging__similar", 0.0),
        ("logging__similar", 8.0),
    ],
)
def test_the_sign_of_a_change_of_policy_is_foretold(name: str, value: float) -> None:
    first, second = log(), log(name, value)
    happened = second["clicked"].mean() - first["clicked"].mean()
    chance = np.sqrt(2.0 * first["clicked"].var() / len(first))
    assert abs(happened) > 3.0 * chance  # else there would be no sign to foretell
    model = ClickModel(first)
    assert np.sign(model.rate(second) - model.rate(first)) == np.sign(happened)


def test_clicks_at_random_foretell_nothing() -> None:
    first, second = log(), log("logging__temperature", 0.3)
    drawn = np.random.default_rng(5).permutation(first["clicked"])
    model = ClickModel(first.assign(clicked=drawn))
    happened = second["clicked"].mean() - first["clicked"].mean()
    assert abs(model.rate(second) - model.rate(first)) < 0.25 * abs(happened)
