"""The index of a night online: whole and in force, or not in force, whatever is killed and whoever reads meanwhile."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from feature_store import index, store
from feature_store.definitions import TRIGGER_QUERIES
from feature_store.hints import ITEM, SEARCH, hints_of, of_triggers
from feature_store.index import POINTER, Published, publish_index, version_in_force
from feature_store.online import ReconciliationError
from feature_store.push import push, pushed_view
from feature_store.serve import application, apply_definitions
from infra.lake.rollback import rollback
from infra.ledger import StaleAttempt

FIRST = date(2026, 1, 20)
TRIGGERS = [*((ITEM, f"i{n}") for n in range(30)), (SEARCH, "red pens"), (SEARCH, "عطر | pipe")]


def night(day: date, words: str, triggers: int = len(TRIGGERS)) -> dict[date, list[dict[str, Any]]]:
    """An index of one night: two queries a trigger, which name the night."""
    return {
        day: [
            {
                "index_date": day, "kind": kind, "trigger": trigger, "place": place,
                "query": f"{words} {trigger} {place}", "score": 1 / place, "relevance": 1 / place, "worth": 0.5,
                "people": 3 - place, "model_version": "3", "ranker_version": "8",
            }
            for kind, trigger in TRIGGERS[:triggers]
            for place in (2, 1)
        ]
    }  # fmt: skip


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_AT_ONCE", 5)
    monkeypatch.setattr(index, "_REMOVED_AT_ONCE", 50)


@pytest.fixture
def nights(shop: Any) -> Any:
    """A shop with one index, in force."""
    shop.rows["trigger_queries"] = {}
    shop.publish("trigger_queries", night(FIRST, "one"))
    assert publish_index(shop.profile) is not None
    return shop


@contextmanager
def opened(shop: Any) -> Iterator[Any]:
    with store.opened_store(shop.profile) as feast_store:
        yield feast_store


def told(feast_store: Any) -> list[list[str]]:
    """The queries of every trigger."""
    return [[found.query for found in own] for own in of_triggers(feast_store, TRIGGERS)]


def expected(words: str) -> list[list[str]]:
    return [[f"{words} {trigger} {place}" for place in (1, 2)] for _, trigger in TRIGGERS]


def keys_online(shop: Any) -> set[str]:
    """The versions of all rows that the store has, and the pointer."""
    with sqlite3.connect(shop.profile.feast.online_store["path"]) as connection:
        rows = connection.execute("SELECT value FROM plumbline_trigger_queries WHERE feature_name = 'index_version'")
        return {bytes(value).decode("latin-1")[2:] for (value,) in rows}


def test_a_night_is_in_force_with_its_lists_in_their_order_and_once(nights: Any) -> None:
    with opened(nights) as feast_store:
        version = version_in_force(feast_store)
        assert version is not None and version.startswith("2026-01-20-")
        assert told(feast_store) == expected("one")
        (why,) = {found.why for found in of_triggers(feast_store, [(SEARCH, "red pens")])[0][:1]}
        assert (why.side, why.kind, why.trigger, why.version, why.score) == ("x2q", SEARCH, "red pens", version, 1.0)
        assert of_triggers(feast_store, [(ITEM, "unknown"), (SEARCH, "i1")]) == [[], []]
    assert publish_index(nights.profile) == Published(version, 0)
    assert nights.ledger.committed("online.trigger_queries").keys() == {FIRST} and nights.ledger.reconcile() == []


def test_the_index_before_is_kept_and_older_ones_are_gone(nights: Any) -> None:
    versions = []
    for number, words in enumerate(("two", "three"), start=1):
        nights.publish("trigger_queries", night(FIRST + timedelta(days=number), words))
        done = publish_index(nights.profile)
        assert done is not None and done.keys == len(TRIGGERS)
        versions.append(done.version)
        with opened(nights) as feast_store:
            assert told(feast_store) == expected(words)
    assert keys_online(nights) == set(versions)
    assert nights.ledger.committed("online.trigger_queries").keys() == {FIRST + timedelta(days=n) for n in (1, 2)}


def test_a_push_that_is_killed_leaves_the_old_index_in_force_and_the_next_one_ends_it(
    nights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.publish("trigger_queries", night(FIRST + timedelta(days=1), "two"))
    write = index._write
    for step in range(4):  # while rows are written, before they are read back, before the switch, after it
        with monkeypatch.context() as patch:
            _dies(patch, step, write)
            with pytest.raises(KeyboardInterrupt):
                publish_index(nights.profile)
        with opened(nights) as feast_store:
            assert told(feast_store) == expected("two" if step == 3 else "one")
    done = publish_index(nights.profile)
    assert done is not None and done.version.startswith("2026-01-21-")
    with opened(nights) as feast_store:
        assert told(feast_store) == expected("two")
    assert nights.ledger.committed("online.trigger_queries").keys() == {FIRST, FIRST + timedelta(days=1)}


def _dies(patch: pytest.MonkeyPatch, step: int, write: Any) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def write_half(feast_store: Any, view: Any, rows: Any, day: date) -> None:
        write(feast_store, view, dict(list(rows.items())[:12]), day)
        raise KeyboardInterrupt

    def write_rows(feast_store: Any, view: Any, rows: Any, day: date) -> None:
        if POINTER in rows:
            raise KeyboardInterrupt
        write(feast_store, view, rows, day)

    if step == 3:
        patch.setattr(index.Ledger, "record", killed)
    else:
        target, value = [("_write", write_half), ("_read_back", killed), ("_write", write_rows)][step]
        patch.setattr(index, target, value)


def test_rows_that_the_store_lost_or_another_attempt_stop_the_switch(
    nights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.publish("trigger_queries", night(FIRST + timedelta(days=1), "two"))
    write = index._write
    with monkeypatch.context() as patch:
        patch.setattr(index, "_write", lambda s, v, rows, day: write(s, v, dict(list(rows.items())[1:]), day))
        with pytest.raises(ReconciliationError, match="1 do not answer"):
            publish_index(nights.profile)
    read_back = index._read_back

    def overtaken(*arguments: Any) -> None:
        read_back(*arguments)
        nights.ledger.open_attempt("online.trigger_queries", [FIRST + timedelta(days=1)])

    with monkeypatch.context() as patch:
        patch.setattr(index, "_read_back", overtaken)
        with pytest.raises(StaleAttempt):
            publish_index(nights.profile)
    with opened(nights) as feast_store:
        assert told(feast_store) == expected("one")


def test_who_reads_during_a_swap_sees_one_whole_index_and_no_failure(nights: Any) -> None:
    """Readers of their own ask for everything, over and over, while three nights are published."""
    stop = threading.Event()

    def read() -> list[str]:
        seen = []
        with opened(nights) as feast_store:
            while not stop.is_set():
                answer = told(feast_store)
                seen.append(answer[0][0].split()[0])
                assert answer == expected(seen[-1])
        return list(dict.fromkeys(seen))

    order = ["one", "two", "three", "four"]
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number, words in enumerate(order[1:], start=1):
                nights.publish("trigger_queries", night(FIRST + timedelta(days=number), words))
                publish_index(nights.profile)
        finally:
            stop.set()
    for seen in (reader.result() for reader in readers):
        assert len(seen) >= 2 and seen == [words for words in order if words in seen]


def test_a_night_that_is_taken_back_gives_way_to_the_one_before(nights: Any) -> None:
    before = nights.lake.snapshot("trigger_queries")
    nights.publish("trigger_queries", night(FIRST + timedelta(days=1), "two"))
    publish_index(nights.profile)
    rollback(nights.lake, nights.ledger, "trigger_queries", before)
    assert publish_index(nights.profile) is not None
    with opened(nights) as feast_store:
        assert told(feast_store) == expected("one")


def test_before_the_first_night_there_is_no_index_and_nothing_to_publish(shop: Any) -> None:
    assert publish_index(shop.profile) is None
    apply_definitions(shop.profile)
    with opened(shop) as feast_store:
        assert version_in_force(feast_store) is None
        assert of_triggers(feast_store, [(ITEM, "i1")]) == [[]]


def test_hints_are_of_both_sides_and_of_one_where_the_other_has_nothing(nights: Any) -> None:
    made = datetime(2026, 1, 21, 9, tzinfo=UTC)
    own = {
        "hint_date": made.date(), "user_id": "ann", "signal_id": "s", "available_at": made,
        "signal_time": made - timedelta(minutes=3), "queries": ["blue ink", "ONE  i3 1"], "sources": ["model", "again"],
        "lists": [0, 1], "trigger_actions": ["search", "view"], "trigger_contents": ["Ink", "i9"], "model_version": "3",
    }  # fmt: skip
    nights.rows["user_hints"] = {}
    nights.publish("user_hints", {made.date(): [own]})
    push(nights.profile, pushed_view("user_hints"))
    soon = made + timedelta(hours=1)
    with opened(nights) as feast_store:
        both = hints_of(feast_store, "ann", [("search", "Red  PENS"), ("view", "i3")], 4, soon)
        assert [shown.query for shown in both] == ["blue ink", "one i3 1", "one red pens 1", "one i3 2"]
        assert [why.side for why in both[1].why] == ["x2q", "u2q"]
        assert [(why.kind, why.trigger) for why in both[0].why + both[1].why] == [
            (SEARCH, "ink"),
            (ITEM, "i3"),
            (ITEM, "i9"),
        ]
        assert [shown.query for shown in hints_of(feast_store, "bob", [("view", "i3")], 9, soon)] == expected("one")[3]
        assert [shown.query for shown in hints_of(feast_store, "ann", [], 9, soon)] == ["blue ink", "ONE  i3 1"]
        assert hints_of(feast_store, "ann", [], 9, made + timedelta(days=4)) == []
        assert hints_of(feast_store, "bob", [("view", "gone")], 9, soon) == []


def test_the_feature_server_answers_for_both_keys(nights: Any) -> None:
    from fastapi.testclient import TestClient

    with opened(nights) as feast_store, TestClient(application(feast_store)) as client:

        def asked(keys: list[str]) -> dict[str, list[Any]]:
            body = {"feature_service": "trigger_queries_v1", "entities": {TRIGGER_QUERIES.entity.key: keys}}
            answer = client.post("/get-online-features", json=body).json()
            names = answer["metadata"]["feature_names"]
            return {name: one["values"] for name, one in zip(names, answer["results"], strict=True)}

        (version,) = asked([POINTER])["index_version"]
        found = asked([index.key_of(version, ITEM, "i3"), index.key_of(version, ITEM, "nothing")])
        assert found["query"] == [["one i3 1", "one i3 2"], None]
