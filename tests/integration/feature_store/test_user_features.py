"""What is served at night is what the training set has for a sample of the same moment: no skew, whoever it is."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.feature_names import entity_of
from feature_store.training_sets import NEXT_ITEM, build_training_set
from feature_store.user_features import with_user_features
from infra.contracts import load_contract
from infra.errors import DataError

WANTED = [
    column.name
    for column in load_contract(NEXT_ITEM.table).columns
    if entity_of(column.name) == "user" and column.type in ("long", "integer", "double", "boolean")
]


def test_what_users_are_served_at_the_end_of_a_day_is_what_a_sample_of_the_next_day_has(
    shop: Any, shop_rows: Any
) -> None:
    made = shop_rows.random_days(Random(5), days=8)
    shop_rows.plant_future(made, Random(6))
    for table, days in made.items():
        shop.publish(table, {day: days.get(day, []) for day in sorted({*days, *made["next_item_samples"]})})
    samples = made["next_item_samples"]
    first, last = min(samples), max(samples)
    build_training_set(shop.profile, NEXT_ITEM, first, last)
    trained = [row for file in shop.lake.files(NEXT_ITEM.table) for row in pq.read_table(file.path).to_pylist()]
    compared, known = 0, 0
    for day in sorted(samples)[1:]:
        learnt = {row["user_id"]: {name: row[name] for name in WANTED} for row in trained if row["sample_date"] == day}
        users = [*sorted(learnt), "nobody"]
        asked = pa.table({"user_id": users, "item_ids": pa.array([["i"]] * len(users))})
        served = with_user_features(shop.profile, asked, day - timedelta(days=1), WANTED)
        assert served.select(asked.column_names).sort_by("user_id") == asked.sort_by("user_id")
        rows = {row["user_id"]: {name: row[name] for name in WANTED} for row in served.to_pylist()}
        nothing = rows.pop("nobody")
        assert nothing.pop("user_recency__is_cold") is True and set(nothing.values()) == {None}
        assert rows == learnt
        compared += len(rows)
        known += sum(row["user_daily__events_30d"] is not None for row in rows.values())
    assert compared > known > 5, "the case must hold both known and cold users"


def test_a_day_that_the_store_has_not_seen_is_refused_and_what_it_does_not_have_is_not_added(
    shop: Any, shop_rows: Any
) -> None:
    made = shop_rows.random_days(Random(2), days=2)
    for table in ("user_stats", "user_profiles"):
        shop.publish(table, made[table])
    day, asked = max(made["user_stats"]), pa.table({"user_id": ["1"]})
    assert with_user_features(shop.profile, asked, day, ["user_tastes__gone", "rating_"]) == asked
    assert with_user_features(shop.profile, asked, day, WANTED[:1]).column_names == ["user_id", WANTED[0]]
    with pytest.raises(DataError, match="user_stats is not committed for 1 of the days"):
        with_user_features(shop.profile, asked, day + timedelta(days=1), WANTED)
