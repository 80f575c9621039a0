"""The parts of a training set that need no Feast: pinned files, attaching on keys, recency, the checks."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from feature_store.checks import check
from feature_store.on_demand import recency
from feature_store.point_in_time import attach
from feature_store.sources import Pinned, link_folder
from infra.contracts import arrow_schema, load_contract
from infra.errors import DataError
from infra.partitions import DataFile
from infra.profile import Profile

DAY = date(2018, 5, 1)
AS_OF = datetime(2018, 5, 1, tzinfo=UTC)
SAMPLES, TRAINING = load_contract("next_item_samples"), load_contract("next_item_training_set")


def samples(*pairs: tuple[str, str]) -> pa.Table:
    rows = [
        {"sample_date": DAY, "user_id": u, "item_id": i, "as_of": AS_OF, "event_time": AS_OF, "event_type": "review"}
        | {"feedback": "liked", "history_item_ids": [], "history_ratings": [], "history_len": 0, "split_time": "train"}
        for u, i in pairs
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in arrow_schema(SAMPLES)]))


def features(
    *pairs: tuple[str, str, int | None], last_event: datetime | None = None, profile_event: datetime | None = None
) -> pa.Table:
    names = [name for name in TRAINING.names if "__" in name]
    rows = [
        dict.fromkeys(names)
        | {"user_id": u, "item_id": i, "event_timestamp": AS_OF.replace(tzinfo=None), "user_daily__events_7d": n}
        | {"user_daily__last_event_time": last_event, "user_recency__is_cold": last_event is None}
        | {"user_profile__last_event_time": profile_event, "user_profile__profile_text": "lately: A"}
        for u, i, n in pairs
    ]
    return pa.Table.from_pylist(rows)


def test_features_find_their_sample_by_key_in_any_order_and_without_a_time_zone() -> None:
    rows = attach(
        samples(("u", "i"), ("v", "i")), features(("v", "i", 2), ("u", "i", 1)), TRAINING, ("user_id", "item_id")
    )
    assert rows.select(["user_id", "user_daily__events_7d"]).to_pylist() == [
        {"user_id": "u", "user_daily__events_7d": 1},
        {"user_id": "v", "user_daily__events_7d": 2},
    ]
    assert rows.schema.names == list(TRAINING.names)


@pytest.mark.parametrize("answer", [[("u", "i", 1)], [("u", "i", 1), ("v", "i", 1), ("v", "i", 2)]])
def test_a_join_that_loses_or_multiplies_rows_is_an_error(answer: list[tuple[str, str, int]]) -> None:
    with pytest.raises(DataError, match="turned 2 samples into"):
        attach(samples(("u", "i"), ("v", "i")), features(*answer), TRAINING, ("user_id", "item_id"))


def attached(last_event: datetime | None, profile_event: datetime | None = None) -> pa.Table:
    answer = features(("u", "i", 1), last_event=last_event, profile_event=profile_event)
    return attach(samples(("u", "i")), answer, TRAINING, ("user_id", "item_id"))


RULES_ALONE = dataclasses.replace(TRAINING, expectations=())


@pytest.mark.parametrize("last_event", [None, datetime(2018, 4, 30, 23, 59, 59, tzinfo=UTC)])
def test_features_of_the_past_pass_the_rules(last_event: datetime | None, profile: Profile) -> None:
    results = check(profile, attached(last_event, last_event), RULES_ALONE)[DAY]
    assert {result.status for result in results} == {"ok"}
    assert {rule.name for rule in TRAINING.row_rules} < {result.rule for result in results}


@pytest.mark.parametrize(
    ("user", "told", "rule"), [(AS_OF, None, "user_features_before_as_of"), (None, AS_OF, "profile_before_as_of")]
)
def test_a_feature_of_as_of_itself_stops_the_training_set(
    user: datetime | None, told: datetime | None, rule: str, profile: Profile
) -> None:
    with pytest.raises(DataError, match=rule):
        check(profile, attached(user, told), RULES_ALONE)


def test_a_sample_that_is_there_twice_stops_the_training_set(profile: Profile) -> None:
    twice = pa.concat_tables([attached(None), attached(None)])
    with pytest.raises(DataError, match=r"1 of 2 rows are bad .* by rule unique_key"):
        check(profile, twice, RULES_ALONE)


def test_recency_counts_days_to_the_moment_of_the_request() -> None:
    asked = pd.DataFrame(
        {
            "last_event_time": [datetime(2018, 4, 29, 12, tzinfo=UTC), None],
            "as_of_unix": [int(AS_OF.timestamp()), int(AS_OF.timestamp())],
        }
    )
    answer = recency(asked)
    assert answer["days_since_last_event"].tolist()[0] == 1.5
    assert answer["days_since_last_event"].isna().tolist() == [False, True]
    assert answer["is_cold"].tolist() == [False, True]


def stat_rows(*users: str) -> list[dict[str, Any]]:
    schema = arrow_schema(load_contract("user_stats"))
    zero: dict[str, Any] = {f.name: 0 for f in schema if pa.types.is_integer(f.type)}
    times = {"stat_date": DAY, "available_at": AS_OF, "last_event_time": AS_OF}
    return [{**zero, **times, "user_id": user, "mean_rating_365d": None} for user in users]


def test_a_link_folder_holds_the_pinned_files_and_those_alone(tmp_path: Path) -> None:
    schema = arrow_schema(load_contract("user_stats"))
    for user in "uvw":
        pq.write_table(pa.Table.from_pylist(stat_rows(user), schema=schema), tmp_path / f"{user}.parquet")
    pinned = Pinned("user_stats", 1, tuple(DataFile(str(tmp_path / f"{u}.parquet"), DAY, 1, "key") for u in "uw"))
    folder = link_folder(pinned, tmp_path / "links")
    assert folder == link_folder(pinned, tmp_path / "links")
    assert sorted(ds.dataset(folder).to_table()["user_id"].to_pylist()) == ["u", "w"]
    assert all(path.is_symlink() for path in folder.iterdir())


def test_a_file_from_before_a_column_was_appended_gets_it_as_null(tmp_path: Path) -> None:
    schema = arrow_schema(load_contract("user_stats"))
    old = pa.Table.from_pylist(stat_rows("u"), schema=schema).drop_columns(["last_event_time"])
    pq.write_table(old, tmp_path / "old.parquet")
    pinned = Pinned("user_stats", 1, (DataFile(str(tmp_path / "old.parquet"), DAY, 1, "key"),))
    rows = ds.dataset(link_folder(pinned, tmp_path / "links")).to_table()
    assert rows.schema.names == schema.names
    assert rows["last_event_time"].to_pylist() == [None]


def test_a_table_without_data_is_a_typed_file_without_rows(tmp_path: Path) -> None:
    rows = ds.dataset(link_folder(Pinned("user_stats", None, ()), tmp_path)).to_table()
    assert rows.num_rows == 0
    assert rows.schema.names == list(load_contract("user_stats").names)
