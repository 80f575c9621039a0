"""The night's lists in the market: each version beside chance and oracle, the challenger held against the champion."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.contracts import load_contract, spark_ddl
from infra.errors import DataError
from spark_jobs import market_replay
from spark_jobs.market import replay as replaying
from spark_jobs.market.replay import METRICS
from tests.unit.spark_jobs.market.kit import items

NIGHT, TOOK = date(2026, 1, 5), datetime(2026, 1, 2, tzinfo=UTC)
USERS = [f"u{n}" for n in range(60)]
SMALL = {**market_replay.CONFIG, "days": 3}


def frame(spark: SparkSession, table: str, rows: list[dict[str, Any]]) -> DataFrame:
    contract = load_contract(table)
    named = [tuple(row.get(column.name) for column in contract.columns) for row in rows]
    return spark.createDataFrame(named, spark_ddl(contract))


def lists(version: str, role: str, places: list[int], users: list[str] = USERS) -> list[dict[str, Any]]:
    made = {"run_date": NIGHT, "model_version": version, "log_prob": -1.0, "role": role}
    return [
        {**made, "user_id": user, "rank": rank + 1, "item_id": f"i{item:03d}"}
        for user in users
        for rank, item in enumerate(places)
    ]


@pytest.fixture(scope="module")
def shop(spark: SparkSession) -> dict[str, DataFrame]:
    """An older delivery with one item less, the newest, and another shop's catalogue beside it."""
    shelf = items().assign(source="shop").to_dict("records")
    older = [{**row, "snapshot_date": date(2025, 12, 1)} for row in shelf[:-1]]
    other = [{"item_id": f"o{n}", "source": "other", "title": "pen"} for n in range(9)]
    newest = [{**row, "snapshot_date": date(2026, 1, 1)} for row in (*shelf, *other)]
    event = {"event_time": TOOK, "event_date": TOOK.date(), "event_type": "review"}
    took = [{**event, "user_id": user, "item_id": f"i{n % 40:03d}"} for n, user in enumerate(USERS[:50])]
    return {"items": frame(spark, "items", [*older, *newest]), "events": frame(spark, "events", took)}


def built(spark: SparkSession, shop: dict[str, DataFrame], rows: list[dict[str, Any]], **config: Any) -> pd.DataFrame:
    frames = {**shop, "recommendations": frame(spark, "recommendations", rows)}
    return market_replay.build(spark, frames, [NIGHT], {**SMALL, **config}).toPandas()


def test_champion_and_challenger_are_played_to_the_same_people_in_any_blocks(
    spark: SparkSession, shop: dict[str, DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*lists("8", "challenger", [119, 7, 8]), *lists("7", "champion", [1, 2, 3])]
    found = built(spark, shop, rows)
    assert len(found) == 2 * len(METRICS) and set(found["metric"]) == set(METRICS)
    assert set(found["people"]) == {60} and set(found["days"]) == {3} and set(found["seed"]) == {7}
    champion, challenger = (found[found["model_version"] == version].set_index("metric") for version in ("7", "8"))
    assert champion["against"].isna().all() and champion["difference"].isna().all()
    assert set(challenger["against"]) == {"7"} and set(challenger["role"]) == {"challenger"}
    change = challenger["value"] - champion["value"]
    assert (challenger["difference"] - change).abs().max() < 1e-12
    assert (challenger["lo"] <= challenger["difference"]).all() and (challenger["difference"] <= challenger["hi"]).all()
    assert champion.loc["clicks", "random"] < champion.loc["clicks", "oracle"]
    assert (champion[["random", "oracle"]] == challenger[["random", "oracle"]]).all().all()
    monkeypatch.setattr(replaying, "_BLOCK", 17)
    pd.testing.assert_frame_equal(built(spark, shop, rows), found)


def test_the_same_lists_differ_by_nothing(spark: SparkSession, shop: dict[str, DataFrame]) -> None:
    found = built(spark, shop, [*lists("7", "champion", [1, 2]), *lists("8", "challenger", [1, 2])])
    challenger = found[found["model_version"] == "8"]
    assert (challenger[["difference", "lo", "hi"]] == 0.0).all().all()


def test_a_baseline_that_stands_alone_is_played_too_and_to_no_more_people_than_asked_for(
    spark: SparkSession, shop: dict[str, DataFrame]
) -> None:
    found = built(spark, shop, lists("ranker", "baseline", [4, 5]), people=25)
    assert len(found) == len(METRICS) and found["against"].isna().all() and set(found["people"]) == {25}


def test_a_night_without_lists_has_no_rows(spark: SparkSession, shop: dict[str, DataFrame]) -> None:
    assert built(spark, shop, []).empty


def test_a_shop_of_one_item_has_nothing_to_play_and_no_fault(spark: SparkSession, shop: dict[str, DataFrame]) -> None:
    one = frame(spark, "items", [{"item_id": "i005", "source": "shop", "snapshot_date": date(2026, 1, 1)}])
    assert built(spark, {**shop, "items": one}, lists("popularity", "baseline", [5])).empty


def test_lists_for_other_users_are_refused_before_anything_is_played(
    spark: SparkSession, shop: dict[str, DataFrame]
) -> None:
    with pytest.raises(DataError, match="do not serve the same users"):
        built(spark, shop, [*lists("7", "champion", [1]), *lists("8", "challenger", [1], USERS[1:])])


def test_an_item_that_the_newest_delivery_lacks_is_refused(spark: SparkSession, shop: dict[str, DataFrame]) -> None:
    with pytest.raises(DataError, match="does not have") as refused:
        built(spark, shop, lists("7", "champion", [1, 500]))
    assert "i500" in str(refused.value) and f"recommendations of {NIGHT}, 7" in str(refused.value)
