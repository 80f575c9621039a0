"""The card of a night: the market, this shop's own log and the published ones, each with what it is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.contracts import load_contract, spark_ddl
from spark_jobs import market_validity
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.takes import STATISTICS
from spark_jobs.market.validity import Width, logs_of
from tests.unit.spark_jobs.market.kit import items

NIGHT, FIRST = date(2026, 1, 5), datetime(2025, 12, 1, tzinfo=UTC)
SMALL = {**market_validity.CONFIG, "people": 300}


def frame(spark: SparkSession, table: str, rows: list[dict[str, Any]]) -> DataFrame:
    contract = load_contract(table)
    named = [tuple(row.get(column.name) for column in contract.columns) for row in rows]
    return spark.createDataFrame(named, spark_ddl(contract))


def took(kind: str, user: int, item: int, day: int) -> dict[str, Any]:
    time = FIRST + timedelta(days=day)
    return {
        **{"user_id": f"u{user}", "item_id": f"i{item:03d}", "event_type": kind},
        **{"event_time": time, "event_date": time.date()},
    }


# Everybody takes four things, ten days apart; the first of them twice.
REVIEWS = [took("review", user, (user + step % 3) % 40, 10 * step) for user in range(50) for step in range(4)]


def built(spark: SparkSession, events: list[dict[str, Any]], shelf: int = 120, **config: Any) -> pd.DataFrame:
    catalogue = items(shelf).assign(source="shop", snapshot_date=date(2026, 1, 1)).to_dict("records")
    frames = {"items": frame(spark, "items", catalogue), "events": frame(spark, "events", events)}
    return market_validity.build(spark, frames, [NIGHT], {**SMALL, **config}).toPandas()


def test_the_card_holds_the_market_the_shops_own_log_and_the_published_ones(spark: SparkSession) -> None:
    later = took("review", 0, 1, 60)  # after the night
    clicks = [took("click", user, 3, 1) for user in range(20)]
    found = built(spark, [*REVIEWS, *clicks, later])
    published = logs_of("reviews")
    assert set(found["kind"]) == set(found["setting"]) == {"reviews"} and set(found["run_date"]) == {NIGHT}
    assert len(found) == len(STATISTICS) * (2 + len(published))
    by = found.set_index(["source", "statistic"]).sort_index()
    shop, market, beauty = (by.loc[source] for source in ("shop", "market", "beauty"))
    assert shop.loc["history_median", "value"] == 4.0 and shop.loc["gap_days_median", "value"] == 10.0
    assert shop.loc["repeat_share", "value"] == 0.25 and set(shop["takes"]) == {200}
    assert set(shop["origin"]) == {"as delivered"} and shop["parameters_hash"].isna().all()
    assert set(market["parameters_hash"]) == {Parameters.read(setting="reviews").hash}
    assert set(market["origin"]) == {"simulated"}
    assert shop.loc["repeat_share", "verdict"] == "outside" and set(shop["low"].dropna()) == set(market["low"].dropna())
    assert set(beauty["verdict"]) == {"reference"} and set(beauty["origin"]) == {"real"}
    assert beauty.loc["gini", "value"] == published["beauty"].values["gini"]
    pd.testing.assert_frame_equal(built(spark, [*REVIEWS, *clicks]), found)


def test_of_a_large_log_some_users_are_measured_with_all_their_takes(spark: SparkSession) -> None:
    found = built(spark, REVIEWS, takes=100)
    shop = found[found["source"] == "shop"].set_index("statistic")
    taken = int(shop["takes"].iloc[0])
    assert 0 < taken < 200 and taken % 4 == 0 and shop.loc["history_median", "value"] == 4.0


@pytest.mark.parametrize(("events", "shelf"), [([], 120), ([took("view", 1, 1, 1)], 120), (REVIEWS[:1], 1)])
def test_a_shop_without_takes_or_choice_has_no_card_and_no_fault(
    spark: SparkSession, events: list[dict[str, Any]], shelf: int
) -> None:
    assert built(spark, events, shelf).empty


def test_a_market_too_small_for_a_core_is_not_measured(spark: SparkSession) -> None:
    found = built(spark, REVIEWS, people=1)
    market = found[found["source"] == "market"]
    assert market["value"].isna().all() and set(market["takes"]) == {0}
    assert set(market["verdict"]) <= {"not measured", "no reference"}


def test_a_shop_that_logs_clicks_is_held_against_clicks(spark: SparkSession) -> None:
    found = built(spark, [took("click", user, user % 9, day) for user in range(9) for day in range(3)])
    assert set(found["kind"]) == {"clicks"} and set(found["setting"]) == {"base"}
    assert set(found["source"]) == {"market", "shop", *logs_of("clicks")}
    assert set(Width.read().kinds) == {"reviews", "purchases", "clicks"}
