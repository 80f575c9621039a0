"""Drift and late or double deliveries: nothing where they are 0, and what they say where they are not."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from spark_jobs.market.deliveries import delivered
from spark_jobs.market.draws import Draws
from spark_jobs.market.log import logged
from spark_jobs.market.parameters import LandingParameters, Parameters
from spark_jobs.market.policies import Oracle, Request
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import DAY, DAYS, lived, world

FIRST = date(2026, 1, 1)


@pytest.fixture(scope="module")
def events() -> pa.Table:
    return pa.Table.from_batches(logged(world(), np.arange(200)).batches["events"])


def landed(rows: pa.Table, name: str = "events", **own: float) -> dict[date, pd.DataFrame]:
    values = {"late": 0.0, "days": 2.0, "twice": 0.0, **own}
    return {day: part.to_pandas() for day, part in delivered(name, rows, LandingParameters(**values), Draws(7))}


def by_day(rows: pd.DataFrame) -> pd.Series:
    return pd.Series([FIRST + timedelta(days=int(n)) for n in rows["event_time"] // DAY - 20_454])


def test_the_shipped_market_drifts_nowhere_and_delivers_in_time_and_once(events: pa.Table) -> None:
    own = Parameters.read()
    assert (own.catalogue.drift, own.landing.late, own.landing.twice) == (0.0, 0.0, 0.0)
    found = landed(events)
    assert sum(map(len, found.values())) == len(events)
    assert all((by_day(rows) == day).all() for day, rows in found.items())


def test_late_rows_land_on_a_later_day_and_none_is_lost(events: pa.Table) -> None:
    found = landed(events, late=0.2)
    waits = pd.concat(
        [(pd.Series(day, range(len(rows))) - by_day(rows)).map(lambda w: w.days) for day, rows in found.items()]
    )
    assert len(waits) == len(events) and (waits >= 0).all()
    assert (waits > 0).mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / len(waits)))
    assert 2.0 < waits[waits > 0].mean() < 3.0
    everything = pd.concat(found.values()).sort_values(["user_id", "event_time", "event_type"], ignore_index=True)
    whole = events.to_pandas().sort_values(["user_id", "event_time", "event_type"], ignore_index=True)
    pd.testing.assert_frame_equal(everything, whole)


def test_rows_that_land_twice_are_exact_copies(events: pa.Table) -> None:
    for late in (0.0, 0.5):
        rows = pd.concat(landed(events, twice=0.1, late=late).values())
        assert len(rows) - len(events) == pytest.approx(0.1 * len(events), abs=4 * np.sqrt(0.09 * len(events)))
        assert len(rows.drop_duplicates()) == len(events)


def test_where_a_row_lands_depends_on_nothing_but_the_row(events: pa.Table) -> None:
    turned = events.take(pa.array(np.arange(len(events))[::-1]))
    one, two = (landed(rows, late=0.3, twice=0.2) for rows in (events, turned))
    key = ["user_id", "event_time", "event_type"]
    assert one.keys() == two.keys()
    for day, rows in one.items():
        pd.testing.assert_frame_equal(
            rows.sort_values(key, ignore_index=True), two[day].sort_values(key, ignore_index=True)
        )


def test_only_events_land_late_or_twice() -> None:
    shown = pa.Table.from_batches(logged(world(), np.arange(20)).batches["exposures"])
    assert sum(map(len, landed(shown, "exposures", late=0.5, twice=0.5).values())) == len(shown)


def best_sellers(market: World) -> tuple[list[int], list[int]]:
    """Of the first and of the last week, the ten that are clicked most."""
    done = lived(market, 1_500)[1]
    clicks = done[done["event_type"] == "click"]
    day = (clicks["event_time"] - market.horizon.start) // DAY
    first, last = (clicks["item_id"][week].value_counts().index[:10].tolist() for week in (day < 7, day >= DAYS - 7))
    return first, last


def test_with_drift_the_last_week_sells_other_things_than_the_first() -> None:
    still = best_sellers(world(utility__appeal=2.0))
    turned = best_sellers(world(utility__appeal=2.0, catalogue__drift=3.0))
    assert len(set(still[0]) & set(still[1])) >= 7
    assert turned[0][0] != turned[1][0] and len(set(turned[0]) & set(turned[1])) <= 4


def test_the_appeal_turns_from_one_to_the_other_and_keeps_its_spread() -> None:
    shop = world(catalogue__drift=3.0).shop
    assert np.array_equal(shop.appeal_on(np.array(0)), shop.appeal)
    assert shop.appeal_on(np.array(30)) == pytest.approx(shop.later)
    assert shop.appeal_on(np.array(15)).std() == pytest.approx(shop.appeal.std(), rel=0.4)
    assert abs(np.corrcoef(shop.appeal, shop.later)[0, 1]) < 0.3
    known = shop.counted_on(np.array([[0], [30]]), np.arange(120)[None, :])
    assert known - np.stack([shop.appeal, shop.later]) == pytest.approx(np.tile(shop.counted - shop.appeal, (2, 1)))


def test_policies_and_people_go_by_the_day() -> None:
    market = world(catalogue__drift=3.0, utility__appeal=9.0)
    people, shop = market.people(np.zeros(2, dtype=np.int64)), market.shop
    nothing = np.full((2, 3), -1)
    request = Request(people, 0, np.array([0, 30]), nothing, nothing, nothing, np.zeros(2, dtype=np.int64))
    oracle = Oracle(shop, market.parameters.utility, ())
    loved = oracle.candidates(request)[:, 1 + shop.near.shape[1] :][:, : shop.near.shape[1]]
    assert loved[0].tolist() == np.argsort(-shop.appeal, kind="stable")[:24].tolist()
    assert loved[1].tolist() == np.argsort(-shop.appeal_on(np.array(30)), kind="stable")[:24].tolist()
    both = np.tile(np.arange(120), (2, 1))
    worth = people.utility(shop, request.day, request.wish, both, both < 0, market.parameters.utility)
    assert np.corrcoef(worth[1] - worth[0], shop.later - shop.appeal)[0, 1] == pytest.approx(1.0)
    scores = market.logging.scores(request, both)
    assert not np.array_equal(scores[0], scores[1])
    drawn = market.logging.candidates(request)
    alone = market.logging.candidates(
        Request(people.chosen(np.array([1])), 0, np.array([30]), nothing[:1], nothing[:1], nothing[:1], np.array([0]))
    )
    assert np.array_equal(drawn[1:], alone)
