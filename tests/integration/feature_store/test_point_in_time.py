"""Nothing of `as_of` or later reaches a sample, whatever the statistics hold; both offline stores say the same."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store.definitions import DailyView, service_views
from feature_store.point_in_time import attach, entity_keys, join_features
from feature_store.sources import Pinned
from feature_store.training_sets import NEXT_ITEM
from infra.contracts import arrow_schema, load_contract
from infra.partitions import DataFile
from infra.profile import Profile, load_profile

SERVICE = NEXT_ITEM.service
Profiles = dict[str, Profile]


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    home = {"PLUMBLINE__HOME": str(tmp_path / "home")}
    return {
        s: load_profile("local", environ={**home, "PLUMBLINE__FEAST__OFFLINE_STORE": s}) for s in ("duckdb", "spark")
    }


def frame(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(load_contract(table)))


def files_of(folder: Path, table: str, days: dict[date, list[dict[str, Any]]]) -> Pinned:
    """One file per day with rows, as a pinned snapshot."""
    found = []
    for day, rows in days.items():
        if rows:
            path = folder / f"{table}-{day}.parquet"
            pq.write_table(frame(table, rows), path)
            found.append(DataFile(str(path), day, len(rows), "key"))
    return Pinned(table, 1, tuple(found))


def joined(profile: Profile, folder: Path, made: dict[str, dict[date, list[dict[str, Any]]]]) -> pa.Table:
    samples = frame(NEXT_ITEM.samples, [row for rows in made[NEXT_ITEM.samples].values() for row in rows])
    pins = [files_of(folder, view.table, made[view.table]) for view in service_views(SERVICE)]
    features = join_features(profile, SERVICE, pins, samples)
    return attach(samples, features, load_contract(NEXT_ITEM.table), entity_keys(SERVICE))


def as_of_join(view: DailyView, samples: pa.Table, stats: pa.Table) -> list[dict[str, Any]]:
    """The same join by other means: DuckDB's ASOF join, then the ttl."""
    fresh = f"st.available_at >= s.as_of - INTERVAL {view.ttl.days} DAY"
    columns = ", ".join(f"CASE WHEN {fresh} THEN st.{name} END AS {view.name}__{name}" for name in view.features)
    key = view.entity.key
    with duckdb.connect() as connection:
        connection.register("samples", samples)
        connection.register("stats", stats)
        return (
            connection.sql(
                f"SELECT s.user_id, s.item_id, s.event_time, {columns} FROM samples s "
                f"ASOF LEFT JOIN stats st ON s.{key} = st.{key} AND s.as_of >= st.available_at "
                "ORDER BY s.sample_date, s.user_id, s.item_id, s.event_time"
            )
            .to_arrow_table()
            .to_pylist()
        )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step", [1, 45])
def test_the_join_is_the_as_of_join_and_no_value_is_of_as_of_or_later(
    seed: int, step: int, shop_rows: Any, profiles: Profiles, tmp_path: Path
) -> None:
    random = Random(seed)
    made = shop_rows.random_days(random, days=14, step=step)
    shop_rows.plant_future(made, random)
    rows = joined(profiles["duckdb"], tmp_path, made)
    samples = rows.select(load_contract(NEXT_ITEM.samples).names)
    assert rows.num_rows == sum(map(len, made[NEXT_ITEM.samples].values())) > 0
    for view in service_views(SERVICE):
        stats = frame(view.table, [row for day in made[view.table].values() for row in day])
        expected = as_of_join(view, samples, stats)
        assert rows.select(list(expected[0])).to_pylist() == expected
        told = [(row["as_of"], row[f"{view.name}__last_event_time"]) for row in rows.to_pylist()]
        assert all(time is None or time < as_of for as_of, time in told)
        assert {time is None for _, time in told} == {True, False}, "the case must hold both cold and warm entities"


def test_yesterday_is_known_at_midnight_and_today_is_not(shop_rows: Any, profiles: Profiles, tmp_path: Path) -> None:
    random, today = Random(0), shop_rows.FIRST
    yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
    made = {
        "user_stats": {day: [shop_rows.stat("user_id", "u", day, random)] for day in (yesterday, today, tomorrow)},
        "item_stats": {today: [shop_rows.stat("item_id", "i", today, random)]},
        "user_profiles": {day: [shop_rows.profile("u", day, Random(1))] for day in (yesterday, today, tomorrow)},
        NEXT_ITEM.samples: {today: [shop_rows.sample("u", "i", today, random)]},
    }
    (row,) = joined(profiles["duckdb"], tmp_path, made).to_pylist()
    assert row["user_daily__events_7d"] == yesterday.toordinal()
    assert row["item_daily__events_7d"] is None
    assert row["user_profile__profile_text"] == f"lately: {yesterday}"
    last_event = made["user_stats"][yesterday][0]["last_event_time"]
    assert row["user_recency__days_since_last_event"] == (row["as_of"] - last_event) / timedelta(days=1)
    assert row["user_recency__is_cold"] is False


def test_a_row_is_forgotten_after_the_ttl_and_the_user_is_cold_again(
    shop_rows: Any, profiles: Profiles, tmp_path: Path
) -> None:
    random, day = Random(0), shop_rows.FIRST
    old = {n: day - timedelta(days=n) for n in (366, 367)}
    made = {
        "user_stats": {d: [shop_rows.stat("user_id", str(n), d, random)] for n, d in old.items()},
        "item_stats": {},
        "user_profiles": {},
        NEXT_ITEM.samples: {day: [shop_rows.sample(str(n), "i", day, random) for n in old]},
    }
    rows = joined(profiles["duckdb"], tmp_path, made).to_pylist()
    assert {row["user_id"]: row["user_recency__is_cold"] for row in rows} == {"366": False, "367": True}


def test_the_spark_store_gives_the_rows_of_the_duckdb_store(
    shop_rows: Any, profiles: Profiles, tmp_path: Path, spark: SparkSession
) -> None:
    made = shop_rows.random_days(Random(1), days=12, step=45)
    by_duckdb, by_spark = (joined(profiles[store], tmp_path, made) for store in ("duckdb", "spark"))
    assert by_duckdb.num_rows > 0
    assert by_spark.to_pylist() == by_duckdb.to_pylist()
