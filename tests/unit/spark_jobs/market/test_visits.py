"""What people do is what their preference, the list and the shop's stock allow; whoever is simulated beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from infra.errors import DataError
from spark_jobs.market.draws import Draws
from spark_jobs.market.log import Log, logged, tell_bids
from spark_jobs.market.people import People
from spark_jobs.market.shop import Shop
from spark_jobs.market.visits import VISITS
from tests.unit.spark_jobs.market.kit import DAY, DAYS, START, items, lived, parameters, world

PEOPLE = 300


@pytest.fixture(scope="module")
def logs() -> tuple[pd.DataFrame, pd.DataFrame]:
    return lived(world(), PEOPLE)


def test_a_person_does_the_same_in_any_company() -> None:
    market = world()
    together = logged(market, np.arange(40)).batches
    for person in (0, 17, 39):
        alone = logged(market, np.array([person])).batches
        for table, rows in alone.items():
            all_of_them = pa.Table.from_batches(together[table]).to_pylist()
            own = [row for row in all_of_them if row.get("user_id", row.get("request_id", 0) // VISITS) == person]
            assert pa.Table.from_batches(rows).to_pylist() == own


def test_another_seed_is_another_market(logs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    assert not lived(world(seed=8), PEOPLE)[1].equals(logs[1])


def test_a_list_is_whole_and_its_chance_is_that_of_its_places(logs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for _, line in logs[0].groupby("request_id"):
        assert line["position"].tolist() == list(range(1, len(line) + 1))
        assert line["item_id"].is_unique and line["exposure_time"].nunique() == line["list_chance"].nunique() == 1
        assert line["item_chance"].prod() == pytest.approx(line["list_chance"].iloc[0])
        assert line["item_chance"].between(0, 1, inclusive="right").all()


def test_what_is_bought_was_in_the_cart_and_clicked_within_the_horizon(logs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    events = logs[1]
    keys = {kind: set(zip(own["user_id"], own["item_id"], strict=True)) for kind, own in events.groupby("event_type")}
    assert keys["review"] <= keys["purchase"] <= keys["cart"] <= keys["click"]
    assert events["event_time"].between(START, START + (DAYS + 1) * DAY).all()
    assert not events.duplicated(["user_id", "item_id", "event_time", "event_type"]).any()
    assert events["rating"].notna().equals(events["event_type"] == "review")
    assert set(events["rating"].dropna()) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_nothing_is_shown_that_is_out_of_stock() -> None:
    market = world(catalogue__out_of_stock=0.4)
    shown = lived(market, 60)[0]
    days = (shown["exposure_time"].to_numpy() - START) // DAY
    assert market.shop.in_stock(shown["item_id"].to_numpy(), days).all()
    assert not market.shop.in_stock(np.arange(120), np.zeros(120, dtype=int)).all()


def test_a_visit_without_a_list_leaves_no_exposure() -> None:
    assert len(lived(world(choices__directly=1.0), 30)[0]) == 0
    shown, events = lived(world(choices__directly=0.0, hints__share=0.0), 30)
    clicks = events[events["event_type"] == "click"]
    pairs = set(zip(shown["user_id"], shown["item_id"], strict=True))
    assert set(zip(clicks["user_id"], clicks["item_id"], strict=True)) <= pairs


def share_again(events: pd.DataFrame) -> float:
    bought = events[events["event_type"] == "purchase"].sort_values("event_time", kind="stable")
    return float(bought.duplicated(["user_id", "item_id"]).mean())


def test_knobs_do_what_they_say(logs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Each against the shipped parameters, same people and luck."""
    shown, events = logs
    count = events["event_type"].value_counts()

    def kinds(**changes: Any) -> pd.Series:
        return lived(world(**changes), PEOPLE)[1]["event_type"].value_counts()

    assert share_again(lived(world(people__habit=3.0), PEOPLE)[1]) > 1.5 * share_again(events) > 0
    assert share_again(lived(world(people__habit=-6.0), PEOPLE)[1]) < 0.5 * share_again(events)
    assert kinds(people__patience=0.5)["click"] < 0.9 * count["click"]
    assert kinds(choices__click=5.0)["click"] < 0.6 * count["click"]
    assert kinds(people__budget=5.0)["purchase"] < 0.7 * count["purchase"]
    assert kinds(choices__leave=2.0).sum() < 0.5 * count.sum()
    assert len(lived(world(people__sessions=4.0), PEOPLE)[0]) < 0.7 * len(shown)


def test_people_click_what_they_prefer(logs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """By their true preference: else it would be for show."""
    market = world()
    people = People.of(np.arange(PEOPLE), market.shop, market.parameters, market.draws)
    shown, events = logs
    clicked = set(zip(events["user_id"], events["item_id"], strict=True))
    users, found = shown["user_id"].to_numpy(), shown["item_id"].to_numpy()
    best = np.max(
        [
            people.chosen(users).utility(
                market.shop,
                np.zeros(len(users), dtype=np.int64),
                np.full(len(users), taste),
                found[:, None],
                np.zeros((len(users), 1), dtype=bool),
                market.parameters.utility,
            )[:, 0]
            for taste in range(market.parameters.people.tastes)
        ],
        axis=0,
    )
    mark = np.array([pair in clicked for pair in zip(users, found, strict=True)])
    assert best[mark].mean() > best[~mark].mean() + 0.5


@pytest.mark.parametrize("missing", [["brand"], ["category"], ["price"], ["title", "brand", "category", "price"]])
def test_a_catalogue_that_lacks_values_still_makes_a_market(missing: list[str]) -> None:
    empty = pd.Series([None] * 120, dtype=object)
    shown, events = lived(world(items(**dict.fromkeys(missing, empty))), 100)
    assert len(shown) and len(events)
    assert "brand" not in missing or (shown["bid"] == 0).all()


def test_a_catalogue_of_two_items_makes_a_market_and_one_of_one_does_not() -> None:
    shown, _ = lived(world(items(2)), 50)
    assert shown["position"].max() == 2
    with pytest.raises(DataError, match="nothing to choose between") as refused:
        Shop.of(items(1), parameters(), 7)
    assert "at least two" in str(refused.value)


def test_the_order_of_the_catalogue_is_no_matter() -> None:
    shuffled = items().sample(frac=1.0, random_state=1)
    assert lived(world(shuffled), 30)[1].equals(lived(world(), 30)[1])


def test_an_advertiser_pays_for_all_of_a_brand_and_a_bid_is_that_of_its_item() -> None:
    shop = Shop.of(items(), parameters(bids__share=0.5), 7)
    paid = {brand: set((shop.bids[shop.brands == brand] > 0).tolist()) for brand in range(8)}
    assert all(len(both) == 1 for both in paid.values()) and {True, False} == set.union(*paid.values())
    assert Draws(7) == shop.draws


def test_the_bids_are_told_once_and_those_of_the_lists_are_the_same(logs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    log, market = Log(), world()
    tell_bids(log, market)
    (told,) = (batch.to_pandas() for batch in log.batches["bids"])
    assert told["item_id"].is_unique and (told["bid"] > 0).all() and set(told["bid_time"]) == {START}
    of_item = told.set_index("item_id")["bid"]
    assert np.array_equal(of_item.reindex(logs[0]["item_id"]).fillna(0.0), logs[0]["bid"])
