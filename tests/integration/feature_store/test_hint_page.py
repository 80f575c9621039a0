"""The page of hints: what the online store answers, told with its reasons, escaped, for anybody that is asked for."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from feature_store import hint_page
from feature_store.hint_page import ADDRESS, add_hint_page, write_hint_page
from feature_store.index import publish_index, version_in_force
from feature_store.push import push, pushed_view
from feature_store.serve import application
from feature_store.store import opened_store
from infra.lake import Lake

NIGHT = date(2026, 1, 20)
HOSTILE = "<script>alert(1)</script>"


def indexed(kind: str, trigger: str, *queries: str) -> list[dict[str, Any]]:
    return [
        {
            "index_date": NIGHT, "kind": kind, "trigger": trigger, "place": place, "query": query, "score": 1 / place,
            "relevance": 1 / place, "worth": 0.5, "people": 9 if kind == "item" else 1, "model_version": "3",
            "ranker_version": "8",
        }
        for place, query in enumerate(queries, start=1)
    ]  # fmt: skip


def written(user: str, now: datetime, **columns: Any) -> dict[str, Any]:
    made = now - timedelta(minutes=5)
    return {
        "hint_date": made.date(), "user_id": user, "signal_id": user, "available_at": made,
        "signal_time": made - timedelta(minutes=1), "queries": ["blue ink", HOSTILE], "sources": ["model", "co_click"],
        "lists": [0, 0], "trigger_actions": ["view"], "trigger_contents": ["i1"], "model_version": "3", **columns,
    }  # fmt: skip


@pytest.fixture
def hinted(shop: Any) -> Any:
    """A shop whose index and people's lists are online; one person asked for a thing that is gone."""
    now = datetime.now(UTC)
    item = {"snapshot_date": NIGHT, "item_id": "i1", "title": "Pen <b>", "source": "own", "origin": "real"}
    rows = {
        "items": {NIGHT: [item]},
        "trigger_queries": {NIGHT: [*indexed("item", "i1", "red pens", "Blue  INK"), *indexed("search", "قلم", "ink")]},
        "user_hints": {now.date(): [written("ann", now), written("bob", now, trigger_contents=["gone"], queries=[],
                                                                 sources=[], lists=[])]},
    }  # fmt: skip
    for table, days in rows.items():
        shop.rows[table] = {}
        shop.publish(table, days)
    push(shop.profile, pushed_view("user_hints"))
    publish_index(shop.profile)
    return shop


def cards(page: str) -> list[str]:
    """The cards in their order, as words."""
    found = re.split(r'<div class="card', page)[1:]
    return [" ".join(re.sub(r"<[^>]+>", " ", "<" + one).split()) for one in found]


def test_the_page_tells_of_each_person_and_trigger_what_is_shown_and_why(hinted: Any) -> None:
    path = write_hint_page(hinted.profile)

    assert path is not None and path.name == "hints.html"
    page = path.read_text()
    people_and_things = cards(page)
    with opened_store(hinted.profile) as store:
        version = version_in_force(store)
    ann = next(card for card in people_and_things if card.startswith("ann "))
    first = "blue ink written for them after Pen &lt;b&gt; i1 model 3 index of Pen &lt;b&gt; i1 score 0.50"
    assert f"{first}, index {version}" in ann
    assert f"red pens index of Pen &lt;b&gt; i1 score 1.00, index {version}" in ann
    assert "&lt;script&gt;alert(1)&lt;/script&gt; co click after" in ann and HOSTILE not in page
    bob = next(card for card in people_and_things if card.startswith("bob "))
    assert "an item that is gone gone" in bob and "The online store has no hints for this person" in bob
    assert "i1 Place Query Score 1 red pens 1.000 2 Blue INK 0.500" in people_and_things[2]
    assert "the search قلم Place Query Score 1 ink 1.000" in people_and_things[3]
    assert "<form" not in page and "simulated" in page


def test_people_of_the_day_before_stand_on_the_page_too(hinted: Any) -> None:
    now = datetime.now(UTC)
    before = now - timedelta(days=1)
    hinted.publish("user_hints", {before.date(): [written("cid", before), written("ann", before)]})
    push(hinted.profile, pushed_view("user_hints"))
    path = write_hint_page(hinted.profile)
    assert path is not None
    assert [card.split()[0] for card in cards(path.read_text())][:3] == ["ann", "bob", "cid"]


def test_a_shop_without_hints_has_no_page(shop: Any) -> None:
    assert write_hint_page(shop.profile) is None


def test_the_feature_server_shows_whoever_is_asked_for_first(hinted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setattr(hint_page, "LISTED", 1)
    with opened_store(hinted.profile) as store:
        app = application(store)
        add_hint_page(app, Lake(hinted.profile), store)
        with TestClient(app) as client:
            assert 'action="/hints"' in client.get(ADDRESS).text
            for user in ("ann", "bob"):
                answer = client.get(ADDRESS, params={"user": f" {user} "})
                assert answer.status_code == 200 and cards(answer.text)[0].startswith(f"{user} ")
            stranger = client.get(ADDRESS, params={"user": HOSTILE})
            assert "has no hints for this person" in cards(stranger.text)[0] and HOSTILE not in stranger.text
            asked = cards(client.get(ADDRESS, params={"trigger": " قلم "}).text)
            assert any("the search قلم Place Query Score 1 ink" in card for card in asked)
            assert len(client.get(ADDRESS, params={"user": "x" * 5000}).text) < 40_000
