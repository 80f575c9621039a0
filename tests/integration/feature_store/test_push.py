"""Rows that are told online as they are made: what was added, the newest of each person, once more after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest

from feature_store import push as pushing
from feature_store.definitions import USER_DAILY, USER_HINTS
from feature_store.materialize import Materialised, materialize
from feature_store.online import ReconciliationError, online_rows
from feature_store.push import pending, push
from feature_store.serve import application
from feature_store.store import opened_store

DAYS = [date(2018, 1, 1), date(2018, 1, 2)]
EMOJI = ["🎁 gift", "قلم أحمر"]


def hints(shop_rows: Any, user: str, day: date, second: int, queries: Sequence[str] = ("pens",)) -> dict[str, Any]:
    return {
        "hint_date": day,
        "user_id": user,
        "signal_id": f"{user}-{second}",
        "available_at": shop_rows.at(day, second),
        "signal_time": shop_rows.at(day, second - 1),
        "queries": list(queries),
        "sources": ["model"] * len(queries),
        "lists": [0] * len(queries),
        "trigger_actions": ["view"],
        "trigger_contents": ["i1"],
        "model_version": "3",
    }


@pytest.fixture
def hinted(shop: Any, shop_rows: Any) -> Any:
    shop.rows["user_hints"] = {}
    shop.publish("user_hints", {DAYS[0]: [hints(shop_rows, "ann", DAYS[0], 60), hints(shop_rows, "bob", DAYS[0], 61)]})
    return shop


def told(shop: Any, *users: str) -> dict[str, list[str]]:
    with opened_store(shop.profile) as store:
        return {user: row["queries"] for user, row in online_rows(store, USER_HINTS, users).items()}


def test_only_what_was_added_is_told_and_of_each_person_the_newest(
    hinted: Any, shop_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push(hinted.profile, USER_HINTS) == Materialised("user_hints", (DAYS[0],), 2)
    assert push(hinted.profile, USER_HINTS) == Materialised("user_hints", (), 0) and not pending(
        hinted.profile, USER_HINTS
    )
    rows = hinted.rows["user_hints"][DAYS[0]]
    more = [hints(shop_rows, "ann", DAYS[0], second, [f"q{second}"]) for second in (70, 80, 75)]
    empty = [hints(shop_rows, "eve", DAYS[0], 90, []), hints(shop_rows, "zoë", DAYS[0], 91, EMOJI)]
    hinted.publish("user_hints", {DAYS[0]: [*rows, *more, *empty]}, edition=2)
    asked: list[int] = []
    whole = pushing.reconcile_rows
    monkeypatch.setattr(pushing, "reconcile_rows", lambda *own: asked.append(len(own[2])) or whole(*own))
    assert push(hinted.profile, USER_HINTS).entities == 3 and asked == [3]
    assert told(hinted, "ann", "bob", "eve", "zoë", "nobody") == {
        "ann": ["q80"],
        "bob": ["pens"],
        "eve": [],
        "zoë": EMOJI,
    }
    assert hinted.ledger.reconcile() == []


def test_a_row_of_an_earlier_day_does_not_take_the_place_of_a_newer_one(hinted: Any, shop_rows: Any) -> None:
    hinted.publish("user_hints", {DAYS[1]: [hints(shop_rows, "ann", DAYS[1], 5, ["new"])]})
    push(hinted.profile, USER_HINTS)
    rows = hinted.rows["user_hints"][DAYS[0]]
    hinted.publish("user_hints", {DAYS[0]: [*rows, hints(shop_rows, "ann", DAYS[0], 99, ["old"])]}, edition=2)
    push(hinted.profile, USER_HINTS)
    assert told(hinted, "ann") == {"ann": ["new"]}


def test_killed_before_the_ledger_knows_the_same_rows_are_told_again(
    hinted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import feast

    with monkeypatch.context() as patch:
        patch.setattr(pushing.Ledger, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            push(hinted.profile, USER_HINTS)
    assert pending(hinted.profile, USER_HINTS) == [DAYS[0]]
    with monkeypatch.context() as patch:
        patch.setattr(feast.FeatureStore, "write_to_online_store", lambda *_, **__: None)
        assert push(hinted.profile, USER_HINTS).entities == 2, "they were there"
    assert told(hinted, "ann", "bob") == {"ann": ["pens"], "bob": ["pens"]}


def test_what_the_online_store_lost_is_named(hinted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import feast

    monkeypatch.setattr(feast.FeatureStore, "write_to_online_store", lambda *_, **__: None)
    with pytest.raises(ReconciliationError, match="2 are missing"):
        push(hinted.profile, USER_HINTS)
    assert pending(hinted.profile, USER_HINTS) == [DAYS[0]]


def test_daily_views_and_hints_stand_beside_each_other_and_the_server_answers(hinted: Any, shop_rows: Any) -> None:
    from random import Random

    from fastapi.testclient import TestClient

    push(hinted.profile, USER_HINTS)
    for table, days in shop_rows.random_days(Random(5), days=2).items():
        hinted.publish(table, days)
    materialize(hinted.profile, *DAYS)
    with opened_store(hinted.profile) as store, TestClient(application(store)) as client:
        body = {"feature_service": "user_hints_v1", "entities": {"user_id": ["ann", "nobody"]}}
        answer = client.post("/get-online-features", json=body).raise_for_status().json()
        assert online_rows(store, USER_DAILY, ["0", "1", "2", "3", "4", "5", "6", "7", "8"])
    names = answer["metadata"]["feature_names"]
    values = {name: one["values"] for name, one in zip(names, answer["results"], strict=True)}
    assert values["queries"][0] == ["pens"] and values["model_version"] == ["3", None]
    assert timedelta(days=3) == USER_HINTS.ttl
