"""What advertising earns is in the logs, as their contracts say how to read them; the truth and the market agree."""

from __future__ import annotations

from functools import cache

import duckdb
import numpy as np
import pandas as pd
import pytest

from spark_jobs.market.kinds import everybody_reads
from spark_jobs.market.log import Log, tell_bids
from spark_jobs.market.policies import Policy, Tabled, ordered
from spark_jobs.market.replay import METRICS, Played, play
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import tables, world

PEOPLE = 600
# As the contracts of `exposures` and `bids` say it: from logs alone.
LOGGED = """
    select e.request_id, e.position, count(c.event_time) as n,
        1000 * any_value(e.bid) * (count(c.event_time) > 0)::int as ecpm
    from exposures e left join events c on c.event_type = 'click' and c.user_id = e.user_id and c.item_id = e.item_id
        and c.event_time >= e.exposure_time and c.event_time < e.exposure_time + 3600000000
    group by e.request_id, e.position order by e.request_id, e.position
"""
HELD = """
    select coalesce(b.bid, 0) as bid
    from exposures e asof left join bids b on b.item_id = e.item_id and b.bid_time <= e.exposure_time
    order by e.request_id, e.position
"""


def paying(**changes: object) -> World:
    return world(bids__share=0.6, **changes)


@cache
def log() -> dict[str, pd.DataFrame]:
    market, told = paying(), Log()
    tell_bids(told, market)
    (bids,) = told.batches["bids"]
    return {**tables(market, PEOPLE), "bids": bids.to_pandas()}


def asked(query: str, found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    with duckdb.connect() as connection:
        for name in ("exposures", "events", "bids"):
            connection.register(name, found[name])
        return connection.sql(query).df()


def test_the_logs_alone_tell_what_each_place_earned() -> None:
    """By the join of the contract, beside what the market knows of each place."""
    found, earned, market = asked(LOGGED, log()), {}, paying()
    for visit in market.visits(market.people(np.arange(PEOPLE)), market.logging):
        rows, places = np.nonzero(visit.listed[:, None] & (visit.items >= 0))
        paid = 1000.0 * market.shop.bids[visit.items[rows, places]] * visit.done.clicked[rows, places]
        earned.update(zip(zip(visit.requests[rows], places + 1, strict=True), paid, strict=True))
    keys = zip(found["request_id"], found["position"], strict=True)
    assert found["ecpm"].to_numpy() == pytest.approx(np.array([earned[key] for key in keys]))
    assert len(found) == len(earned) and found["n"].max() == 1 and (found["ecpm"] > 0).sum() > 100


def test_the_bid_of_an_exposure_is_the_one_that_held_then() -> None:
    own = log()
    shown = own["exposures"].sort_values(["request_id", "position"])
    assert np.array_equal(asked(HELD, own)["bid"], shown["bid"]) and (shown["bid"] > 0).mean() > 0.2
    # One that is bid later says nothing of what was shown before.
    raised = own["bids"].assign(bid=9.0, bid_time=shown["exposure_time"].median().astype(int))
    held = asked(HELD, {**own, "bids": pd.concat([own["bids"], raised])})["bid"]
    before = (shown["exposure_time"] < raised["bid_time"].iloc[0]).to_numpy()
    assert np.array_equal(held[before], shown["bid"][before])
    assert set(held[~before]) == {0.0, 9.0}


def test_what_was_earned_is_what_the_truth_expected_of_the_places_that_were_reached() -> None:
    """E[logged eCPM of a list] = sum_k w_k true_ecpm_k, w_k the chance that place k is looked at: four errors."""
    own, market = log(), paying()
    shown = own["exposures"].merge(own["true_exposures"], on=["request_id", "position"], validate="one_to_one")
    assert shown["true_ecpm"].to_numpy() == pytest.approx(1000.0 * shown["bid"] * shown["click_chance"])
    patience = own["true_people"].set_index("user_id")["patience"]
    shown = shown.sort_values(["request_id", "position"], ignore_index=True)
    on = patience.loc[shown["user_id"]].to_numpy() * (1.0 - market.parameters.choices.done * shown["click_chance"])
    reached = on.groupby(shown["request_id"]).cumprod() / on
    expected = (reached * shown["true_ecpm"]).groupby(shown["request_id"]).sum()
    earned = asked(LOGGED, own).groupby("request_id")["ecpm"].sum()
    off = (earned - expected).to_numpy()
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
    assert shown["true_ecpm"].groupby(shown["request_id"]).sum().mean() > 1.5 * expected.mean()  # not all are reached


def test_who_shows_what_is_paid_for_earns_more_by_thousand_and_pleases_less() -> None:
    market = paying()
    market = World(market.shop, everybody_reads(market.parameters), market.draws, market.horizon, daily=True)
    people = market.people(np.arange(300))
    appeal, bids = market.shop.appeal, market.shop.bids
    orders = {"loved": np.argsort(-appeal)[:10], "paid": np.argsort(-bids)[:10], "random": np.arange(10)}
    counted = {}
    for name, order in orders.items():
        scores = np.broadcast_to(ordered(np.arange(10)), (len(people), 10))
        policy: Policy = Tabled(name, people.number, np.tile(order, (len(people), 1)), scores)
        counted[name] = play(market, people, policy)
    played = Played([str(n) for n in people.number], {**counted, "oracle": counted["loved"]})
    loved, paid = (played.level("ecpm", name) for name in ("loved", "paid"))
    assert paid.value > 1.2 * loved.value and paid.closed is not None and paid.closed > 1.0
    assert played.level("clicks", "paid").value < played.level("clicks", "loved").value
    change = played.difference("ecpm", "paid", "loved", seed=1)
    assert 0 < change.lo < change.value < change.hi and change.value == pytest.approx(paid.value - loved.value)


def test_ecpm_is_what_was_paid_by_thousand_shown() -> None:
    market = paying(choices__directly=0.0, hints__share=0.0)
    people = market.people(np.arange(50))
    shown = paid = 0.0
    for visit in market.visits(people, market.logging):
        shown += (visit.items >= 0).sum()
        paid += float(market.shop.bids[visit.items[visit.done.clicked]].sum())
    counted = play(market, people, market.logging)
    played = Played([str(n) for n in people.number], dict.fromkeys(("logging", "random", "oracle"), counted))
    assert played.level("ecpm", "logging").value == pytest.approx(1000.0 * paid / shown)
    assert list(METRICS).index("ecpm") == list(METRICS).index("bids") + 1
