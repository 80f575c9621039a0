"""Training sets as published tables, the online store after materialisation, the registry, and the server, for real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from typing import Any

import pyarrow.dataset as ds
import pytest

from feature_store import point_in_time, store, training_sets
from feature_store.definitions import DAILY_VIEWS, QUERY_DAILY, USER_DAILY, USER_PROFILE, DailyView, feast_objects
from feature_store.materialize import Materialised, materialize
from feature_store.online import ReconciliationError, newest_rows, online_rows, reconcile
from feature_store.serve import application, apply_definitions
from feature_store.sources import pin, sources_of
from feature_store.training_sets import HINTS, JUDGE, NEXT_ITEM, build_training_set
from infra.errors import DataError
from infra.lake.rollback import rollback

DAYS = 8


@pytest.fixture
def filled(shop: Any, shop_rows: Any) -> Any:
    """A shop with eight days of everything."""
    for table, days in shop_rows.random_days(Random(5), days=DAYS).items():
        shop.publish(table, days)
    return shop


@pytest.fixture
def days(shop_rows: Any) -> list[date]:
    return [shop_rows.FIRST + timedelta(days=n) for n in range(DAYS)]


@contextmanager
def opened(shop: Any) -> Iterator[Any]:
    with store.opened_store(shop.profile) as feast_store:
        yield feast_store


def test_a_training_set_is_built_once_and_again_only_where_its_inputs_changed(
    filled: Any, shop_rows: Any, days: list[date]
) -> None:
    build_training_set(filled.profile, NEXT_ITEM, days[0], days[3])
    first = build_training_set(filled.profile, NEXT_ITEM, days[0], days[-1])
    assert first is not None
    assert first.recorded == tuple(days[4:])
    assert build_training_set(filled.profile, NEXT_ITEM, days[0], days[-1]) is None
    rows = ds.dataset([file.path for file in filled.lake.files(NEXT_ITEM.table)]).to_table()
    assert rows.num_rows == sum(map(len, filled.rows[NEXT_ITEM.samples].values())) > 0
    assert filled.ledger.reconcile() == []
    filled.publish("user_profiles", {days[4]: [shop_rows.profile("0", days[4], Random(0))]}, edition=2)
    again = build_training_set(filled.profile, NEXT_ITEM, days[0], days[-1])
    assert again is not None
    assert again.recorded == tuple(days[5:]), "what a day tells is a feature of the days after it"


def test_a_day_of_the_judge_s_training_set_is_joined_again_when_it_is_old_enough_to_have_changed(
    filled: Any, shop_rows: Any, days: list[date]
) -> None:
    def publish(day: date, later: str, edition: int = 1) -> None:
        filled.publish("judge_examples", {day: [shop_rows.judged("0", "1", day, later)]}, edition)

    for day in days:
        publish(day, "2")
    build_training_set(filled.profile, JUDGE, days[0], days[-1])
    tonight = days[1] + timedelta(days=30)
    publish(tonight, "3")
    for day in days[:3]:
        publish(day, "4", edition=2)

    redone = build_training_set(filled.profile, JUDGE, tonight, tonight)

    assert redone is not None and redone.recorded == (days[1], tonight)
    rows = ds.dataset([file.path for file in filled.lake.files(JUDGE.table)]).to_table().to_pylist()
    told = {row["example_date"]: row["later_item_ids"][0] for row in rows}
    assert told == {**dict.fromkeys(days, "2"), days[1]: "4", tonight: "3"}


def test_a_hint_is_told_what_was_known_of_its_query_and_person_before_its_moment(
    shop: Any, shop_rows: Any, days: list[date]
) -> None:
    """Not at midnight, as other samples are: what happened that day, before the hint, is not known either."""
    random, words = Random(4), ["🎁 gift", "قلم أحمر", 'it\'s "5" % off']
    for table, key in shop_rows.DAILY.items():
        names = words if key == "query" else ["u"]
        told = {day: [shop_rows.daily(table, name, day, random) for name in names] for day in days}
        shop.publish(table, {**told, days[-2]: told[days[-2]][:1]})
    noon = shop_rows.at(days[-1], 43_200)
    hints = [shop_rows.shown("u", query, noon, f"r{n}") for n, query in enumerate([*words, "never seen", ""])]
    shop.publish("hint_samples", {**{day: [] for day in days}, days[-1]: hints})
    build_training_set(shop.profile, HINTS, days[0], days[-1])
    found = ds.dataset([file.path for file in shop.lake.files(HINTS.table)]).to_table().to_pylist()
    seen = {row["query"]: row["query_daily__shown_7d"] for row in found}
    yesterday, before = days[-2].toordinal(), days[-3].toordinal()
    assert seen == {words[0]: yesterday, words[1]: before, words[2]: before, "never seen": None, "": None}
    assert {row["user_daily__events_7d"] for row in found} == {yesterday}
    assert all(row["query_daily__last_event_time"] < row["as_of"] for row in found if row["query"] in words)
    materialize(shop.profile, days[0], days[-1])
    with opened(shop) as feast_store:
        assert sorted(online_rows(feast_store, QUERY_DAILY, [*words, "never seen"])) == sorted(words)


def test_a_training_set_of_many_parts_has_the_rows_of_one_and_is_published_once(
    filled: Any, days: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows() -> list[dict[str, Any]]:
        files = sorted(filled.lake.files(NEXT_ITEM.table), key=lambda file: file.partition)
        return list(ds.dataset([file.path for file in files]).to_table().to_pylist())

    build_training_set(filled.profile, NEXT_ITEM, days[0], days[-1])
    whole, versions, sizes = rows(), len(filled.lake.history(NEXT_ITEM.table)), list[int]()
    largest = max(map(len, filled.rows[NEXT_ITEM.samples].values()))
    monkeypatch.setattr(training_sets, "_ROWS_AT_ONCE", largest)
    monkeypatch.setattr(point_in_time, "_SAMPLES_AT_ONCE", 2)
    checked = training_sets.check
    monkeypatch.setattr(
        training_sets, "check", lambda profile, rows, *rest: sizes.append(len(rows)) or checked(profile, rows, *rest)
    )
    assert build_training_set(filled.profile, replace(NEXT_ITEM, version=2), days[0], days[-1]) is not None
    assert rows() == whole
    assert len(sizes) > 1 and max(sizes) <= largest and sum(sizes) == len(whole)
    assert len(filled.lake.history(NEXT_ITEM.table)) == versions + 1
    assert filled.ledger.reconcile() == []


def test_days_without_samples_in_the_ledger_are_refused_by_name(filled: Any, days: list[date]) -> None:
    after = days[-1] + timedelta(days=1)
    with pytest.raises(DataError, match="1 of the days") as refusal:
        build_training_set(filled.profile, NEXT_ITEM, days[0], after)
    assert f"--from {after} --partition {after}" in refusal.value.do


def newest(shop: Any, last: date, view: DailyView = USER_DAILY) -> dict[str, dict[str, Any]]:
    return newest_rows(view, pin(shop.lake, view.table, last=last).files)


def test_materialisation_day_by_day_and_in_one_go_end_alike(filled: Any, days: list[date]) -> None:
    for day in days[:3]:
        materialize(filled.profile, day, day)
        expected = newest(filled, day)
        with opened(filled) as feast_store:
            assert online_rows(feast_store, USER_DAILY, sorted(expected)) == expected
    materialize(filled.profile, days[0], days[-1])
    for view in DAILY_VIEWS:
        expected = newest(filled, days[-1], view)
        with opened(filled) as feast_store:
            assert online_rows(feast_store, view, sorted(expected)) == expected != {}
        assert sorted(filled.ledger.committed(f"online.{view.name}")) == days
    assert filled.ledger.reconcile() == []
    assert materialize(filled.profile, days[0], days[-1]) == [Materialised(v.name, (), 0) for v in DAILY_VIEWS]


def test_late_data_is_materialised_again_and_older_rows_never_replace_newer_ones(
    filled: Any, shop_rows: Any, days: list[date]
) -> None:
    materialize(filled.profile, days[0], days[-1])
    random = Random(9)
    changed = [shop_rows.stat("user_id", name, days[2], random) for name in ("0", "1", "late")]
    vanished = filled.rows["user_stats"][days[-1]][1:]
    filled.publish("user_stats", {days[2]: changed, days[-1]: vanished}, edition=2)
    users, *others = materialize(filled.profile, days[2], days[-1])
    assert users.partitions == (days[2], days[-1])
    assert {view.partitions for view in others} == {()}
    expected = newest(filled, days[-1])
    with opened(filled) as feast_store:
        assert online_rows(feast_store, USER_DAILY, sorted(expected)) == expected


def test_a_rolled_back_day_gives_way_to_older_rows_when_the_next_day_comes(
    filled: Any, shop_rows: Any, days: list[date]
) -> None:
    before = filled.lake.snapshot("user_stats")
    extra = days[-1] + timedelta(days=1)
    random = Random(3)
    filled.publish(
        "user_stats", {extra: [shop_rows.stat("user_id", name, extra, random) for name in newest(filled, extra)]}
    )
    for table in ("item_stats", "query_stats", "user_profiles"):
        filled.publish(table, {extra: []})
    materialize(filled.profile, days[0], extra)
    rollback(filled.lake, filled.ledger, "user_stats", before)
    filled.publish("user_stats", {days[0]: []}, edition=2)
    materialize(filled.profile, days[0], days[-1])
    expected = newest(filled, extra)
    with opened(filled) as feast_store:
        assert online_rows(feast_store, USER_DAILY, sorted(expected)) == expected
    assert sorted(filled.ledger.committed("online.user_daily")) == days


def test_a_key_that_the_online_store_lost_is_named_and_nothing_is_recorded(
    filled: Any, days: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    import feast

    monkeypatch.setattr(feast.FeatureStore, "materialize", lambda self, *args, **kwargs: None)
    with pytest.raises(ReconciliationError) as refusal:
        materialize(filled.profile, days[0], days[-1])
    expected = newest(filled, days[-1])
    assert f"{len(expected)} are missing" in refusal.value.what
    assert any(key in refusal.value.where for key in expected)
    assert filled.ledger.committed("online.user_daily") == {}


def test_a_single_wrong_value_in_the_online_store_is_found(filled: Any, days: list[date]) -> None:
    materialize(filled.profile, days[0], days[-1])
    key, row = next(iter(newest(filled, days[-1]).items()))
    with opened(filled) as feast_store:
        files = pin(filled.lake, USER_DAILY.table).files
        assert reconcile(feast_store, USER_DAILY, files) == len(newest(filled, days[-1]))
        wrong = {"user_id": [key], **{name: [value] for name, value in row.items()}} | {"events_30d": [-1]}
        feast_store.write_to_online_store(USER_DAILY.name, inputs=wrong)
        with pytest.raises(ReconciliationError, match="1 have other values") as refusal:
            reconcile(feast_store, USER_DAILY, files)
    assert refusal.value.where == f"user_id: {key}"


def test_a_foreign_object_in_the_registry_is_found_by_the_next_apply(filled: Any) -> None:
    import feast

    apply_definitions(filled.profile)
    apply_definitions(filled.profile)
    with opened(filled) as feast_store:
        feast_store.apply([feast.Entity(name="stranger", join_keys=["stranger_id"])])
    with pytest.raises(store.RegistryMismatch, match="foreign Entity stranger"):
        apply_definitions(filled.profile)


def test_an_object_that_another_writer_dropped_is_missing(filled: Any) -> None:
    pins = [pin(filled.lake, view.table) for view in DAILY_VIEWS]
    with opened(filled) as feast_store:
        objects = feast_objects(sources_of(filled.profile, pins))
        store.apply(feast_store, objects)
        feast_store.delete_feature_service("next_item_v1")
        with pytest.raises(store.RegistryMismatch, match="missing FeatureService next_item_v1"):
            store.check_registry(feast_store, objects)


def test_the_server_answers_with_stored_and_on_demand_features(filled: Any, shop_rows: Any, days: list[date]) -> None:
    from fastapi.testclient import TestClient

    materialize(filled.profile, days[0], days[-1])
    user, row = next(iter(newest(filled, days[-1]).items()))
    asked = int(shop_rows.at(days[-1] + timedelta(days=1)).timestamp())
    entities = {"user_id": [user, "nobody"], "item_id": ["0", "0"], "as_of_unix": [asked, asked]}
    with opened(filled) as feast_store, TestClient(application(feast_store)) as client:
        body = {"feature_service": "next_item_v1", "entities": entities, "full_feature_names": True}
        answer = client.post("/get-online-features", json=body).raise_for_status().json()
    values = {n: r["values"] for n, r in zip(answer["metadata"]["feature_names"], answer["results"], strict=True)}
    assert values["user_daily__events_30d"] == [row["events_30d"], None]
    text = newest(filled, days[-1], USER_PROFILE).get(user, {}).get("profile_text")
    assert values["user_profile__profile_text"] == [text, None]
    assert values["user_recency__is_cold"] == [False, True]
    days_ago = (asked - row["last_event_time"].timestamp()) / 86_400
    assert values["user_recency__days_since_last_event"][0] == pytest.approx(days_ago)
