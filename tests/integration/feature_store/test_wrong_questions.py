"""The feature server refuses what it cannot answer, with the field and what is expected there; nothing of it leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_store.questions import MAX_ROWS
from feature_store.serve import application, apply_definitions
from feature_store.store import opened_store
from infra.profile import load_profile

ASKED = {"user_id": ["7", "8"], "item_id": ["3", "4"], "as_of_unix": [1525132800, 1525132801]}
GOOD = {"feature_service": "next_item_v1", "full_feature_names": True, "entities": ASKED}
ONE = {"features": ["user_daily:events_7d"], "entities": {"user_id": ["7"]}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The server over an empty online store."""
    from fastapi.testclient import TestClient

    profile = load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path_factory.mktemp("home"))})
    apply_definitions(profile)
    with opened_store(profile) as store, TestClient(application(store), raise_server_exceptions=False) as started:
        yield started


def post(client: Any, body: Any) -> Any:
    """What the server answers; a body that is no text is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/get-online-features", content=content, headers={"Content-Type": "application/json"})


def asked(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "entities": {**ASKED, **changes}}


@pytest.mark.parametrize("body", [GOOD, ONE, asked(user_id=["7", "ü \0"]), {**ONE, "full_feature_names": True}])
def test_a_question_as_expected_is_answered(client: Any, body: Any) -> None:
    assert post(client, body).status_code == 200


@pytest.mark.parametrize(
    ("body", "loc", "said"),
    [
        (b"", [], "expected a JSON object"),
        (b"[1]", [], "expected a JSON object"),
        (b"{", [], "expected a JSON object"),
        (b"\xff\xfe", [], "expected a JSON object"),
        (b"[" * 100_000, [], "expected a JSON object"),
        ({}, ["feature_service"], "expected one of the two"),
        ({**GOOD, "features": ["user_daily:events_7d"]}, ["feature_service"], "expected one of the two"),
        ({**GOOD, "feature_servise": 1}, ["feature_servise"], "unknown key; known: entities, feature_service"),
        ({**GOOD, "feature_service": "next_item_v2"}, ["feature_service"], "no such service; known: next_item_v1"),
        ({**GOOD, "feature_service": ["next_item_v1"]}, ["feature_service"], "no such service"),
        ({**GOOD, "full_feature_names": "yes"}, ["full_feature_names"], "expected true or false"),
        ({**GOOD, "full_feature_names": False}, ["full_feature_names"], "expected true: several views have"),
        ({**ONE, "features": "user_daily:events_7d"}, ["features"], "expected a list of VIEW:FEATURE"),
        ({**ONE, "features": ["user_daily:evens"]}, ["features", 0], "its features: events_7d"),
        ({**ONE, "features": ["users:events_7d"]}, ["features", 0], "views: user_daily, item_daily"),
        ({**ONE, "features": [None]}, ["features", 0], "expected VIEW:FEATURE"),
        ({**GOOD, "entities": None}, ["entities"], "a list for each of: as_of_unix, item_id, user_id"),
        ({**GOOD, "entities": [ASKED]}, ["entities"], "expected an object"),
        ({**GOOD, "entities": {}}, ["entities", "as_of_unix"], "missing; expected whole seconds"),
        (
            asked(user=["7", "8"]),
            ["entities", "user"],
            "unknown key; known: user_id, item_id, query, trigger_key",
        ),
        (asked(user_id="7"), ["entities", "user_id"], "expected a list"),
        (asked(user_id=[], item_id=[], as_of_unix=[]), ["entities", "user_id"], "at least one value"),
        (asked(user_id=["7", None]), ["entities", "user_id", 1], "expected ids that are text"),
        (asked(user_id=["7", 8]), ["entities", "user_id", 1], "expected ids that are text"),
        (asked(item_id=["", "8"]), ["entities", "item_id", 0], "not empty"),
        (asked(item_id=["3", "\ud800"]), ["entities", "item_id", 1], "expected ids that are text"),
        (asked(item_id=["3"]), ["entities"], "lists of one length; found user_id 2, item_id 1, as_of_unix 2"),
        (asked(as_of_unix=[1525132800000, 1]), ["entities", "as_of_unix", 0], "seconds since 1970 (no milliseconds)"),
        (asked(as_of_unix=[1, -1]), ["entities", "as_of_unix", 1], "whole seconds since 1970"),
        (asked(as_of_unix=[1, 1.5]), ["entities", "as_of_unix", 1], "whole seconds since 1970"),
        (asked(as_of_unix=[1, True]), ["entities", "as_of_unix", 1], "whole seconds since 1970"),
        (asked(as_of_unix=["1525132800", 1]), ["entities", "as_of_unix", 0], "whole seconds since 1970"),
        (asked(as_of_unix=[None, 1]), ["entities", "as_of_unix", 0], "whole seconds since 1970"),
        ({**ONE, "entities": {"user_id": ["7"] * (MAX_ROWS + 1)}}, ["entities"], f"at most {MAX_ROWS} rows"),
    ],
)
def test_a_wrong_question_is_refused_with_the_field_and_what_is_expected(
    client: Any, body: Any, loc: list[Any], said: str
) -> None:
    answer = post(client, body)
    assert answer.status_code == 422, answer.text
    told = {tuple(fault["loc"]): fault["msg"] for fault in answer.json()["detail"]}
    assert said in told[("body", *loc)]


def test_a_body_beyond_all_measure_is_not_read(client: Any) -> None:
    assert post(client, b" " * 5_000_001).status_code == 413


def test_what_fails_inside_of_the_server_stays_inside(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import feast

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot open /home/shop/online.db")

    monkeypatch.setattr(feast.FeatureStore, "get_online_features", fail)
    answer = post(client, GOOD)
    assert (answer.status_code, answer.json()) == (500, {"detail": "The server failed. Its log says why."})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.filterwarnings("ignore:'HTTP_422_UNPROCESSABLE_ENTITY' is deprecated")
def test_what_feast_refuses_itself_is_still_its_own_answer(client: Any) -> None:
    pushed = client.post("/push", json={"push_source_name": "nobody", "df": {}})
    assert 400 <= pushed.status_code < 500 and str(Path.cwd()) not in pushed.text
